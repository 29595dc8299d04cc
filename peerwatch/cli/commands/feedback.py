"""`peerwatch feedback`."""

from pathlib import Path
from typing import BinaryIO, Literal

import click

from peerwatch.cli.options import DIRECTORY
from peerwatch.errors import UsageError
from peerwatch.readable import shown


@click.command()
@click.argument("directory", type=DIRECTORY, metavar="STATE_DIR")
@click.argument("labels", type=click.File("rb"), metavar="[FILE]", required=False)
@click.option("--seq", multiple=True, type=click.IntRange(1), metavar="N", help="An event's number; repeatable.")
@click.option("--line", multiple=True, type=click.IntRange(1), metavar="N", help="A stream log's line; repeatable.")
@click.option("--label", type=click.Choice(["anomaly", "normal"]), help="What these purchases are.")
def feedback(
    directory: Path,
    labels: BinaryIO | None,
    *,
    seq: tuple[int, ...],
    line: tuple[int, ...],
    label: Literal["anomaly", "normal"] | None,
) -> None:
    """Label purchases of a run as anomalies or normal, by the numbers that decision logs give them.

    FILE (- for standard input) has one label a line, like {"seq": 8, "label": "anomaly"} or {"line": 9, "label":
    "normal"}. If one of them cannot be used, nothing is added. A run may be using STATE_DIR meanwhile.

    \b
    peerwatch feedback state --seq 200812 --seq 200990 --label anomaly
    peerwatch feedback state reviewed.jsonl
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    from peerwatch.storage.feedback import FeedbackEntry, append_feedback, decode_entries  # noqa: PLC0415 (--help answers at once)

    if labels is not None and not (seq or line or label):
        entries = decode_entries(labels.read(), shown(labels.name))
    elif labels is None and (seq or line) and label:
        entries = [
            *(FeedbackEntry(seq=one, label=label) for one in seq),
            *(FeedbackEntry(line=one, label=label) for one in line),
        ]
    else:
        raise UsageError("name a FILE of labels, or purchases by --seq or --line and their --label")
    path = append_feedback(directory, entries)
    click.echo(f"{len(entries)} {'label' if len(entries) == 1 else 'labels'} added to {shown(path)}")

"""`peerwatch rejects`."""

import sys
from pathlib import Path
from typing import BinaryIO

import click

from peerwatch.cli.options import CONFIG, FILE, layers_of
from peerwatch.errors import BadEvent, UsageError
from peerwatch.network.rejects import decode_reject
from peerwatch.readable import shown
from peerwatch.settings.model import resolve


@click.group()
def rejects() -> None:
    """Show rejected lines, or feed corrected ones back."""


@rejects.command("show")
@click.argument("file", type=FILE)
@click.option("--raw", is_flag=True, help="Print the lines' original bytes and nothing else.")
def rejects_show(file: Path, *, raw: bool) -> None:
    """List the lines in a rejects FILE: where each was, why it was rejected, and its text."""
    output, number = sys.stdout.buffer, 0
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007 (the error below names it)
                rejected = decode_reject(line)
                if raw:
                    output.write(rejected.raw + b"\n")
                    continue
                where = f"{rejected.file}:{rejected.line} (byte {rejected.offset})"
                text = rejected.raw.decode(errors="backslashreplace")
                readable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
                output.write(f"{where}: {rejected.reason}\n    {readable}\n".encode())
            output.flush()
    except BadEvent as error:
        output.flush()
        raise UsageError(f"{shown(file)}:{number}: {error}") from None


@rejects.command("requeue")
@click.argument("lines", type=click.File("rb"))
@click.argument("stream", type=FILE)
@CONFIG
def rejects_requeue(lines: BinaryIO, stream: Path, config: Path | None) -> None:
    """Append corrected LINES (a file of events, - for standard input) to the log STREAM.

    Take the lines from `peerwatch rejects show --raw`, correct them, and feed them back. If one of them is still not an
    event, nothing is appended. Where a config names the keys of the log's fields (input.fields), give it with --config.
    """
    settings, _ = resolve(*layers_of((), config, {}))
    from peerwatch.replay.requeue import append_events  # noqa: PLC0415

    count = append_events(lines.read(), shown(lines.name), stream, settings.input.names())
    click.echo(f"{count} events appended to {shown(stream)}")

"""`peerwatch demo`."""

import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import click

from peerwatch.cli.options import DIRECTORY
from peerwatch.errors import UsageError

SIZE: Final = "--users 300 --batch-events 3000 --stream-events 1000 --mean-degree 4 --T 12 --seed 8"
"""A small pair of logs. Without either of two friendships its first flagged purchase would be normal."""
FLAGGED: Final = "flagged_purchases.json"
NAME: Final = "demo"
"""What the directory is called unless the user names one."""
WIDTH: Final = 80
"""The longest line of what the demo says itself; what the commands print may be wider."""


class Step(NamedTuple):
    """A heading, what the reader should know, and command lines that are shown and run."""

    heading: str
    text: str
    commands: list[list[str]]


@click.command()
@click.option("--directory", type=DIRECTORY, metavar="DIR",
              help="Keep the files in DIR, new or empty. Default: a temporary directory.")  # fmt: skip
@click.option("--no-pause", is_flag=True, help="Do not wait for Enter between the steps.")
@click.pass_context
def demo(ctx: click.Context, *, directory: Path | None, no_pause: bool) -> None:
    """Show what peerwatch does, in six steps on a small pair of logs.

    Each step shows a command and runs it: generate, run, explain, state and sweep. The logs have a fixed seed, so the
    same commands print the same in a folder of yours. On a terminal the demo waits for Enter between the steps; Ctrl-C
    ends it. Nothing is left behind unless --directory names a place.

    \b
    peerwatch demo
    peerwatch demo --directory demo --no-pause
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # an exception, so that the files are removed
    ctx.call_on_close(partial(signal.signal, signal.SIGINT, before))
    waits = not no_pause and sys.stdin.isatty() and sys.stdout.isatty()
    try:
        with _place(directory) as name:
            for number, step in enumerate(_steps(name), 1):
                if number > 1:
                    _pause(waits=waits)
                click.secho(f"{number}. {step.heading}", bold=True)
                click.echo(click.wrap_text(step.text, width=WIDTH))
                for words in step.commands:
                    click.secho(f"\n$ {_quoted(words)}", fg="cyan")
                    _type(ctx, words)
            _pause(waits=waits)
            click.secho("What next?", bold=True)
            click.echo(_next(name, kept=directory is not None))
    except (KeyboardInterrupt, EOFError):
        click.echo("\npeerwatch: the demo was ended", err=True)
        sys.exit(128 + signal.SIGINT)


@contextmanager
def _place(directory: Path | None) -> Iterator[str]:
    """Give the name of the directory for the files, as commands in the current directory call it.

    Raises:
        UsageError: the user's directory has something in it.
    """
    if directory is not None:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UsageError(f"{directory} already exists and is not an empty directory; name another one")
        yield str(directory)
        return
    from tempfile import TemporaryDirectory  # noqa: PLC0415 (every command would start later by it)

    with TemporaryDirectory(prefix="peerwatch-demo-") as temporary, chdir(temporary):
        yield NAME


def _steps(name: str) -> Iterator[Step]:
    """Yield the steps. A step may depend on what the commands of those before it have written."""
    logs = [f"{name}/batch_log.json", f"{name}/stream_log.json"]
    flagged = f"{name}/{FLAGGED}"
    yield Step(
        "Two logs",
        "The batch log holds the past: purchases, and who became friends. The stream log comes after it and is judged."
        " A few of its purchases were made 10 to 50 times too large on purpose; labels.json names them. The first line"
        " of the batch log sets D and T.",
        [["peerwatch", "generate", name, *SIZE.split()], ["head", "-n", "4", logs[0]]],
    )
    yield Step(
        "Judge the stream",
        "A purchase is flagged if it is above mean + 3 sd of the latest T=12 purchases by everyone within D=2 hops of"
        " the buyer: friends, and friends of friends.",
        [["peerwatch", "run", *logs, flagged]],
    )
    yield Step(
        "The flagged purchases",
        "The output has the flagged lines as they stood in the log, with the mean and standard deviation (sd) of the"
        " window added.",
        [["head", "-n", "4", flagged]],
    )
    user, at = _first_flagged(name)
    yield Step(
        "Why was the first one flagged?",
        "explain reads the logs again. It lists the purchases that counted and by which friendships, the integers that"
        " decided, and what would have changed the verdict (flips).",
        [["peerwatch", "explain", *logs, "--user", user, "--at", at]],
    )
    yield Step(
        f"What was known about user {user}?",
        "state shows a user as of any moment: friends, network, purchases, and the amount above which a purchase would"
        " be flagged. Here it is the moment right after that purchase.",
        [["peerwatch", "state", *logs, "--user", user, "--at", at]],
    )
    grid = ["--D", "1,2", "--T", "12,50", "--k", "3,5,8"]
    yield Step(
        "Would other settings do better?",
        "sweep tries many settings in one pass over the logs. With labels it shows which share of the flagged purchases"
        " is labelled (precision), and which share of the labelled ones is flagged (recall).",
        [["peerwatch", "sweep", *logs, *grid, "--labels", f"{name}/labels.json"]],
    )


def _first_flagged(name: str) -> tuple[str, str]:
    """Return the user and the time of the first flagged purchase."""
    with Path(name, FLAGGED).open(encoding="utf-8") as lines:
        first = json.loads(next(lines))
    return first["id"], first["timestamp"]


def _next(name: str, *, kept: bool) -> str:
    """Return commands that a newcomer may want to type next."""
    logs = [f"{name}/batch_log.json", f"{name}/stream_log.json"]
    user, at = _first_flagged(name)
    again = ["peerwatch", "demo", "--directory", name, "--no-pause"]
    explain = ["peerwatch", "explain", *logs, "--user", user, "--at", at, "--plot", "why.png"]
    follow = ["peerwatch", "run", *logs, "followed.json", "--follow", "--state", "peerwatch-state"]
    methods = ["--method", "sigma", "--method", "mad"]
    evaluate = ["peerwatch", "evaluate", *logs, "--labels", f"{name}/labels.json", *methods]
    ways = [
        *([] if kept else [("The files of this demo are not kept. The same demo, with files that stay:", again)]),
        ("The decision of step 4 as a picture (needs pip install 'peerwatch[plot]'):", explain),
        ("Judge a log as it grows, and continue after a stop or a crash. Ctrl-C ends it:", follow),
        ("How well do detectors find the labelled purchases? (needs pip install 'peerwatch[learn]'):", evaluate),
        ("All commands:", ["peerwatch", "--help"]),
    ]
    told = [f"{text}\n$ {_quoted(words)}\n" for text, words in ways]
    return "\n".join(
        [*told, "Read on in README.md and docs/index.md. notebooks/tour.ipynb is a tour in Python, with pictures."]
    )


def _quoted(words: Sequence[str]) -> str:
    """Return a command line as it is typed in a shell."""
    import shlex  # noqa: PLC0415 (as above)

    return shlex.join(words)


def _type(ctx: click.Context, words: list[str]) -> None:
    """Run a command line as if it had been typed. Besides peerwatch's own commands there is `head -n N FILE`."""
    if words[0] == "head":
        with Path(words[-1]).open(encoding="utf-8") as lines:
            click.echo("".join(islice(lines, int(words[-2]))), nl=False)
        return
    root = ctx.find_root()
    command = root.command.get_command(root, words[1])  # type: ignore[attr-defined]
    with command.make_context(words[1], words[2:], parent=root) as typed:
        command.invoke(typed)


def _pause(*, waits: bool) -> None:
    """Wait for Enter.

    A signal that comes between the prompt and `input` would be seen only after Enter; the pipe makes it seen at once.

    Raises:
        EOFError: Ctrl-D instead.
    """
    click.echo()
    if not waits:
        return
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    before = signal.set_wakeup_fd(wakes)
    try:
        click.echo("Press Enter to go on. ", nl=False)
        select.select([sys.stdin, woken], [], [])
        if not sys.stdin.readline():
            raise EOFError
    finally:
        signal.set_wakeup_fd(before)
        os.close(woken)
        os.close(wakes)
    click.echo()

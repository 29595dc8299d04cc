"""The command line."""

import errno
import os
import signal
from contextlib import suppress
from typing import Any, Final

import click

from peerwatch.network.errors import PeerwatchError, UsageError
from peerwatch.runtime.commands.bisect import bisect
from peerwatch.runtime.commands.config import config
from peerwatch.runtime.commands.datasets import datasets
from peerwatch.runtime.commands.detect import detect
from peerwatch.runtime.commands.evaluate import evaluate
from peerwatch.runtime.commands.explain import explain
from peerwatch.runtime.commands.feedback import feedback
from peerwatch.runtime.commands.generate import generate
from peerwatch.runtime.commands.rejects import rejects
from peerwatch.runtime.commands.run import run
from peerwatch.runtime.commands.state import state
from peerwatch.runtime.commands.status import status
from peerwatch.runtime.commands.sweep import sweep
from peerwatch.runtime.commands.verify import verify
from peerwatch.runtime.names import shown

EXIT_STOPPED: Final = 1
EXIT_USAGE: Final = 2
FAILING: Final = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC}
"""What a disk fails with, whatever the user has named."""


class Group(click.Group):
    """Turns peerwatch's own errors into one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except PeerwatchError as error:
            _say(str(error))
            raise SystemExit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_STOPPED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would complain again while it exits
            raise SystemExit(EXIT_STOPPED) from None
        except OSError as error:
            _say(f"{shown(error.filename)}: {error.strerror}" if error.filename is not None else str(error.strerror))
            raise SystemExit(EXIT_STOPPED if error.errno in FAILING else EXIT_USAGE) from None


def _say(sentence: str) -> None:
    with suppress(OSError):
        click.echo(f"peerwatch: {sentence}", err=True)


def main() -> None:
    """The entry point of the command `peerwatch`.

    Until a run handles signals itself, Ctrl-C ends the process as it ends any other, wherever it is: in an import, or
    in opening a pipe that has no other end.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    cli(prog_name="peerwatch")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="peerwatch")
def cli() -> None:
    """Flag purchases far above what the buyer's own network has been spending.

    peerwatch reads a log of purchases, befriendings and unfriendings and flags each purchase that is more than k
    standard deviations above the mean of the last T purchases by the buyer's friends up to D hops away. Verdicts are
    exact: integers decide, and the same logs give the same bytes at any number of shards.
    """


for command in (
    run, status, feedback, explain, state, sweep, verify, bisect, detect, evaluate, rejects, config, generate, datasets,
):  # fmt: skip
    cli.add_command(command)

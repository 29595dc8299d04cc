"""The command group, and the translation of errors into exit codes."""

import errno
import os
import signal
import sys
import threading
import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from peerwatch.errors import PeerwatchError, TiedScores, Unreachable, UsageError
from peerwatch.files.descriptors import fill
from peerwatch.readable import shown
from peerwatch.runtime.room import SHORT, check_room, shortage

COMMANDS: Final = (
    "bisect", "cluster", "config", "copy", "datasets", "demo", "detect", "evaluate", "explain", "feedback", "generate",
    "poison", "radius", "rejects", "report", "run", "serve", "sessions", "state", "status", "sweep", "tune", "verify",
)  # fmt: skip
EXIT_STOPPED: Final = 1
EXIT_USAGE: Final = 2
FULL: Final = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPIPE}
"""Error numbers of failed writes that are not the user's mistake. Without a file name they concern standard output."""


class Group(click.Group):
    """A group of commands that reports an error as one sentence and an exit code.

    Only the command that is called is imported: the others would cost it a fiftieth of its start.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Name all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; its module has its name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"peerwatch.cli.commands.{cmd_name}"), cmd_name)
        return command

    def main(self, *arguments: Any, **named: Any) -> NoReturn:
        """Run the command and exit."""
        try:
            code = super().main(*arguments, **(named | {"standalone_mode": False}))
        except click.ClickException as error:
            code = error.exit_code
            with suppress(OSError):
                error.show()
        except click.Abort:
            code = EXIT_STOPPED
        except (PeerwatchError, OSError, MemoryError, ImportError, RuntimeError) as error:
            told = _told(error)
            if told is None:
                raise
            sentence, code = told
            with suppress(OSError):
                click.echo(f"peerwatch: {sentence}", err=True)
            if isinstance(error, OSError) and error.filename is None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise Python reports the error again when it exits
        raise SystemExit(code or 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Check for enough files and memory before a command begins."""
        check_room()
        return super().invoke(ctx)


def _told(error: Exception) -> tuple[str, int] | None:
    """Return the message and exit code for an error; None if it is a bug."""
    if isinstance(error, PeerwatchError):
        passes = isinstance(error, Unreachable) or _is_failing(error.__context__)
        is_usage = isinstance(error, UsageError) and not passes
        return str(error), EXIT_USAGE if is_usage else EXIT_STOPPED
    if (short := shortage(error)) is not None:
        return short, EXIT_STOPPED
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, ImportError):
        why: BaseException = error
        while why.__cause__ is not None:
            why = why.__cause__
        return f"cannot load a library: {_first_line(why)}", EXIT_STOPPED
    return None


def _of_system(error: OSError) -> tuple[str, int]:
    code = EXIT_STOPPED if _is_failing(error) else EXIT_USAGE
    words = error.strerror or _first_line(error)
    if error.filename is not None:
        return f"{shown(error.filename)}: {words}", code
    if error.errno == errno.EBADF:
        return "cannot write standard output: it is closed", EXIT_USAGE
    return f"cannot write standard output: {words}" if error.errno in FULL else words, code


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _is_failing(error: BaseException | None) -> bool:
    """Whether an error comes from the machine, not from something the user has named."""
    return isinstance(error, OSError) and error.errno in FULL | SHORT


def main() -> None:
    """The entry point of the command `peerwatch`.

    Until a run handles signals itself, Ctrl-C ends the process at once, even during an import or while it opens a pipe.
    """
    fill()
    warnings.simplefilter("ignore", TiedScores)  # a command that applies a detector to a table says so itself
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        cli(prog_name="peerwatch")
    except SystemExit as end:
        if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
            sys.stdout.flush()
            os._exit(end.code if isinstance(end.code, int) else 0)  # a thread may hang, and Python would wait for it
        raise


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="peerwatch")
def cli() -> None:
    """Flag purchases far above what the buyer's own network has been spending.

    peerwatch reads a log of purchases, befriendings and unfriendings and flags each purchase that is more than k
    standard deviations above the mean of the last T purchases by the buyer's friends up to D hops away. Verdicts are
    exact: integers decide, and the same logs give the same bytes at any number of shards.
    """

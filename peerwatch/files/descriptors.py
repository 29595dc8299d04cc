"""The descriptors that a process is started with: standard input, output and error, and others that paths name."""

import fcntl
import io
import os
import re
import sys
from contextlib import suppress
from typing import Final

from peerwatch.errors import UsageError
from peerwatch.settings.model import Settings

NAMED: Final = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
NAMES: Final = ("standard input", "standard output", "standard error")
_NUMBERED: Final = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})")


def fill() -> None:
    """Give closed standard descriptors a meaning, before any file that is opened gets one of their numbers.

    They become what every use of them fails on: an input that can only be written, outputs that can only be read. So
    nothing that is meant for them is lost in silence (as gnulib's stdopen does it).
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDONLY if number else os.O_WRONLY)
            os.set_inheritable(opened, True)  # noqa: FBT003 # the lowest number that is free, which is this one
    # Python has None for a stream that was closed
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")


def _stream(number: int, mode: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(number, mode, closefd=False), encoding="utf-8", errors="backslashreplace")


def descriptor_of(path: str, dash: int) -> int | None:
    """The descriptor that a path names, None if it names a file; `-` names the descriptor `dash`."""
    if path == "-":
        return dash
    numbered = _NUMBERED.fullmatch(path)
    return int(numbered[1]) if numbered else NAMED.get(path)


def name_of(number: int) -> str:
    """What to call a descriptor."""
    return NAMES[number] if number < len(NAMES) else f"/dev/fd/{number}"


def check_open(settings: Settings) -> None:
    """See that descriptors that are named as logs or outputs are open, before any file gets one of their numbers.

    Raises:
        UsageError: one is not.
    """
    for what, path in (("batch log", settings.input.batch), ("stream log", settings.input.stream)):
        number = descriptor_of(path, 0) if path is not None else None
        if number is not None and _mode(number) not in {os.O_RDONLY, os.O_RDWR}:
            raise UsageError(f"the {what} is {name_of(number)}, which is not open for reading; name a file")
    output = settings.output
    written = (output.flagged, output.rejects, output.verdicts, settings.logs.file)
    for what, path in zip(("output", "rejects file", "ledger", "log file"), written, strict=True):
        number = descriptor_of(path, 1) if path is not None else None
        if number is not None and _mode(number) not in {os.O_WRONLY, os.O_RDWR}:
            raise UsageError(f"the {what} is {name_of(number)}, which is not open for writing; name a file")


def _mode(number: int) -> int | None:
    with suppress(OSError):
        return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    return None

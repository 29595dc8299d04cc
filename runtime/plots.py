"""Pictures, drawn by matplotlib, which is an extra and imported only here."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from peerwatch.network.errors import UsageError
from peerwatch.runtime.explain import Record
from peerwatch.runtime.names import shown

FORMATS: Final = (".svg", ".png")


def check(path: Path) -> None:
    """See that a picture can be drawn to `path`, before any work is done for it.

    Raises:
        UsageError: the name has another ending, its directory is missing, or matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{shown(path)}: a picture's name ends in {' or '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UsageError(f"{shown(path)}: the directory {path.parent} does not exist; create it first")
    if find_spec("matplotlib") is None:
        raise UsageError("pictures need matplotlib, which is not installed: pip install 'peerwatch[plot]'")


def draw_explanation(record: Record, path: Path) -> None:
    """The buyer's network by hops, and the amount beside the window's amounts."""
    raise NotImplementedError(record, path)

"""Formats file names, users and tables as text for people."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Final

from peerwatch.urls import redacted

WIDTH: Final = 110
"""The width of a line in characters."""
LABEL: Final = 11
"""The width of the label at the beginning of a line, in characters."""
LISTED: Final = 60
"""The most users to list; the number of further ones follows."""


def shown(path: str | bytes | os.PathLike[str]) -> str:
    """A file's name in a form that every log and terminal takes, even if it is not UTF-8; a URL without its secrets."""
    return redacted(os.fsencode(path).decode(errors="backslashreplace"))


def path_of(text: str, *, directory: bool = False) -> str:
    """Return the path that a user has given for a file or a `directory`, with `~` expanded.

    Raises:
        ValueError: it cannot be a path; the text is the end of a sentence that begins with the path.
    """
    if not text:
        raise ValueError("is empty")
    if "\0" in text:
        raise ValueError("holds a NUL byte")
    if text.endswith(os.sep) and not directory:
        raise ValueError("is a directory's name")
    return os.path.expanduser(text)  # noqa: PTH111 (a Path would take ./- for -, and fail where there is no such home)


def why_unwritable(path: Path, error: OSError) -> str:
    """Return why a file cannot be opened for writing, and what to do about it."""
    if path.is_dir():
        return "it is a directory; name a file in it"
    directory = path.resolve().parent if path.is_symlink() else path.parent
    if not directory.exists():
        return f"the directory {shown(directory)} does not exist; create it first"
    return error.strerror or str(error)


def why_damaged(error: Exception) -> str:
    """Return what is wrong with an archive, given the error raised while reading it.

    For anything but plain arrays numpy advises to load the file with pickle, which would run code from it. That advice
    is left out.
    """
    text = str(error).partition("\n")[0]
    return "it holds something other than arrays" if "pickle" in text else text or type(error).__name__


def readable(user: str) -> str:
    """Return a user's id, quoted and escaped if it contains spaces or unprintable characters."""
    plain = user.isprintable() and " " not in user
    return user if plain else json.dumps(user)


def rows(labelled: Iterable[tuple[str, str]]) -> str:
    """Join lines, each preceded by its label."""
    return "\n".join(f"{label:<{LABEL}}{text}" for label, text in labelled)


def listed(label: str, users: Sequence[str], before: str = "") -> str:
    """Return the ids of some users after a label, wrapped."""
    more = f" and {len(users) - LISTED:,} more (--json names all)" if len(users) > LISTED else ""
    text = f"{label:<{LABEL}}{before}{' '.join(map(readable, users[:LISTED]))}{more}"
    return fill(text, WIDTH, subsequent_indent=" " * LABEL, break_long_words=False, break_on_hyphens=False)


def by_hop(hops: Iterable[int]) -> str:
    """Return the number of members at each hop, as text."""
    counts = ", ".join(f"{count:,} at hop {hop}" for hop, count in sorted(Counter(hops).items()))
    return f": {counts}" if counts else ""


def aligned(table: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    """Return the rows of a table as lines; the columns in `right` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            f"{cell:>{width}}" if place in right else f"{cell:<{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def short(timestamp: str) -> str:
    """Return a timestamp without a zero fraction of a second."""
    return timestamp.replace(".000000Z", "Z")

"""File names, users and tables as text that a person can read."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Final

WIDTH: Final = 110
"""Columns of text."""
LABEL: Final = 11
"""Columns of what stands before it."""
LISTED: Final = 60
"""Users that are listed; how many more there are is said."""


def shown(path: str | bytes | os.PathLike[str]) -> str:
    """A file's name in a form that every log and terminal takes, even if the name is not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def path_of(text: str, *, directory: bool = False) -> str:
    """The path of a file, or of a `directory`, that somebody has named; `~` is a home.

    Raises:
        ValueError: it can be none; the text says why in words that follow the name.
    """
    if not text:
        raise ValueError("is empty")
    if "\0" in text:
        raise ValueError("holds a NUL byte")
    if text.endswith(os.sep) and not directory:
        raise ValueError("is a directory's name")
    return os.path.expanduser(text)  # noqa: PTH111 (a Path would take ./- for -, and fail where there is no such home)


def why_unwritable(path: Path, error: OSError) -> str:
    """Why a file cannot be opened to be written, and what to do."""
    if path.is_dir():
        return "it is a directory; name a file in it"
    directory = path.resolve().parent if path.is_symlink() else path.parent
    if not directory.exists():
        return f"the directory {shown(directory)} does not exist; create it first"
    return error.strerror or str(error)


def why_damaged(error: Exception) -> str:
    """What is wrong with an archive, by the error that reading it has raised.

    What numpy says of anything that is no array of its own ends in the advice to load it unsafely, by running what it
    holds: that is never said.
    """
    text = str(error).partition("\n")[0]
    return "it holds what is no array" if "pickle" in text else text or type(error).__name__


def readable(user: str) -> str:
    """A user's id as a person can read it: quoted and escaped if it has spaces or what is not printed."""
    plain = user.isprintable() and " " not in user
    return user if plain else json.dumps(user)


def rows(labelled: Iterable[tuple[str, str]]) -> str:
    """Lines, each with its label before it."""
    return "\n".join(f"{label:<{LABEL}}{text}" for label, text in labelled)


def listed(label: str, users: Sequence[str], before: str = "") -> str:
    """Some users' ids, wrapped, behind a label."""
    more = f" and {len(users) - LISTED:,} more (--json names all)" if len(users) > LISTED else ""
    text = f"{label:<{LABEL}}{before}{' '.join(map(readable, users[:LISTED]))}{more}"
    return fill(text, WIDTH, subsequent_indent=" " * LABEL, break_long_words=False, break_on_hyphens=False)


def by_hop(hops: Iterable[int]) -> str:
    """How many members are at each hop."""
    counts = ", ".join(f"{count:,} at hop {hop}" for hop, count in sorted(Counter(hops).items()))
    return f": {counts}" if counts else ""


def aligned(table: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    """The rows of a table as lines; the columns in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            f"{cell:>{width}}" if place in right else f"{cell:<{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def short(timestamp: str) -> str:
    """A timestamp without a fraction of nothing."""
    return timestamp.replace(".000000Z", "Z")

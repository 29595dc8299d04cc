"""What explanations and states have in common as text."""

from collections import Counter
from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import Final

from peerwatch.runtime.names import readable

WIDTH: Final = 110
"""Columns of text."""
LABEL: Final = 11
"""Columns of what stands before it."""
LISTED: Final = 60
"""Users that are listed; how many more there are is said."""


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

"""A table in place of the batch log: its rows as the lines of a log, read to their end before the stream begins."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec
from anyio.to_thread import run_sync

from peerwatch.connectors.source import Block
from peerwatch.errors import UsageError
from peerwatch.network.events import CANONICAL, KINDS, FieldNames

ROWS: Final = 8192
"""The rows of one block."""
ANY_TIME: Final = "1970-01-01 00:00:00"
"""The timestamp of a friendship without one. Friendships count in the order of the rows, whatever their timestamps."""
PURCHASE: Final = ("timestamp", "id", "amount")
FRIENDSHIP: Final = ("id1", "id2")
_LISTED: Final = 20


class BadRow(NamedTuple):
    """A row that does not fit the table's columns."""

    fields: list[str]


Row: TypeAlias = Sequence[str | None] | BadRow


class InputTable(Protocol):
    """Rows of texts under named columns."""

    async def open(self, stack: AsyncExitStack) -> list[str]:
        """Open it; returns the names of its columns. It is closed with the stack.

        Raises:
            UsageError: it cannot be read.
        """

    def rows(self, columns: Sequence[str]) -> AsyncGenerator[list[Row], None]:
        """The values in these columns, row after row.

        Raises:
            SourceError: it cannot be read any further.
        """


class TablePosition(msgspec.Struct, frozen=True):
    """The end of a table with so many rows. Nothing is remembered of a place before it."""

    rows: int


class Layout(NamedTuple):
    """How rows become lines: the columns to read, in order, and the fields that are the same in each line."""

    columns: list[str]
    constant: dict[str, str]


class TableSource:
    """The rows of a table, each one line with the keys of a log.

    Only the last block has a position, so no checkpoint is taken before the end: a run that ends earlier begins the
    table anew, which may have other rows by then, or the same ones in another order.
    """

    size: int | None = None

    def __init__(self, name: str, table: InputTable, *, position: Any = None, names: FieldNames = CANONICAL) -> None:
        """Nothing is read if there is a position, which is the table's end."""
        self.name = name
        self.judged = False
        self.names = names
        self._table = table
        self._is_read = position is not None
        self._layout = Layout([], {})

    @property
    def file(self) -> str:
        """What is being read."""
        return self.name

    def unread(self) -> int | None:
        """The number of bytes that wait to be read: nobody knows."""
        return None

    async def open(self, stack: AsyncExitStack) -> None:
        """Open it, unless it has been read; it is closed with the stack.

        Raises:
            UsageError: it cannot be read, or lacks a column.
        """
        if not self._is_read:
            self._layout = layout(self.name, await self._table.open(stack), self.names)

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The rows as lines.

        Raises:
            SourceError: it cannot be read any further.
        """
        if self._is_read:
            return
        held: Block | None = None
        offset, line = 0, 1
        async with aclosing(self._table.rows(self._layout.columns)) as batches:
            async for rows in batches:
                if held is not None:
                    yield held
                content = await run_sync(lines_of, rows, self._layout)
                held = Block(content, offset, line, None)
                offset += len(content)
                line += len(rows)
        if held is not None:
            yield held._replace(position=TablePosition(line - 1))


def layout(table: str, columns: Sequence[str], names: FieldNames = CANONICAL) -> Layout:
    """How the rows of a table with these columns become lines.

    Raises:
        UsageError: it lacks a column, or the columns do not say what its rows are.
    """
    there = set(columns)
    by_field = names._asdict()
    twice = [name for name in by_field.values() if columns.count(name) > 1]
    if twice:
        raise UsageError(f"{table} has more than one column {twice[0]}; name the others otherwise")
    constant = names.event_type.removeprefix("=") if names.event_type.startswith("=") else None
    if constant is None and names.event_type in there:
        needed = [fields for fields in (PURCHASE, FRIENDSHIP) if all(by_field[field] in there for field in fields)]
        if needed:
            return Layout([by_field[field] for field in by_field if by_field[field] in there], {})
    are_purchases, are_friendships = (
        constant in kinds and all(by_field[field] in there for field in fields)
        for kinds, fields in (((None, "purchase"), PURCHASE), ((None, "befriend", "unfriend"), FRIENDSHIP))
    )
    if are_purchases and are_friendships:
        raise UsageError(
            f'{table} has the columns of purchases and of friendships; add a column "{names.event_type}" that says what'
            f" each row is, with one of {', '.join(KINDS)}"
        )
    if not (are_purchases or are_friendships):
        purchase, friendship = (", ".join(by_field[field] for field in fields) for fields in (PURCHASE, FRIENDSHIP))
        found = ", ".join(columns[:_LISTED]) + (", ..." if len(columns) > _LISTED else "")
        raise UsageError(
            f"{table} needs the columns {purchase} for purchases, or {friendship} for friendships; it has"
            f" {found or 'none'}"
        )
    fields = PURCHASE if are_purchases else (*FRIENDSHIP, "timestamp")
    event_type = {} if constant is not None else {names.event_type: "purchase" if are_purchases else "befriend"}
    times = {names.timestamp: ANY_TIME} if are_friendships else {}
    return Layout([by_field[field] for field in fields if by_field[field] in there], event_type | times)


def lines_of(rows: Sequence[Row], layout: Layout) -> bytes:
    """Rows as lines. A value that is missing or empty is left out; what fits no column is a line that is no event."""
    columns, constant = layout
    lines: list[bytes] = []
    for row in rows:
        value: Any = (
            row.fields
            if isinstance(row, BadRow)
            else constant | {name: text for name, text in zip(columns, row, strict=True) if text}
        )
        try:
            lines.append(msgspec.json.encode(value))
        except UnicodeEncodeError:  # bytes that are no UTF-8 were kept as surrogates; so the line is rejected for them
            lines.append(json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape"))
    return b"\n".join([*lines, b""])

"""The contract of a source: it yields blocks of lines, each with the position after it."""

from collections.abc import AsyncGenerator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from peerwatch.network.events import FieldNames


class Block(NamedTuple):
    """Whole lines of a log; only the last may lack its line feed. No lines only show that the log is alive.

    `offset` is the first byte's place in the file, `line` the first line's number, from 1. `position` is where reading
    goes on behind the block, as a value of the source's own. `caught_up` says of a block without lines that nothing
    older than itself is left to read. `hole` counts the NUL bytes before the first line that the log has skipped.
    """

    content: bytes
    offset: int
    line: int
    position: Any
    caught_up: bool = False
    hole: int = 0


class Source(Protocol):
    """A source of lines: its name, and whether it is the judged log; the other is judged only if a run is told to.

    One that can be resumed is opened behind a position that it gave with a block, in this run or an earlier one: a
    value that msgspec can write as JSON, which nobody else looks into. `connectors/checks.py` holds it to that.
    """

    name: str
    judged: bool
    names: FieldNames
    """The keys under which its lines have an event's fields."""

    def blocks(self) -> AsyncGenerator[Block, None]:
        """The lines, as they come, until there are no more; an empty block says that it is alive.

        Raises:
            SourceError: the source could not be read any further.
        """


class StreamPosition(msgspec.Struct, frozen=True):
    """Where reading goes on: behind the entry `after`, at line `line`, with `offset` bytes of lines before it."""

    after: Any = None
    line: int = 1
    offset: int = 0

    @property
    def generation(self) -> int:
        """A stream is not rotated."""
        return 0


Where = TypeVar("Where")


class Bookmark(NamedTuple, Generic[Where]):
    """A place at which reading can begin again: the number of events before it, the log, and the position there."""

    events: int
    judged: bool
    position: Where

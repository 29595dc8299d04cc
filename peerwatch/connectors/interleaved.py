"""Several partitions as one stream, in an order that is written down before anything is judged by it.

Partitions have no order between them: whoever reads them again gets another one. So each piece that is read is noted in
a journal, durably, and a run that goes on, or reads everything again, takes the pieces as the journal has them.
"""

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import msgspec
from anyio.to_thread import run_sync

from peerwatch import durable
from peerwatch.connectors.stream import Entry, Stream
from peerwatch.errors import SourceError, UsageError
from peerwatch.readable import shown
from peerwatch.urls import ConnectorUrl

WAIT_SECONDS: Final = 1.0
"""How long one fetch waits for a message that was there before."""


@runtime_checkable
class Partitioned(Stream, Protocol):
    """A stream that may have several partitions."""

    async def split(self) -> Sequence[Stream]:
        """A stream for each partition, in the order of their numbers.

        Raises:
            UsageError: there is no such topic.
            Unavailable: the server does not answer.
        """


class Piece(NamedTuple):
    """Some messages of one partition, the last of them with the id `last`."""

    partition: int
    last: Any


class Interleaving(msgspec.Struct, frozen=True):
    """Where reading goes on: behind these ids of the partitions, and behind so many bytes of the journal."""

    after: list[Any]
    journal: int


class InterleavedStream:
    """The partitions of one topic. Reads them in turn, or as the journal says."""

    def __init__(self, url: ConnectorUrl, partitions: Sequence[Stream], journal: Path, *, again: bool = False) -> None:
        """With `again` only what the journal names is read, and nothing is noted: a run may be writing it."""
        self.url = url
        self._again = again
        self._partitions = partitions
        self._path = journal
        self._noted: deque[Piece] = deque()
        """Pieces in the journal that have not been read yet."""
        self._ahead: list[deque[Entry]] = [deque() for _ in partitions]
        """Messages of each partition that have been fetched, and belong to later pieces."""
        self._descriptor = -1
        self._turn = 0

    async def connect(self, after: Any) -> None:
        """Connect to all partitions, to go on behind an `Interleaving`.

        Raises:
            UsageError: the journal is shorter than it was, or the topic has lost partitions.
            Unavailable: the server does not answer.
        """
        known = msgspec.convert(after, Interleaving) if after is not None else Interleaving([], 0)
        self._after: list[Any] = [*known.after, *[None] * (len(self._partitions) - len(known.after))]
        if len(self._after) > len(self._partitions):
            raise UsageError(
                f"{self.url} had {len(known.after)} partitions when the checkpoint was taken, and has"
                f" {len(self._partitions)} now; begin anew with --reset"
            )
        self._position = known.journal
        self._close_journal()
        if after is not None or self._again:
            await run_sync(self._open)
        self._ahead = [deque() for _ in self._partitions]
        for partition, where in zip(self._partitions, self._after, strict=True):
            await partition.connect(where)

    def _open(self) -> None:
        """Read the journal behind the position; half a line at its end is what a crash has left, and cut off."""
        try:
            flags = os.O_RDONLY if self._again else os.O_RDWR | os.O_CREAT
            self._descriptor = os.open(self._path, flags | os.O_CLOEXEC, 0o666)
            content = self._path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < self._position:
                raise UsageError(
                    f"{shown(self._path)} holds {whole:,} bytes, but {self._position:,} when the checkpoint was taken;"
                    " bring it back, or begin anew with --reset"
                )
            if not self._again:
                durable.sync_directory(self._path.parent)  # it may just have been made
                durable.truncate(self._descriptor, whole)
                os.lseek(self._descriptor, whole, os.SEEK_SET)
        except OSError as error:
            raise UsageError(f"cannot use {shown(self._path)}: {error.strerror}") from None
        lines = content[self._position : whole].splitlines()
        try:
            self._noted = deque(msgspec.json.decode(line, type=Piece) for line in lines)
        except msgspec.MsgspecError as error:
            raise UsageError(f"{shown(self._path)} is damaged ({error}); begin anew with --reset") from None

    async def close(self) -> None:
        """Close all partitions and the journal."""
        for partition in self._partitions:
            await partition.close()
        self._close_journal()

    def _close_journal(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        self._noted.clear()

    async def fetch(self, seconds: float) -> list[Entry]:
        """The next piece: that of the journal, else what the next partition has, which is noted first.

        Raises:
            SourceError: messages that the journal names are gone, or the journal cannot be written.
            UsageError: the journal cannot be used.
        """
        if self._descriptor < 0:  # what an earlier run has left is removed before a new one begins to read
            await run_sync(self._open)
        if self._noted:
            piece = self._noted[0]
            entries = await self._piece(piece)
            self._noted.popleft()
            return self._passed(piece, entries)
        if self._again:
            return []
        for _ in self._partitions:
            number, self._turn = self._turn, (self._turn + 1) % len(self._partitions)
            entries = [*self._ahead[number]] or await self._partitions[number].fetch(seconds / len(self._partitions))
            self._ahead[number].clear()
            if entries:
                piece = Piece(number, entries[-1].id)
                await run_sync(self._note, piece)
                return self._passed(piece, entries)
        return []

    async def _piece(self, piece: Piece) -> list[Entry]:
        """The messages of a piece that is noted: all up to its last one. They were there, so they are waited for."""
        ahead, partition = self._ahead[piece.partition], self._partitions[piece.partition]
        while not any(entry.id == piece.last for entry in ahead):
            more = await partition.fetch(WAIT_SECONDS)
            if not more and await partition.lag() == 0:
                raise SourceError(
                    f"{self.url}: message {piece.last} of partition {piece.partition} has been judged before, and is"
                    " gone; bring it back, or begin anew with --reset"
                )
            ahead.extend(more)
        entries = []
        while True:
            entries.append(ahead.popleft())
            if entries[-1].id == piece.last:
                return entries

    def _passed(self, piece: Piece, entries: list[Entry]) -> list[Entry]:
        self._after[piece.partition] = piece.last
        self._position += len(_line(piece))
        where = Interleaving([*self._after], self._position)
        return [*entries[:-1], Entry(msgspec.to_builtins(where), entries[-1].content)]

    def _note(self, piece: Piece) -> None:
        try:
            durable.write(self._descriptor, memoryview(_line(piece)))
            durable.fsync(self._descriptor)
        except OSError as error:
            raise SourceError(f"cannot write {shown(self._path)}: {error.strerror}; fix that and run again") from None

    async def lag(self) -> int | None:
        """How many messages of all partitions have not been fetched yet."""
        lags = [await partition.lag() for partition in self._partitions]
        return None if None in lags else sum(lag or 0 for lag in lags) + sum(map(len, self._ahead))


def _line(piece: Piece) -> bytes:
    return msgspec.json.encode(piece) + b"\n"

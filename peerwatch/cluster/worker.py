"""What a worker does with the bytes that it is sent: one reply to each command, in order."""

import os
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec

from peerwatch import kernels
from peerwatch.cluster.pieces import ArrayPiece, ArraysInPieces, pieces_of
from peerwatch.cluster.replica import GraphReplica, Replica, ReplicaBatch, columns_of
from peerwatch.cluster.wire import (
    STORAGE,
    Begin,
    ColumnPieces,
    Command,
    Done,
    Failure,
    Figures,
    Follow,
    GiveColumns,
    GiveMore,
    Greet,
    Judged,
    Judgement,
    Load,
    LoadFile,
    NetworkParts,
    Reply,
    StorageSeen,
    Unreadable,
    UseStorage,
    WindowParts,
    WritingPart,
    WrittenPart,
    command_from,
    encoded,
    hello,
    mask_of,
    pack_networks,
    pack_part,
    pack_reasons,
    unpack,
)
from peerwatch.errors import PeerwatchError
from peerwatch.judging.judge import Judge
from peerwatch.judging.state import Arrays
from peerwatch.network.events import Kind
from peerwatch.runtime.judges_from_settings import champion_of
from peerwatch.storage.checkpoints import DAMAGE, StoredPart, part_name, read_checkpoint, write_part


class ReplicaWorker:
    """A replica behind a row of commands. Nothing outside its process changes, except for files that only it names."""

    def __init__(self) -> None:
        kernels.load()
        self._judge: Judge | None = None
        self._loaded = ArraysInPieces()
        self._through = 0
        self._storage: UseStorage | None = None
        """The driver's state directory, if this process reaches it as well."""
        self._columns: Arrays = {}
        """What is being written."""
        self._writer = ThreadPoolExecutor(1)
        self._part: Future[StoredPart] | None = None
        """The part that it is written to, if it is not sent in pieces."""
        self._pieces: Iterator[tuple[list[ArrayPiece], bool]] = iter(())
        self._replica: Replica | GraphReplica

    def call(self, content: bytes) -> bytes:
        """Carry out a command; what goes wrong is a reply, too."""
        try:
            return encoded(self._carried_out(command_from(content)))
        except PeerwatchError as error:
            return encoded(Failure(str(error), is_final=True))
        except Exception:  # noqa: BLE001 (the driver raises it)
            return encoded(Failure(traceback.format_exc(), is_final=False))

    def _carried_out(self, command: Command) -> Reply:
        match command:
            case Greet():
                return hello()
            case Begin():
                if command.detector is not None:
                    self._judge = champion_of(command.detector, defaultdict(lambda: "on a worker"))
                self._replica = _replica_of(command)
                return hello()
            case UseStorage():
                self._storage = command if _is_own(command) else None
                return StorageSeen(self._storage is not None)
            case LoadFile():
                return self._load_file(command)
            case Load():
                self._load(command)
                return Done(self._figures())
            case Follow():
                self._follow(command.batches)
                return Done(self._figures())
            case GiveColumns():
                self._follow(command.batches)
                self._begin_giving(self._replica.columns())
                return self._given()
            case GiveMore():
                return self._given()
            case Judgement():
                *before, last = command.batches
                self._follow(before)
                return self._answer(unpack(last), command.wanted)

    def _figures(self, began: float | None = None) -> Figures:
        """Of an answer that was begun at `began`, if there is one."""
        seconds = time.perf_counter() - began if began is not None else 0.0
        return Figures(self._replica.friendships, os.getpid(), time.process_time(), seconds)

    def _load_file(self, command: LoadFile) -> Done | Unreadable:
        if self._storage is None:
            return Unreadable("there is no storage")
        try:
            checkpoint = read_checkpoint(_directory(self._storage) / command.name)
        except (*DAMAGE, PeerwatchError) as error:
            return Unreadable(str(error))
        self._restore(columns_of(checkpoint.arrays, checkpoint.envelope.facts.shards), command.through)
        return Done(self._figures())

    def _load(self, command: Load) -> None:
        self._loaded.add(command.pieces)
        if command.is_last:
            self._restore(self._loaded.arrays(), command.through)
            self._loaded = ArraysInPieces()

    def _restore(self, columns: Arrays, through: int) -> None:
        self._replica.restore(columns, through)
        self._through = through

    def _follow(self, batches: list[msgspec.Raw]) -> None:
        for packed in batches:
            batch = unpack(packed)
            self._replica.follow(batch)
            self._through = batch.through

    def _begin_giving(self, columns: Arrays) -> None:
        """Begin to write the columns beside the next commands, or have them ready to be sent."""
        storage = self._storage
        if storage is None or sum(column.nbytes for column in columns.values()) < storage.least:
            self._pieces = pieces_of(columns)
            return
        self._columns = columns
        path = _directory(storage) / part_name(self._through, storage.writer)
        self._part = self._writer.submit(write_part, path, columns)

    def _given(self) -> ColumnPieces | WritingPart | WrittenPart:
        if self._part is not None:
            if not self._part.done():
                return WritingPart()
            part, columns = self._part, self._columns
            self._part, self._columns = None, {}
            try:
                return WrittenPart(part.result())
            except OSError:  # if it is not this node's alone, the driver cannot write it either, and says so
                self._pieces = pieces_of(columns)
        pieces, is_last = next(self._pieces)
        if is_last:
            self._pieces = iter(())  # which lets go of the columns
        return ColumnPieces(pieces, is_last)

    def _answer(self, batch: ReplicaBatch, wanted: bytes) -> Judged | WindowParts | NetworkParts:
        replica, began = self._replica, time.perf_counter()
        self._through = batch.through
        if isinstance(replica, GraphReplica):
            walked = [pack_networks(networks) for networks in replica.walk(batch)]
            return NetworkParts(walked, self._figures(began))
        if self._judge is None:
            parts = [pack_part(case.windows, case.own, networks) for _, networks, case in replica.answer(batch)]
            return WindowParts(parts, self._figures(began))
        mask = mask_of(wanted, int((batch.events.kind == Kind.PURCHASE).sum()))
        reasons = [one for part in replica.judge(batch, self._judge, mask) for one in pack_reasons(part)]
        return Judged(reasons, self._figures(began))


def _replica_of(begin: Begin) -> Replica | GraphReplica:
    D, T, directed, sizes = begin.D, begin.T, begin.directed, begin.sizes
    if begin.networks is not None:
        return GraphReplica(D, T, begin.networks, directed=directed, sizes=sizes)
    return Replica(D, T, directed=directed, sizes=sizes, context=begin.context)


def _directory(storage: UseStorage) -> Path:
    return Path(os.fsdecode(storage.directory))


def _is_own(storage: UseStorage) -> bool:
    """Whether the driver's state directory is there, and can be written to."""
    directory = _directory(storage)
    try:
        return (directory / STORAGE).read_bytes() == storage.token and os.access(directory, os.W_OK)
    except OSError:
        return False

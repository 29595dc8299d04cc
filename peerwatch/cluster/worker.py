"""What a worker does with the bytes that it is sent: one reply to each command, in order."""

import os
import time
import traceback
from collections import defaultdict

import msgspec

from peerwatch import kernels
from peerwatch.cluster.replica import GraphReplica, Replica, ReplicaBatch
from peerwatch.cluster.wire import (
    Begin,
    ColumnsReply,
    Command,
    Done,
    Failure,
    Figures,
    Follow,
    GiveColumns,
    Greet,
    Judged,
    Judgement,
    Load,
    NetworkParts,
    Reply,
    WindowParts,
    command_from,
    encoded,
    hello,
    mask_of,
    pack_arrays,
    pack_networks,
    pack_part,
    pack_reasons,
    unpack,
    unpack_arrays,
)
from peerwatch.errors import PeerwatchError
from peerwatch.judging.judge import Judge
from peerwatch.network.events import Kind
from peerwatch.runtime.judges_from_settings import champion_of


class ReplicaWorker:
    """A replica behind a row of commands. It writes nothing and keeps nothing outside its process."""

    def __init__(self) -> None:
        kernels.load()
        self._judge: Judge | None = None
        self._loaded = bytearray()
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
            case Load():
                self._load(command)
                return Done(self._figures())
            case Follow():
                self._follow(command.batches)
                return Done(self._figures())
            case GiveColumns():
                self._follow(command.batches)
                return ColumnsReply(pack_arrays(self._replica.columns()))
            case Judgement():
                *before, last = command.batches
                self._follow(before)
                return self._answer(unpack(last), command.wanted)

    def _figures(self) -> Figures:
        return Figures(self._replica.friendships, os.getpid(), time.process_time())

    def _load(self, command: Load) -> None:
        self._loaded += command.piece
        if command.is_last:
            self._replica.restore(unpack_arrays(self._loaded), command.through)
            self._loaded = bytearray()

    def _follow(self, batches: list[msgspec.Raw]) -> None:
        for batch in batches:
            self._replica.follow(unpack(batch))

    def _answer(self, batch: ReplicaBatch, wanted: bytes) -> Judged | WindowParts | NetworkParts:
        replica = self._replica
        if isinstance(replica, GraphReplica):
            walked = [pack_networks(networks) for networks in replica.walk(batch)]
            return NetworkParts(walked, self._figures())
        if self._judge is None:
            parts = [pack_part(case.windows, case.own, networks) for _, networks, case in replica.answer(batch)]
            return WindowParts(parts, self._figures())
        mask = mask_of(wanted, int((batch.events.kind == Kind.PURCHASE).sum()))
        reasons = [one for part in replica.judge(batch, self._judge, mask) for one in pack_reasons(part)]
        return Judged(reasons, self._figures())


def _replica_of(begin: Begin) -> Replica | GraphReplica:
    D, T, directed, sizes = begin.D, begin.T, begin.directed, begin.sizes
    if begin.networks is not None:
        return GraphReplica(D, T, begin.networks, directed=directed, sizes=sizes)
    return Replica(D, T, directed=directed, sizes=sizes, context=begin.context)

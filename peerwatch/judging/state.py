"""The state of a run at one sequence number, new or restored from a snapshot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from peerwatch.amounts import Amounts
from peerwatch.judging.quarantine import Quarantine
from peerwatch.judging.verdict_hash import VerdictHash
from peerwatch.network.decoder import Decoder
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseColumns, PurchaseHistory
from peerwatch.network.interner import Interner
from peerwatch.network.networks import PARTITION_ONLY
from peerwatch.network.walk import COSTS

Arrays = Mapping[str, NDArray[Any]]
AMOUNT: Final = "amount"
COLUMNS: Final = ("held", "seq", "timestamp", AMOUNT)
"""The names of a history's columns in a snapshot. Each is followed by the shard's number."""
LARGE: Final = "large"
"""The name of a shard's large amounts in a snapshot: in the order of their names, one a line, in ASCII."""

DISAGREED: Final = "disagreed"
"""The name, in a snapshot, of the counts of purchases flagged by the champion alone and by the challenger alone."""


class Counts(NamedTuple):
    """How many bytes of all logs, events, judged purchases, rejected lines and users the dispatcher has processed."""

    bytes: int = 0
    events: int = 0
    judged: int = 0
    rejected: int = 0
    users: int = 0


NOTHING_DONE: Final = Counts()


class StateFacts(msgspec.Struct, frozen=True):
    """The part of a snapshot that is not arrays.

    `shards` is the number of histories; `unseen` are the configured users that have not occurred in an event yet.
    """

    progress: Counts
    flagged: int
    verdicts: VerdictHash
    shards: int
    unseen: list[int]


@dataclass
class State:
    """The state of all actors at one sequence number."""

    D: int
    T: int
    decoder: Decoder
    graph: FriendGraph
    histories: list[PurchaseHistory]
    progress: Counts = NOTHING_DONE
    flagged: int = 0
    verdicts: VerdictHash = field(default_factory=VerdictHash)
    disagreed: Sequence[int] = (0, 0)
    quarantine: Quarantine | None = None
    """The flagged purchases that are in no window, if flagged purchases are kept out."""

    @classmethod
    def fresh(
        cls,
        D: int,
        T: int,
        shards: int,
        named: list[bytes] | None = None,
        *,
        directed: bool = False,
        quarantine: bool = False,
    ) -> "State":
        """Create the state before the first event; with `quarantine` flagged purchases are kept out of windows."""
        graph = FriendGraph(D, T, costs=PARTITION_ONLY if quarantine else COSTS, directed=directed)
        histories, kept_out = [PurchaseHistory(T) for _ in range(shards)], Quarantine() if quarantine else None
        return cls(D, T, Decoder(named or []), graph, histories, quarantine=kept_out)

    def advance(self, events: int, judged: int) -> None:
        """Count so many more events, and purchases among them that were judged."""
        done = self.progress
        self.progress = done._replace(
            events=done.events + events, judged=done.judged + judged, users=self.decoder.users
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that a snapshot of this state holds."""
        arena, ends = self.decoder.interner.columns()
        degree, friends = self.graph.columns()
        arrays: dict[str, NDArray[Any]] = {"arena": arena, "ends": ends, "degree": degree, "friends": friends}
        arrays[DISAGREED] = np.array(self.disagreed)
        for number, history in enumerate(self.histories):
            arrays |= arrays_of(history.columns(), number)
        if self.quarantine is not None:
            arrays |= self.quarantine.arrays()
        return arrays

    @classmethod
    def restored(
        cls,
        D: int,
        T: int,
        shards: int,
        named: list[bytes],
        arrays: Arrays,
        facts: StateFacts,
        *,
        directed: bool = False,
    ) -> "State":
        """Restore the state from a snapshot, with any number of shards."""
        decoder = _decoder_from(named, arrays, facts)
        quarantine, parts = Quarantine.restored(arrays), dealt(arrays, facts.shards, shards)
        costs = PARTITION_ONLY if quarantine is not None else COSTS
        graph, histories = network_from(D, T, arrays, parts, facts.progress.events, directed=directed, costs=costs)
        verdicts, disagreed = facts.verdicts.copy(), arrays[DISAGREED].tolist()
        return cls(D, T, decoder, graph, histories, facts.progress, facts.flagged, verdicts, disagreed, quarantine)

    @classmethod
    def without_network(
        cls,
        D: int,
        T: int,
        shards: int,
        named: list[bytes],
        arrays: Arrays,
        facts: StateFacts,
        *,
        directed: bool = False,
    ) -> "State":
        """Restore all but what somebody else holds, which is empty here: the friend graph, and the purchases.

        With quarantine the purchases are restored, with any number of shards.
        """
        quarantine, graph, histories = Quarantine.restored(arrays), FriendGraph(D, T, directed=directed), []
        if quarantine is None:
            histories.append(PurchaseHistory(T))
        else:
            through = facts.progress.events
            histories += [
                PurchaseHistory.from_columns(T, part, through) for part in dealt(arrays, facts.shards, shards)
            ]
        verdicts, disagreed = facts.verdicts.copy(), arrays[DISAGREED].tolist()
        decoder = _decoder_from(named, arrays, facts)
        return cls(D, T, decoder, graph, histories, facts.progress, facts.flagged, verdicts, disagreed, quarantine)


def _decoder_from(named: list[bytes], arrays: Arrays, facts: StateFacts) -> Decoder:
    amounts = [arrays[f"{AMOUNT}{number}"] for number in range(facts.shards)]
    quarantine = Quarantine.restored(arrays)
    if quarantine is not None:
        amounts.append(quarantine.held.amount.held)
    large = max(-int(amount.min(initial=0)) for amount in amounts)
    return Decoder(named, Interner.from_columns(arrays["arena"], arrays["ends"]), large, facts.unseen)


def network_from(
    D: int,
    T: int,
    arrays: Arrays,
    parts: Sequence[PurchaseColumns],
    through: int,
    *,
    directed: bool = False,
    costs: Sequence[int] = COSTS,
) -> tuple[FriendGraph, list[PurchaseHistory]]:
    """Restore the friend graph and the histories as of event `through` from a snapshot and its shards' purchases."""
    graph = FriendGraph.from_columns(D, T, arrays["degree"], arrays["friends"], costs=costs, directed=directed)
    histories = [PurchaseHistory.from_columns(T, part, through) for part in parts]
    user = np.concatenate([np.repeat(np.arange(len(part.held), dtype=np.int32), part.held) for part in parts])
    seq, timestamp = (np.concatenate([getattr(part, name) for part in parts]) for name in ("seq", "timestamp"))
    graph.timeline.remember(seq, user, timestamp, Amounts.joined([part.amount for part in parts]))
    return graph, histories


def dealt(arrays: Arrays, stored: int, shards: int) -> list[PurchaseColumns]:
    """The purchases of a snapshot with `stored` shards, for so many `shards`."""
    parts = [columns_from(arrays, number) for number in range(stored)]
    return parts if stored == shards else _dealt(parts, len(arrays["ends"]), shards)


def _dealt(parts: list[PurchaseColumns], users: int, shards: int) -> list[PurchaseColumns]:
    """Redistribute the purchases of some shards to `shards` shards. Each user's stay together and in order."""
    owner = [np.repeat(np.arange(len(part.held)), part.held) for part in parts]
    user = np.concatenate(owner)
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("seq", "timestamp")]
    amounts = Amounts.joined([part.amount for part in parts])
    order = np.argsort(user, kind="stable")
    dealt = []
    for number in range(shards):
        mine = order[user[order] % shards == number]
        seq, timestamp = (column[mine] for column in columns)
        dealt.append(PurchaseColumns(np.bincount(user[mine], minlength=users), seq, timestamp, amounts[mine]))
    return dealt


def arrays_of(columns: PurchaseColumns, number: int) -> dict[str, NDArray[Any]]:
    """The arrays of a shard's history in a snapshot."""
    arrays = (columns.held, columns.seq, columns.timestamp, columns.amount.held)
    named = {f"{name}{number}": array for name, array in zip(COLUMNS, arrays, strict=True)}
    return {**named, f"{LARGE}{number}": columns.amount.spelled()}


def columns_from(arrays: Arrays, number: int) -> PurchaseColumns:
    """The inverse of `arrays_of`: the history's columns."""
    held, seq, timestamp, amount = (arrays[f"{name}{number}"] for name in COLUMNS)
    return PurchaseColumns(held, seq, timestamp, Amounts.from_spelled(amount, arrays[f"{LARGE}{number}"]))

"""The state of a run: what the actors own, fresh or from a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from peerwatch.actors.coordinator import DISAGREED
from peerwatch.actors.dispatcher import NOTHING_DONE, Mark, Progress
from peerwatch.actors.purchases import arrays_of, columns_from
from peerwatch.actors.snapshot import Arrays
from peerwatch.detectors.verdicts import VerdictHash
from peerwatch.network.amounts import Amounts
from peerwatch.network.decoder import Decoder
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseColumns, PurchaseHistory
from peerwatch.network.interner import Interner
from peerwatch.runtime.output_file import Written
from peerwatch.runtime.position import Position
from peerwatch.runtime.seen import Seen


class Facts(msgspec.Struct, frozen=True):
    """What a checkpoint holds besides arrays: counts, and `position` in the log that is `judged` or in the batch log.

    `seen` are the files beside the stream log that are not to be read (again). `marks` stand along all the logs.
    """

    progress: Progress
    judged: bool
    position: Position
    flagged: int
    flagged_written: Written
    rejects_written: Written
    verdicts: VerdictHash
    verdicts_written: Written | None
    shards: int
    unseen: list[int]
    marks: list[Mark[Position]]
    seen: Seen


@dataclass
class State:
    """All actors' state at one sequence number. `facts` is None at the beginning of everything."""

    D: int
    T: int
    decoder: Decoder
    graph: FriendGraph
    histories: list[PurchaseHistory]
    progress: Progress = NOTHING_DONE
    flagged: int = 0
    verdicts: VerdictHash = field(default_factory=VerdictHash)
    facts: Facts | None = None
    disagreed: Sequence[int] = (0, 0)

    @classmethod
    def fresh(cls, D: int, T: int, shards: int, named: list[bytes] | None = None) -> "State":
        """Nobody, nothing bought."""
        return cls(D, T, Decoder(named or []), FriendGraph(D, T), [PurchaseHistory(T) for _ in range(shards)])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a snapshot of this state holds."""
        arena, ends = self.decoder.interner.columns()
        degree, friends = self.graph.columns()
        arrays: dict[str, NDArray[Any]] = {"arena": arena, "ends": ends, "degree": degree, "friends": friends}
        arrays[DISAGREED] = np.array(self.disagreed)
        for number, history in enumerate(self.histories):
            arrays |= arrays_of(history.columns(), number)
        return arrays

    @classmethod
    def restored(cls, D: int, T: int, shards: int, named: list[bytes], arrays: Arrays, facts: Facts) -> "State":
        """As a snapshot found it; the number of shards may have changed since."""
        parts = [columns_from(arrays, number) for number in range(facts.shards)]
        large = max(-int(part.amount.held.min(initial=0)) for part in parts)
        decoder = Decoder(named, Interner.from_columns(arrays["arena"], arrays["ends"]), large, facts.unseen)
        graph = FriendGraph.from_columns(D, T, arrays["degree"], arrays["friends"])
        parts = parts if len(parts) == shards else _dealt(parts, len(decoder.interner), shards)
        histories = [PurchaseHistory.from_columns(T, part, facts.progress.events) for part in parts]
        user = np.concatenate([np.repeat(np.arange(len(part.held), dtype=np.int32), part.held) for part in parts])
        seq, timestamp = (np.concatenate([getattr(part, name) for part in parts]) for name in ("seq", "timestamp"))
        graph.timeline.remember(seq, user, timestamp, Amounts.joined([part.amount for part in parts]))
        verdicts = facts.verdicts.copy()
        state = cls(D, T, decoder, graph, histories, facts.progress, facts.flagged, verdicts, facts)
        state.disagreed = arrays[DISAGREED].tolist()
        return state


def _dealt(parts: list[PurchaseColumns], users: int, shards: int) -> list[PurchaseColumns]:
    """The purchases of some shards, dealt out anew to `shards` shards; each user's stay together and in order."""
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

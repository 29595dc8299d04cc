"""What purchases, friendships and users do: answered in one go, beside leaving each of them out and looking again.

`python benchmarks/left_out.py DIRECTORY [--cases 200] [--seed 1]` takes random flagged purchases, friendships and users
of a pair of logs, compares the answers with the plain way in every field, and prints the seconds of the processor that
both take.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import anyio
import msgspec
import numpy as np

from peerwatch import kernels
from peerwatch.amounts import Amounts
from peerwatch.judging.audit import BruteForce
from peerwatch.judging.engine import apply, cases
from peerwatch.judging.state import State
from peerwatch.kernels import Int64s
from peerwatch.network.decoder import Decoder, Events
from peerwatch.network.events import Kind
from peerwatch.network.interner import ids_of
from peerwatch.network.order_in_time import sort_in_time
from peerwatch.network.statistics import Statistics, decimal
from peerwatch.runtime.decision_log import moment
from peerwatch.settings.model import Layer
from peerwatch.studies import radius as work
from peerwatch.studies.poison_table import ChangedVerdict, EnteredWindow, PoisonLedger, PoisonRecord, ReachedUser
from peerwatch.studies.poisoning import poisoning
from peerwatch.studies.radius_table import ConcernedUser, RadiusRecord

K = Fraction(3)
LOGS = ("batch_log.json", "stream_log.json")


class Logs(NamedTuple):
    """The decoded logs, and the ids of their users."""

    D: int
    T: int
    decoder: Decoder
    batch: Events
    stream: Events
    names: list[str]

    @property
    def first(self) -> int:
        """The number of the first event of the stream log."""
        return len(self.batch) + 1


class Rerun(NamedTuple):
    """All windows in order of time, with what they flag, by the events that were judged."""

    seq: Int64s
    offsets: Int64s
    window: Int64s
    amount: Amounts

    def at(self, place: int) -> Statistics:
        """The statistics of one window."""
        return Statistics.of(self.amount[self.offsets[place] : self.offsets[place + 1]].tolist())


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Append how many seconds of the processor the block took."""
    begun = process_time()
    yield
    seconds.append(process_time() - begun)


def read(directory: Path) -> Logs:
    """Decode both logs."""
    decoder, events = Decoder(), []
    header: dict[str, Any] = {}
    for name in LOGS:
        content = (directory / name).read_bytes()
        first, _, rest = content.partition(b"\n")
        if name == LOGS[0]:
            header = msgspec.json.decode(first)
            events.append(decoder.decode(rest, 2).events)
        else:
            events.append(decoder.decode(content, 1).events)
    names = [each.decode() for each in ids_of(*decoder.interner.columns(), 0)]
    return Logs(int(header["D"]), int(header["T"]), decoder, events[0], events[1], names)


def rerun(logs: Logs, without: int | None = None) -> Rerun:
    """Judge everything, without one purchase if an event is named: it becomes an unfriending of strangers."""
    state = State.fresh(logs.D, logs.T, 1)
    state.decoder.interner = logs.decoder.interner
    stream = logs.stream
    if without is not None:
        kind, friend, place = stream.kind.copy(), stream.friend.copy(), without - logs.first
        kind[place], friend[place] = Kind.UNFRIEND, stream.user[place]
        stream = msgspec.structs.replace(stream, kind=kind, friend=friend)
    apply(state, logs.batch, 1)
    seqs, sizes, windows, amounts = [], [], [], []
    for _, case in cases(state, stream, logs.first):
        found = case.windows
        sort_in_time(found.offsets, found.seq, found.timestamp, found.amount.held)
        seqs.append(case.seq)
        sizes.append(np.diff(found.offsets))
        windows.append(found.seq)
        amounts.append(found.amount)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(sizes))])
    return Rerun(np.concatenate(seqs), offsets, np.concatenate(windows), Amounts.joined(amounts))


def limit_of(statistics: Statistics) -> int | None:
    """The highest amount that is not flagged, found by halving."""
    if statistics.n < 2:
        return None
    low, high = -1, 1
    while not statistics.exceeded_by(high, K):
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if statistics.exceeded_by(middle, K) else (middle, high)
    return low


def amount_of(limit: int | None) -> str | None:
    """As a record has it."""
    return decimal(limit) if limit is not None else None


def moved(pairs: Sequence[tuple[int | None, int | None]]) -> str | None:
    """The largest difference, as a record has it."""
    moves = [one - other for one, other in pairs if one is not None and other is not None]
    most = max(moves, key=abs, default=None)
    return None if most is None else f"{'-' if most < 0 else '+'}{decimal(abs(most))}"


def expected(logs: Logs, file: str, base: Rerun, seq: int) -> PoisonRecord:
    """What a purchase did, from a run with it and a run without it."""
    again, stream, first = rerun(logs, seq), logs.stream, logs.first
    own = int(np.searchsorted(base.seq, seq))
    owner = np.repeat(np.arange(len(base.seq)), np.diff(base.offsets))
    held = np.unique(owner[base.window == seq])
    places = held - (held > own)  # the purchase itself is not judged again
    other = np.isin(owner, [*held.tolist(), own], invert=True)
    owner_again = np.repeat(np.arange(len(again.seq)), np.diff(again.offsets))
    same = np.isin(owner_again, places, invert=True)
    if not np.array_equal(base.window[other], again.window[same]):
        raise SystemExit(f"without purchase {seq} a window has changed that did not hold it")
    changed: dict[bool, list[ChangedVerdict]] = {False: [], True: []}
    entries: list[tuple[int, EnteredWindow, tuple[int | None, int | None]]] = []
    for now, then in zip(held.tolist(), places.tolist(), strict=True):
        row = int(base.seq[now]) - first
        amount, statistics = stream.amount.exact(row), (base.at(now), again.at(then))
        limits = (limit_of(statistics[0]), limit_of(statistics[1]))
        time = moment(int(stream.timestamp[row])) or ""
        window = EnteredWindow(int(base.seq[now]), time, amount_of(limits[0]), amount_of(limits[1]))
        entries.append((int(stream.user[row]), window, limits))
        verdicts = [one.exceeded_by(amount, K) for one in statistics]
        if verdicts[0] != verdicts[1]:
            changed[verdicts[0]].append(ChangedVerdict(
                window.seq, file, int(stream.line[row]), logs.names[stream.user[row]], time, decimal(amount),
                window.limit, window.limit_without,
            ))  # fmt: skip
    users = []
    for user in dict.fromkeys(entry[0] for entry in entries):
        found = [entry for entry in entries if entry[0] == user]
        windows = [entry[1] for entry in found]
        moves = moved([entry[2] for entry in found])
        users.append(ReachedUser(logs.names[user], windows[0].seq, windows[-1].seq, moves, windows))
    row, times = seq - first, stream.timestamp[base.seq[held] - first]
    flagged = base.at(own).exceeded_by(stream.amount.exact(row), K)
    return PoisonRecord(
        seq, file, int(stream.line[row]), logs.names[stream.user[row]], moment(int(stream.timestamp[row])) or "",
        decimal(stream.amount.exact(row)), flagged, len(entries), entries[0][1].seq if entries else None,
        entries[-1][1].seq if entries else None, float(np.ptp(times)) / 1e6 if len(times) else 0.0,
        moved([entry[2] for entry in entries]), users, changed[False], changed[True],
    )  # fmt: skip


def poison(logs: Logs, layers: list[Layer], count: int, rng: random.Random) -> None:
    """Compare what random flagged purchases did."""
    once: list[float] = []
    apart: list[float] = []
    with timed(once):
        ledger: PoisonLedger = anyio.run(poisoning, layers)
    base, chosen = rerun(logs), rng.sample(ledger.purchases, min(count, len(ledger.purchases)))
    for record in chosen:
        with timed(apart):
            wanted = expected(logs, record.file, base, record.seq)
        if record != wanted:
            raise SystemExit(f"purchase {record.seq}:\n{record}\nshould be\n{wanted}")
    hidden = sum(len(record.hidden) for record in ledger.purchases)
    print(
        f"poison: {len(ledger.purchases):,} flagged purchases of {ledger.judged:,}, {hidden:,} hidden, in"
        f" {once[0]:.2f} s; {len(chosen)} of them left out one by one in {sum(apart):.1f} s, every field the same"
    )


def places_of(bits: int) -> Iterator[int]:
    """The places of the bits of an integer that are set."""
    while bits:
        yield (bits & -bits).bit_length() - 1
        bits &= bits - 1


class Plain:
    """A state by the plainest means: friends as bits of integers, purchases in order, and everybody's networks."""

    def __init__(self, logs: Logs) -> None:
        brute = BruteForce(logs.D, logs.T, K)
        self.D, self.T, self.names = logs.D, logs.T, [name.encode() for name in logs.names]
        for events, seq in ((logs.batch, 1), (logs.stream, logs.first)):
            brute.follow(events, seq, "", self.names, np.zeros(len(events), np.bool_))
        place = {name: place for place, name in enumerate(self.names)}
        self.friends = [{place[each] for each in brute.friends.get(name, ())} for name in self.names]
        self.bought = [brute.bought.get(name, []) for name in self.names]
        everything = ((*one, user) for user, own in enumerate(self.bought) for one in own)
        self.latest_first = sorted(everything, reverse=True)
        self.networks = self.all_networks()

    def all_networks(self) -> list[int]:
        """For each user the members of the network, each a bit."""
        reached = [1 << user for user in range(len(self.names))]
        for _ in range(self.D):
            before = [*reached]
            for user, friends in enumerate(self.friends):
                for friend in friends:
                    reached[user] |= before[friend]
        return [members & ~(1 << user) for user, members in enumerate(reached)]

    def window(self, members: int) -> list[tuple[int, int, int, int]]:
        """The latest purchases of a network: timestamp, event, amount, buyer."""
        return list(islice((one for one in self.latest_first if members >> one[3] & 1), self.T))

    def concerned(self, edges: list[tuple[int, int]], left_out: int | None) -> list[ConcernedUser]:
        """Everybody whose network is smaller without some friendships."""
        for a, b in edges:
            self.friends[a].remove(b)
            self.friends[b].remove(a)
        without = self.all_networks()
        for a, b in edges:
            self.friends[a].add(b)
            self.friends[b].add(a)
        found = [
            self._concerned(user, members, without[user])
            for user, members in enumerate(self.networks)
            if user != left_out and members != without[user]
        ]
        return sorted(found, key=lambda one: (
            one.verdict == one.verdict_without, not one.purchases_lost, work.order_of(one.user),
        ))  # fmt: skip

    def _concerned(self, user: int, now: int, without: int) -> ConcernedUser:
        windows = [self.window(now), self.window(without)]
        said = [Statistics.of([one[2] for one in window]) for window in windows]
        limits = [amount_of(limit_of(each)) for each in said]
        seqs = [{one[1] for one in window} for window in windows]
        latest, verdicts = None, list[str | None]([None, None])
        if self.bought[user]:
            latest = self.bought[user][-1]
            verdicts = ["flagged" if each.exceeded_by(latest[2], K) else "normal" for each in said]
        lost = [self.names[place] for place in places_of(now & ~without)]
        return ConcernedUser(
            self.names[user].decode(), now.bit_count(), sorted((one.decode() for one in lost), key=work.order_of),
            sorted(seqs[0] - seqs[1]), sorted(seqs[1] - seqs[0]), limits[0], limits[1],
            latest[1] if latest else None, decimal(latest[2]) if latest else None, verdicts[0], verdicts[1],
        )  # fmt: skip


def radius(logs: Logs, layers: list[Layer], count: int, rng: random.Random) -> None:
    """Compare what random friendships and users take part in at the end of the logs."""
    plain, begun = Plain(logs), list[float]()
    with timed(begun):
        opened, then = anyio.run(partial(work.moment_of, layers, None))
        state = work.RadiusState(opened, then)
    edges = [(a, b) for a, friends in enumerate(plain.friends) for b in sorted(friends) if a < b]
    own: list[float] = []
    theirs: list[float] = []
    shares: dict[tuple[int, int], tuple[int, int]] = {}
    for a, b in rng.sample(edges, min(count, len(edges))):
        with timed(own):
            record = state.of_friendship(a, b)
        with timed(theirs):
            wanted = plain.concerned([(a, b)], None)
        shares[a, b] = record.windows, record.verdicts
        compare(record, wanted, f"friendship {a} {b}")
    print(f"radius: {len(own)} friendships in {sum(own):.2f} s, by brute force in {sum(theirs):.1f} s: the same")
    own, theirs = [], []
    with_friends = [user for user, friends in enumerate(plain.friends) if friends]
    for user in rng.sample(with_friends, min(count, len(with_friends))):
        with timed(own):
            record = state.of_user(user)
        with timed(theirs):
            wanted = plain.concerned([(user, friend) for friend in sorted(plain.friends[user])], user)
        compare(record, wanted, f"user {user}")
    print(f"radius: {len(own)} users in {sum(own):.2f} s, by brute force in {sum(theirs):.1f} s: the same")
    ranked: list[float] = []
    with timed(ranked):
        windows, verdicts = state.changes()
    wrong = [edge for edge, counts in shares.items() if (windows[edge], verdicts[edge]) != counts]
    if wrong:
        raise SystemExit(f"bridges: {wrong}")
    print(
        f"bridges: all {len(edges):,} friendships in {ranked[0]:.2f} s, the same as each of the {len(shares)};"
        f" reading the logs up to the moment took {begun[0]:.2f} s"
    )


def compare(record: RadiusRecord, wanted: list[ConcernedUser], what: str) -> None:
    """Compare an answer with the plain one.

    Raises:
        SystemExit: they differ.
    """
    counts = (
        len(wanted), sum(1 for one in wanted if one.purchases_lost),
        sum(1 for one in wanted if one.verdict != one.verdict_without),
    )  # fmt: skip
    if record.users != wanted or (record.networks, record.windows, record.verdicts) != counts:
        raise SystemExit(f"{what}:\n{record}\nshould have\n{wanted}")


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    kernels.load()
    logs, rng = read(arguments.directory), random.Random(arguments.seed)  # noqa: S311
    batch, stream = (str(arguments.directory / name) for name in LOGS)
    layers = [Layer({"input.batch": batch, "input.stream": stream}, {})]
    poison(logs, layers, arguments.cases, rng)
    radius(logs, layers, arguments.cases, rng)


if __name__ == "__main__":
    main()

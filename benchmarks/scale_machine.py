"""What one machine does: memory of each part of a state, and the time that each step of an event takes."""

import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.amounts import Amounts
from peerwatch.judging.engine import BATCH_CAP, apply, cases
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.judging.state import State
from peerwatch.kernels import Int64s
from peerwatch.network.decoder import Decoder, Events
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.interner import Interner
from peerwatch.studies.generate import TAIL, Recipe, as_logs, draw

T: Final = 50
SEED: Final = 1
RUNS: Final = 5
CHANGES: Final = 0.1
"""The share of events that make or end friendships."""
GROWTH: Final = (1.0, 1.2, 1.45, 1.75)
"""Sizes at which memory is measured: arrays that grow by doubling are now almost full, now half empty."""
Floats = NDArray[np.float64]


class Size(NamedTuple):
    """How large a state is."""

    users: int
    degree: float
    purchases: int
    """A user's."""


def events_of(kind: Kind | NDArray[np.int8], user: Int64s, friend: Int64s, seconds: Int64s, cents: Int64s) -> Events:
    """Columns of events, as the decoder makes them."""
    count = len(user)
    kinds = np.full(count, kind, np.int8) if isinstance(kind, Kind) else kind
    nothing = np.zeros(count, np.int64)
    return Events(
        kinds, user.astype(np.int32), friend.astype(np.int32), Amounts(10_000 * cents), 1_000_000 * seconds, nothing,
        nothing, nothing,
    )  # fmt: skip


def friendships(rng: np.random.Generator, users: int, count: int) -> tuple[Int64s, Int64s]:
    """Pairs of users, drawn as `peerwatch generate` draws them: the second of a pair by a heavy-tailed weight."""
    weight = rng.pareto(TAIL, users) + 0.1
    a = rng.integers(0, users, count)
    b = rng.choice(users, count, p=weight / weight.sum())
    return a, np.where(a == b, (b + 1) % users, b)


def graph_of(size: Size, D: int, rng: np.random.Generator) -> FriendGraph:
    """A friend graph of this size, built by its own kernel."""
    graph = FriendGraph(D, T)
    graph.reserve(size.users)
    a, b = friendships(rng, size.users, round(size.users * size.degree / 2))
    nothing = np.zeros(len(a), np.int64)
    befriended = events_of(Kind.BEFRIEND, a, b, nothing, nothing)
    graph.walk(befriended.kind, befriended.user, befriended.friend, nothing, befriended.amount, 1, 0, 0)
    return graph


def history_of(size: Size, rng: np.random.Generator) -> PurchaseHistory:
    """Purchase histories of this size, filled batch by batch as in a run."""
    history = PurchaseHistory(T)
    history.reserve(size.users)
    count = size.users * size.purchases
    for begin in range(0, count, 1 << 16):
        seq = np.arange(begin + 1, min(begin + (1 << 16), count) + 1)
        user = rng.integers(0, size.users, len(seq))
        bought = events_of(Kind.PURCHASE, user, user, seq, rng.integers(100, 10_000, len(seq)))
        history.append(seq, bought.user, bought.timestamp, bought.amount, int(seq[-1]))
        history.raise_low(int(seq[-1]) + 1)
        history.settle()
    return history


def interner_of(users: int) -> Interner:
    """The ids 1 to `users`, interned one after the other."""
    interner = Interner()
    for user in range(users):
        interner.intern(str(user + 1).encode())
    return interner


def bytes_of(owner: object, *, but: str = "") -> int:
    """The memory of an object's arrays, and of those of its timeline, in bytes; `but` is the name of one left out."""
    arrays = [each for name, each in vars(owner).items() if isinstance(each, np.ndarray) and name != but]
    timeline = getattr(owner, "timeline", None)
    return sum(each.nbytes for each in arrays) + (bytes_of(timeline) if timeline is not None else 0)


def memory(users: int) -> dict[str, list[float]]:
    """Bytes a user, friendship and purchase of each part, in states of many sizes.

    Friendships and purchases are in pools; all other arrays grow with the users.
    """
    found: dict[str, list[float]] = {}
    for factor in GROWTH:
        count = round(users * factor)
        found.setdefault("id_user", []).append(bytes_of(interner_of(count)) / count)
        for degree in (10, 20, 50):
            graph = graph_of(Size(count, degree, 0), 2, np.random.default_rng(SEED))
            found.setdefault("friendship", []).append(graph.pool.nbytes / graph.friendships)
            found.setdefault("graph_user", []).append(bytes_of(graph, but="pool") / count)
        for purchases in (10, 30):
            history = history_of(Size(count, 0, purchases), np.random.default_rng(SEED))
            found.setdefault("purchase", []).append(history.pool.nbytes / (count * purchases))
            found.setdefault("history_user", []).append(bytes_of(history, but="pool") / count)
    return found


def state_of(size: Size, D: int) -> State:
    """A whole state of this size."""
    rng = np.random.default_rng(SEED)
    graph, history = graph_of(size, D, rng), history_of(size, rng)
    last = history.applied
    held = history.columns()
    user = np.repeat(np.arange(size.users, dtype=np.int32), held.held)
    graph.timeline.remember(held.seq, user, held.timestamp, held.amount)
    state = State(D, T, Decoder(interner=interner_of(size.users)), graph, [history])
    state.advance(last, 0)
    return state


def more_events(state: State, count: int, rng: np.random.Generator) -> Events:
    """Events that go on from a state: purchases, and among them the usual share of changed friendships."""
    users = len(state.decoder.interner)
    a, b = friendships(rng, users, count)
    kind = np.where(rng.random(count) < CHANGES, Kind.BEFRIEND, Kind.PURCHASE).astype(np.int8)
    return events_of(kind, a, b, state.progress.events + np.arange(count), rng.integers(100, 10_000, count))


def taken(work: Callable[..., object], *arguments: object) -> float:
    """The CPU seconds of some work on this thread."""
    begun = time.thread_time()
    work(*arguments)
    return time.thread_time() - begun


def following(size: Size, D: int, count: int) -> dict[str, float]:
    """CPU microseconds an event of following it, and of following and answering the purchases among them."""
    state, rng = state_of(size, D), np.random.default_rng(SEED + 1)
    judge = SigmaJudge(Sigma(Fraction(3)))
    costs: dict[str, list[float]] = {"follow": [], "answer": []}

    def follow(events: Events) -> None:
        for begin in range(0, count, BATCH_CAP):
            apply(state, events[begin : begin + BATCH_CAP], state.progress.events + begin + 1)
        state.advance(count, 0)

    def answer(events: Events) -> None:
        for _, case in cases(state, events, state.progress.events + 1):
            judge.verdicts(case)
        state.advance(count, 0)

    for number in range(RUNS + 1):
        for name, work in (("follow", follow), ("answer", answer)):
            events = more_events(state, count, rng)
            seconds = taken(work, events)
            if number:  # the first round fills the processor's caches
                costs[name].append(1e6 * seconds / count)
    return {name: statistics.median(each) for name, each in costs.items()}


def log_text(users: int, count: int) -> bytes:
    """A log of as many lines, as `peerwatch generate` writes them."""
    recipe = Recipe(users=users, batch_events=0, stream_events=count, mean_degree=0, friend_share=CHANGES, seed=SEED)
    events, _, _ = draw(recipe)
    return "".join(as_logs(recipe, events, [])[1]).encode()


def decoding(text: bytes) -> float:
    """CPU microseconds a line of decoding a log by one decoder, a mebibyte at a time."""
    costs = [taken(decode_all, Decoder(), text) for _ in range(RUNS)]
    return 1e6 * statistics.median(costs) / text.count(b"\n")


def decode_all(decoder: Decoder, text: bytes) -> list[Events]:
    """The events of a log, block by block."""
    return [decoder.decode(block, 1).events for block in blocks_of(text)]


def blocks_of(text: bytes) -> list[bytes]:
    """A log in blocks of whole lines, about a mebibyte each."""
    blocks, begin = [], 0
    while begin < len(text):
        end = text.find(b"\n", min(begin + (1 << 20), len(text)) - 1) + 1 or len(text)
        blocks.append(text[begin:end])
        begin = end
    return blocks


def transport(batches: int) -> dict[str, float]:
    """Sending the columns of batches to another process over a loopback connection, and getting verdicts back.

    Bytes an event out and back, and CPU microseconds an event of both processes together.
    """
    rng = np.random.default_rng(SEED)
    user = rng.integers(0, 1_000_000, BATCH_CAP)
    events = events_of(Kind.PURCHASE, user, user, user, user)
    columns: list[NDArray[Any]] = [events.kind, events.user, events.friend, events.timestamp, events.amount.held]
    out = sum(column.nbytes for column in columns)
    back = BATCH_CAP // 8 + 40 * BATCH_CAP // 100
    with socket.create_server(("127.0.0.1", 0)) as server:
        context = multiprocessing.get_context("fork")
        spent = context.Value("d", 0.0)
        other = context.Process(target=_answering, args=(server.getsockname(), batches, out, back, spent))
        other.start()
        connection, _ = server.accept()
        with connection:
            reply = bytearray(back)

            def ask() -> None:
                for _ in range(batches):
                    connection.sendall(b"".join(column.tobytes() for column in columns))
                    _receive(connection, reply)

            seconds = taken(ask)
        other.join()
    return {
        "out": out / BATCH_CAP,
        "back": back / BATCH_CAP,
        "cpu": 1e6 * (seconds + spent.value) / (batches * BATCH_CAP),
    }


def _answering(address: tuple[str, int], batches: int, size: int, back: int, spent: Any) -> None:
    request, reply = bytearray(size), bytes(back)
    with socket.create_connection(address) as connection:
        begun = time.thread_time()
        for _ in range(batches):
            _receive(connection, request)
            connection.sendall(reply)
        spent.value = time.thread_time() - begun


def _receive(connection: socket.socket, into: bytearray) -> None:
    view = memoryview(into)
    while view:
        view = view[connection.recv_into(view) :]

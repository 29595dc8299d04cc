"""A replica gives the answers of the synchronous core, and what travels arrives as it was sent."""

import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from strategies import logs

from peerwatch.cluster import pieces as pieces_module
from peerwatch.cluster.pieces import ArraysInPieces, pieces_of
from peerwatch.cluster.replica import GraphReplica, Replica, ReplicaBatch
from peerwatch.cluster.wire import (
    MODULES,
    Begin,
    Greet,
    Judgement,
    WindowParts,
    command_from,
    encoded,
    hello,
    mask_of,
    pack,
    pack_networks,
    pack_part,
    pack_places,
    pack_reasons,
    reply_from,
    unpack,
    unpack_networks,
    unpack_part,
    unpack_reasons,
)
from peerwatch.cluster.worker import ReplicaWorker
from peerwatch.judging.engine import JudgingEngine, walked
from peerwatch.judging.judge import Reasons
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.judging.state import Arrays, State
from peerwatch.kernels import Kernel
from peerwatch.network import bridges, egonets
from peerwatch.network.decoder import Decoder
from peerwatch.network.graph import FriendGraph
from peerwatch.network.networks import PARTITION_ONLY, Networks, alone

D, T = 2, 4
JUDGE = SigmaJudge(Sigma(Fraction(1)))


def batches(content: bytes, size: int) -> list[ReplicaBatch]:
    """The events of a log in batches, as they arrive at a worker."""
    decoder = Decoder()
    events = decoder.decode(content, 1).events
    found = [
        ReplicaBatch(1 + begin, len(decoder.interner), events[begin : begin + size])
        for begin in range(0, len(events), size)
    ]
    return [unpack(msgspec.Raw(pack(batch))) for batch in found]


def sent(columns: Arrays) -> Arrays:
    """Columns as they arrive."""
    arriving = ArraysInPieces()
    for pieces, _ in pieces_of(columns):
        arriving.add(pieces)
    return arriving.arrays()


def judged(replica: Replica, batch: ReplicaBatch) -> list[Reasons]:
    """The reasons of all purchases of a batch, as they arrive at the driver."""
    wanted = np.ones(int((batch.events.kind == 1).sum()), np.bool_)
    assert (mask_of(pack_places(wanted), len(wanted)) == wanted).all()
    packed = [one for part in replica.judge(batch, JUDGE, wanted) for one in pack_reasons(part)]
    return unpack_reasons(packed, len(wanted))[0]


def expected(content: bytes) -> list[Reasons]:
    """The same by the synchronous core, all at once."""
    state = State.fresh(D, T, 1)
    engine = JudgingEngine(state, JUDGE)
    found: list[Reasons] = []
    for purchases, case, verdicts in engine.decide(state.decoder.decode(content, 1).events):
        reasons = JUDGE.decisions(case, verdicts, np.ones(len(purchases), np.bool_))
        found += [one._replace(place=len(found) + one.place) for one in reasons]
    return found


def in_one_row(parts: Sequence[list[Reasons]]) -> list[Reasons]:
    """The reasons of consecutive batches, numbered on."""
    reasons: list[Reasons] = []
    for part in parts:
        before = len(reasons)
        reasons += [one._replace(place=before + one.place) for one in part]
    return reasons


@given(logs(), st.integers(1, 20), st.data())
def test_a_replica_decides_as_the_core_does(content: bytes, size: int, data: st.DataObject) -> None:
    """However events are cut into batches, and wherever a replica is built anew from another one's columns."""
    replica, follower = Replica(D, T), Replica(D, T)
    found = []
    for batch in batches(content, size):
        found.append(judged(replica, batch))
        follower.follow(batch)
        assert replica.friendships == follower.friendships
        if data.draw(st.booleans(), "take the columns of the one that only followed"):
            through = batch.seq + len(batch.events) - 1
            replica = Replica(D, T)
            replica.restore(sent(follower.columns()), through)
    assert in_one_row(found) == expected(content)


@given(logs(), st.integers(1, 20))
def test_windows_arrive_as_they_were_sent(content: bytes, size: int) -> None:
    """Windows, own purchases and what is known of networks; a judge finds the same in them."""
    replica, found = Replica(D, T, sizes=True, context=True), []
    for batch in batches(content, size):
        for purchases, networks, case in replica.answer(batch):
            windows, own, known = unpack_part(pack_part(case.windows, case.own, networks))
            assert own is not None
            assert case.own is not None
            for sent, arrived in ((case.windows, windows), (case.own, own)):
                assert sent.offsets.tolist() == arrived.offsets.tolist()
                assert sent.seq.tolist() == arrived.seq.tolist()
                assert sent.timestamp.tolist() == arrived.timestamp.tolist()
                assert sent.amount.tolist() == arrived.amount.tolist()
            assert known.size.tolist() == networks.size.tolist()
            assert known.expected.tolist() == networks.expected.tolist()
            again = case._replace(windows=windows, own=own)
            found.append(JUDGE.decisions(again, JUDGE.verdicts(again), np.ones(len(purchases), np.bool_)))
    assert in_one_row(found) == expected(content)


@given(logs(), st.integers(1, 20), st.integers(1, 9), st.booleans(), st.data())
def test_networks_arrive_with_all_their_members(
    content: bytes, size: int, most: int, directed: bool, data: st.DataObject
) -> None:
    """As the graph has them, however events are cut, and wherever a replica is built anew from columns."""
    replica, follower = (GraphReplica(D, T, most, directed=directed, sizes=True) for _ in range(2))
    graph = FriendGraph(D, T, directed=directed, costs=PARTITION_ONLY)
    for batch in batches(content, size):
        follower.follow(batch)
        arrived = [unpack_networks(pack_networks(networks)) for networks in replica.walk(batch)]
        assert all(len(part.plan) <= most for part in arrived)
        graph.reserve(batch.users)
        expected = [networks for _, networks, _ in walked(graph, batch.events, batch.seq, size, sizes=True)]
        assert facts_of(arrived) == facts_of(expected)
        if data.draw(st.booleans(), "take the columns of the one that only followed"):
            replica = GraphReplica(D, T, most, directed=directed, sizes=True)
            replica.restore(sent(follower.columns()), 0)
        assert replica.friendships == follower.friendships


def facts_of(parts: Sequence[Networks]) -> list[Any]:
    """All that is known of each network."""
    return [
        fact
        for part in parts
        for fact in zip(members_of(part), part.plan.tolist(), part.size.tolist(), part.expected.tolist(), strict=True)
    ]


def members_of(networks: Networks) -> list[set[int]]:
    """The members of each network."""
    return [set(networks.members[begin:end].tolist()) for begin, end in pairwise(networks.offsets.tolist())]


@given(st.lists(st.sets(st.integers(0, 300) | st.integers(0, 9), min_size=1), min_size=1, max_size=9))
def test_networks_travel_in_few_bytes(sets: list[set[int]]) -> None:
    """Four bytes a member, or for each network a bit a user up to the last member, whichever is less in all."""
    buyers = alone(np.array([min(each) for each in sets], np.int32))
    offsets = np.cumsum([0, *(len(each) for each in sets)], dtype=np.int64)
    members = np.array([one for each in sets for one in each], np.int32)
    packed = pack_networks(buyers._replace(offsets=offsets, members=members))
    assert members_of(unpack_networks(packed)) == sets
    as_bits = len(sets) * (int(members.max()) // 8 + 1)
    assert len(packed.offsets) + len(packed.members) == min(offsets.nbytes + members.nbytes, as_bits)


COLUMNS = st.sampled_from([np.int32, np.int64, np.uint8]).flatmap(lambda kind: arrays(kind, st.integers(0, 40)))


@given(st.dictionaries(st.sampled_from("abcd"), COLUMNS, min_size=1), st.integers(1, 100))
def test_arrays_arrive_in_pieces(columns: dict[str, Any], most: int) -> None:
    """No message holds more bytes of them than it may, and the last one says so. What arrives can be written."""
    arriving, ends = ArraysInPieces(), []
    with patch.object(pieces_module, "PIECE", most):
        for pieces, is_last in pieces_of(columns):
            assert sum(len(piece.content) for piece in pieces) <= most
            arriving.add(pieces)
            ends.append(is_last)
    assert ends == [False] * (len(ends) - 1) + [True]
    arrived = arriving.arrays()
    assert list(arrived) == list(columns)
    for name, column in columns.items():
        assert arrived[name].dtype == column.dtype
        assert arrived[name].tolist() == column.tolist()
        assert arrived[name].flags.writeable


def test_a_command_arrives_as_it_was_sent() -> None:
    """Packed batches lie in it as they are."""
    (batch,) = batches(b'{"event_type":"befriend","timestamp":"2017-06-13 11:33:01","id1":"1","id2":"2"}\n', 5)
    sent = Judgement([msgspec.Raw(pack(batch))] * 2, b"12345678")
    arrived = command_from(encoded(sent))
    assert isinstance(arrived, Judgement)
    assert [bytes(one) for one in arrived.batches] == [bytes(one) for one in sent.batches]
    assert arrived.wanted == sent.wanted


@given(logs(), st.integers(1, 20))
def test_a_greeting_changes_nothing(content: bytes, size: int) -> None:
    """Whenever it comes: a worker that stood ready may have been taken since it was thought of."""
    answers = []
    for greeted in (False, True):
        worker = ReplicaWorker()
        worker.call(encoded(Begin(D, T, None, sizes=True, context=True)))
        found = []
        for batch in batches(content, size):
            for command in [Greet()] * greeted + [Judgement([msgspec.Raw(pack(batch))], b"")]:
                reply = reply_from(worker.call(encoded(command)))
                if isinstance(command, Greet):
                    assert reply == hello()
                else:
                    assert isinstance(reply, WindowParts)
                    found += reply.parts
        answers.append(found)
    assert answers[0] == answers[1]


def test_a_process_is_known_by_the_kernels_of_a_worker_alone() -> None:
    """Whatever else a driver has imported, such as a service. `MODULES` are those whose kernels a worker has."""
    others = [*vars(bridges).values(), *vars(egonets).values()]
    assert any(isinstance(each, Kernel) for each in others)
    code = (
        "import peerwatch.cluster.worker\nfrom peerwatch import kernels\nfrom peerwatch.cluster.wire import hello\n"
        "print(hello().kernels, *{each.function.__module__ for each in kernels.registered})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    digest, *modules = result.stdout.split()
    assert digest == hello().kernels
    assert {*modules} == MODULES

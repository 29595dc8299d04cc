"""Quarantine: a flagged purchase is in no window until it is labelled normal, as the naive reference says."""

import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_explanation import Bought, events_of
from naive_quarantine import Heard, Quarantined, Scheduled, judge_with_quarantine
from reference import own_part
from strategies import examples, logs
from support import befriend, judge_files, purchase
from typical import Typical

from peerwatch.actors.coordinator import Judges
from peerwatch.actors.judges import LiveJudge
from peerwatch.amounts import Amounts
from peerwatch.judging import engine
from peerwatch.judging.detector_judge import DetectorJudge
from peerwatch.judging.judge import Case, Judge
from peerwatch.judging.labels import Label
from peerwatch.judging.quarantine import Purchases, Quarantine
from peerwatch.judging.quarantine_engine import QuarantineEngine
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.judging.state import State, StateFacts
from peerwatch.judging.training import Learner
from peerwatch.network.windows import Windows

LABELS = st.builds(
    lambda number, by_line, anomaly: Label(None if by_line else number, number if by_line else None, anomaly),
    st.integers(1, 90),
    st.booleans(),
    st.booleans(),
)
HEARD = st.lists(st.builds(Heard, st.integers(1, 130), st.lists(LABELS, min_size=1, max_size=8)), max_size=8).map(
    lambda heard: sorted(heard, key=lambda one: one.seq)
)
KS = st.sampled_from([Fraction(0), Fraction(1, 2), Fraction(1), Fraction(2)])


def dense_logs(max_size: int = 60) -> st.SearchStrategy[bytes]:
    """Logs in which many are friends, so that verdicts depend on each other."""
    friends = b"".join(befriend(a, b) for a in range(1, 5) for b in range(1, a))
    return logs(max_size).map(lambda log: friends + log.removeprefix(b"\xef\xbb\xbf"))


@settings(max_examples=examples(100))
@given(
    batch=st.one_of(st.none(), dense_logs()),
    stream=logs(max_size=100),
    D=st.integers(1, 3),
    T=st.integers(2, 6) | st.integers(2, 60),
    k=KS,
    heard=HEARD,
    shards=st.integers(1, 3),
    walkers=st.integers(1, 2),
    cap=st.integers(1, 9) | st.just(4096),
    bound=st.integers(1, 200) | st.just(1 << 20),
    audit=st.sampled_from([0.0, 0.5]),
    directed=st.booleans(),
    judge_batch=st.booleans(),
)
def test_a_run_writes_what_the_reference_says(
    batch: bytes | None, stream: bytes, D: int, T: int, k: Fraction, heard: list[Heard], shards: int, walkers: int,
    cap: int, bound: int, audit: float, directed: bool, judge_batch: bool,
) -> None:  # fmt: skip
    """Messy logs, labels at any moment, any number of shards and walkers, any size of batches; an audit agrees."""
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("WINDOW_PURCHASES", "MOST_PLACES"):
            patch.setattr(engine, limit, bound)
        judges = Judges(LiveJudge(SigmaJudge(Sigma(k)), labels=Scheduled(heard)))
        found = judge_files(
            batch,
            stream,
            D,
            T,
            shards=shards,
            walkers=walkers,
            batch_cap=cap,
            bench=judges,
            quarantine=True,
            audit=audit,
            k=k,
            directed=directed,
            judge_batch=judge_batch,
        )
    options = {"directed": directed, "judge_batch": judge_batch}
    assert found.flagged == judge_with_quarantine(batch, stream, D, T, k, heard, **options)


class LearnedNaively(Quarantined):
    """One purchase after the other judged by a detector that learns, which sees what the plainest means find."""

    def __init__(self, D: int, T: int, judge: Judge, heard: list[Heard], *, directed: bool) -> None:
        super().__init__(D, T, Fraction(0), heard, directed=directed)
        self._judge = judge

    def judged(self, bought: Bought) -> tuple[bool, int]:
        """Whether it is flagged, and by which model."""
        self.hear(bought.seq)
        members = self.world.hops(bought.user, self._D)
        windows = [
            sorted(p for p in self.world.purchases if p.user in those)[-self._T :] for those in (members, {bought.user})
        ]
        window, own = (
            Windows(
                np.array([0, len(each)]),
                np.array([p.seq for p in each], np.int64),
                np.array([micros(p.when) for p in each], np.int64),
                Amounts.of([p.amount for p in each]),
            )
            for each in windows
        )
        when, size = np.array([micros(bought.when)]), np.array([len(members)])
        case = Case(window, np.array([bought.seq]), np.array([0]), Amounts.of([bought.amount]), when, size, own)
        verdicts = engine.verdicts_of(self._judge, case)
        flagged = bool(verdicts.flagged[0])
        (self.aside if flagged else self.world.purchases).append(bought)
        assert verdicts.model is not None
        return flagged, int(verdicts.model[0])


def micros(when: datetime) -> int:
    """Microseconds since 1970."""
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def crowd(seed: int, count: int) -> bytes:
    """Purchases of a few friends, some of them several times as large as the others; friendships come and go."""
    random, lines = Random(seed), []
    for _ in range(count):
        a, b = random.sample(range(6), 2)
        if random.random() < 0.15:
            lines.append(befriend(a, b, random.choice(["befriend", "unfriend"])))
        else:
            amount = random.lognormvariate(3, 0.3) * random.choice([1, 1, 1, 1, 1, 4])
            lines.append(purchase(a, f"{amount:.2f}", f"2017-06-13 11:33:{random.randrange(60):02}"))
    return b"".join(lines)


@settings(max_examples=examples(40))
@given(
    batch=st.integers(0, 1000).map(lambda seed: crowd(seed, 40)),
    stream=st.integers(0, 1000).map(lambda seed: crowd(seed, 90)),
    D=st.integers(1, 3),
    T=st.integers(2, 12),
    k=st.sampled_from([0.5, 1.0, 2.0]),
    rows=st.integers(4, 20),
    more=st.integers(0, 20),
    heard=HEARD,
    shards=st.integers(1, 3),
    walkers=st.integers(1, 2),
    cap=st.integers(1, 9) | st.just(4096),
    directed=st.booleans(),
    judge_batch=st.booleans(),
)
def test_a_detector_that_learns_learns_by_what_is_kept_out(
    batch: bytes, stream: bytes, D: int, T: int, k: float, rows: int, more: int, heard: list[Heard], shards: int,
    walkers: int, cap: int, directed: bool, judge_batch: bool,
) -> None:  # fmt: skip
    """Each model comes at the same purchase, and flags the same, as if all were judged one after the other."""

    def judge() -> Judge:
        return DetectorJudge(Typical(k), Learner(rows, rows + more))

    judges = Judges(LiveJudge(judge(), labels=Scheduled(heard)))
    found = judge_files(
        batch,
        stream,
        D,
        T,
        shards=shards,
        walkers=walkers,
        batch_cap=cap,
        bench=judges,
        quarantine=True,
        directed=directed,
        judge_batch=judge_batch,
    ).flagged.splitlines()
    naive, seq, expected = LearnedNaively(D, T, judge(), heard, directed=directed), 0, list[tuple[bytes, int]]()
    for file, content in (("batch", batch), ("stream", stream)):
        for line, text, event in events_of(content):
            seq += 1
            if event[0] != "purchase" or (file == "batch" and not judge_batch):
                naive.world.apply(event, seq, file, line)
                continue
            flagged, model = naive.judged(Bought(event[1], seq, event[2], event[3], file, line))
            if flagged:
                expected.append((text[: text.rindex(b"}")], model))
    assert len(found) == len(expected)
    assert all(
        line.startswith(text) and int(json.loads(line)["model"]) == model
        for line, (text, model) in zip(found, expected, strict=True)
    )


@settings(max_examples=examples(100))
@given(
    batch=dense_logs(),
    stream=logs(max_size=100),
    D=st.integers(1, 3),
    T=st.integers(2, 6),
    more=st.integers(0, 3),
    k=KS,
    heard=HEARD,
    cuts=st.lists(st.integers(0, 100), max_size=4),
)
def test_the_synchronous_core_decides_the_same(
    batch: bytes, stream: bytes, D: int, T: int, more: int, k: Fraction, heard: list[Heard], cuts: list[int]
) -> None:
    """Also where its state keeps more than T purchases of a user, and is restored from a snapshot between two parts."""
    lines = stream.split(b"\n")
    state = State.fresh(D, T + more, 1, quarantine=True)
    engine.apply(state, events := state.decoder.decode(batch, 1).events, 1)
    seq, found = 1 + len(events), list[int]()
    bounds = sorted({0, *(min(cut, len(lines)) for cut in cuts), len(lines)})
    for begin, end in pairwise(bounds):
        events = state.decoder.decode(b"\n".join(lines[begin:end]) + b"\n", 1 + begin).events
        for judged in QuarantineEngine(state, SigmaJudge(Sigma(k)), T, Scheduled(heard)).decide(events, seq):
            found += judged.events.line[judged.verdicts.flagged].tolist()
        seq += len(events)
        facts = StateFacts(state.progress._replace(events=seq - 1), 0, state.verdicts, 1, [])
        state = State.restored(D, T + more, 1, [], state.arrays(), facts)
    expected = judge_with_quarantine(batch, stream, D, T, k, heard).splitlines()
    texts = [own_part(lines[line - 1]) for line in found]
    assert len(texts) == len(expected)
    assert all(one.rstrip(b"\r").rpartition(b"}")[0] in whole for one, whole in zip(texts, expected, strict=True))


def test_huge_amounts_are_kept_apart_and_released() -> None:
    """A flagged amount beyond 64 bits has its name in a snapshot, and new large amounts get others."""
    batch = befriend(1, 2) + b"".join(purchase(2, "10") + purchase(2, "11") for _ in range(3))
    stream = purchase(1, "1e30") + purchase(2, "12") + purchase(1, "3e30") + purchase(2, "1e31")
    for shards in (1, 2):
        for heard in ([], [Heard(9, [Label(8, None, anomaly=False)])]):
            labels = Scheduled(heard)
            judges = Judges(LiveJudge(SigmaJudge(Sigma(Fraction(3))), labels=labels))
            found = judge_files(batch, stream, 1, 9, shards=shards, bench=judges, quarantine=True).flagged
            assert found == judge_with_quarantine(batch, stream, 1, 9, Fraction(3), heard)


def test_only_so_many_can_be_released() -> None:
    """The latest ones; earlier ones stay out for good, so that memory is bounded."""
    quarantine = Quarantine(most=3)
    column = np.arange(1, 6)
    for place in range(5):
        one = column[place : place + 1]
        quarantine.put(Purchases(one, one, one, one, Amounts(one)))
    normal = [Label(seq, None, anomaly=False) for seq in (2, 3)]
    assert quarantine.hear(normal, 7).seq.tolist() == [3]
    assert (len(quarantine), quarantine.heard) == (2, 7)

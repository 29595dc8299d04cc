"""The whole pipeline, over real files, against the naive reference."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import judge, own_part
from strategies import COMMANDS, examples, logs
from support import FORCED, befriend, judge_files, purchase

from peerwatch.actors import mailbox
from peerwatch.network.graph import FriendGraph
from peerwatch.network.walk import COSTS


@settings(max_examples=examples(300))
@given(
    batch=st.one_of(st.none(), logs()),
    stream=logs(max_size=120),
    D=st.integers(1, 4),
    T=st.one_of(st.integers(2, 6), st.integers(2, 60)),
    shards=st.integers(1, 7),
    walkers=st.integers(1, 3),
    batch_cap=st.one_of(st.integers(1, 5), st.integers(1, 5000)),
    chunk=st.one_of(st.integers(1, 200), st.just(1 << 18)),
    k=st.sampled_from([Fraction(3), Fraction(3), Fraction(1, 2), Fraction(0)]),
    inline=st.booleans(),
    directed=st.sampled_from([False, False, True]),
    judge_batch=st.sampled_from([False, False, True]),
)
def test_any_log_gives_the_reference_bytes(
    batch: bytes | None, stream: bytes, D: int, T: int, shards: int, walkers: int, batch_cap: int, chunk: int,
    k: Fraction, inline: bool, directed: bool, judge_batch: bool,
) -> None:  # fmt: skip
    """Messy logs, late and equal timestamps, any D, T, shards, batch cap and chunk: output and rejects are the same.

    Friendships are mutual or directed, and the batch log's purchases may be judged, too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mailbox, "INLINE_WORK", 20_000 if inline else -1)
        result = judge_files(
            batch, stream, D, T, shards=shards, walkers=walkers, batch_cap=batch_cap, chunk=chunk, k=k,
            directed=directed, judge_batch=judge_batch,
        )  # fmt: skip
    expected = judge(batch, stream, D, T, k, directed=directed, judge_batch=judge_batch)
    assert result.flagged == expected.flagged
    rejected = [[bad.line for bad in result.rejected if bad.file.endswith(name)] for name in ("/batch", "/stream")]
    assert rejected == [expected.batch_rejected, expected.stream_rejected]
    content = {"batch": batch or b"", "stream": stream}
    for bad in result.rejected:
        log = content[bad.file.rpartition("/")[2]]
        assert log[bad.offset : bad.offset + len(bad.raw)] == bad.raw
        assert own_part(log.split(b"\n")[bad.line - 1]) == bad.raw


def busy_lines(seed: int, count: int = 200) -> list[bytes]:
    """Events of twelve users who have much to do with each other; a tenth of them come late."""
    rng = np.random.default_rng(seed)
    lines = []
    for place in range(count):
        second = place // 2 - 5 * (place > 20 and rng.random() < 0.1)
        stamp = f"2017-06-13 11:{second // 60:02}:{second % 60:02}"
        a, b = rng.choice(12, 2, replace=False).tolist()
        kind = rng.choice(["purchase", "befriend", "unfriend"], p=[0.6, 0.25, 0.15])
        amount = 500 if rng.random() < 0.1 else rng.integers(1, 20)
        lines.append(purchase(a, str(amount), stamp) if kind == "purchase" else befriend(a, b, kind, stamp))
    return lines


@settings(COMMANDS, max_examples=examples(100))
@given(
    seed=st.integers(0, 2**32 - 1), D=st.integers(1, 4), T=st.integers(2, 9), shards=st.integers(1, 7),
    walkers=st.integers(1, 3), batch_cap=st.integers(1, 200), costs=st.sampled_from([COSTS, *FORCED.values()]),
    directed=st.booleans(), judge_batch=st.booleans(),
)  # fmt: skip
def test_busy_networks_give_the_reference_bytes_by_every_plan(
    seed: int, D: int, T: int, shards: int, walkers: int, batch_cap: int, costs: tuple[int, ...], *, directed: bool,
    judge_batch: bool,
) -> None:  # fmt: skip
    """Random logs make few networks of any size; these have some, and planners that prefer one plan."""
    lines = busy_lines(seed)
    batch, stream = b"".join(lines[:80]), b"".join(lines[80:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FriendGraph.__init__.__kwdefaults__, "costs", costs)  # type: ignore[arg-type]
        result = judge_files(
            batch, stream, D, T, shards=shards, walkers=walkers, batch_cap=batch_cap, k=Fraction(1), directed=directed,
            judge_batch=judge_batch,
        )  # fmt: skip
    expected = judge(batch, stream, D, T, Fraction(1), directed=directed, judge_batch=judge_batch)
    assert result.flagged == expected.flagged


@given(
    amounts=st.lists(st.integers(0, 10**4), min_size=1, max_size=6),
    scale=st.sampled_from([1, 10**4, 10**10, 10**16, 10**22, 10**40]),
    step=st.sampled_from([-1, 0, 1]),
)
@example(amounts=[0], scale=1, step=0)
def test_the_boundary_itself_is_normal_and_one_millionth_more_is_flagged(
    amounts: list[int], scale: int, step: int
) -> None:
    """An amount exactly on mean + 3 sd is never flagged; a millionth more always is, at every magnitude."""
    # Each amount a next to -a, around a centre: the sd is that of the pairs; with all equal to a it is a itself.
    spread = max(amounts)
    centre = 2 * spread
    window = [(centre - spread) * scale, (centre + spread) * scale] * len(amounts)
    boundary = (centre + 3 * spread) * scale
    amount = max(0, boundary + step)
    lines = [befriend("buyer", "friend")]
    lines += [purchase("friend", written(value)) for value in window]
    lines += [purchase("buyer", written(amount))]
    stream = b"".join(lines)
    result = judge_files(None, stream, 1, len(window))
    assert result.flagged == judge(None, stream, 1, len(window)).flagged
    assert (result.flagged != b"") == (amount > boundary)


def written(micros: int) -> str:
    """Millionths as a decimal number."""
    return f"{micros // 10**6}.{micros % 10**6:06}"


@settings(max_examples=examples(60))
@given(
    amounts=st.lists(st.integers(0, 10**20), min_size=1, max_size=40),
    seed=st.integers(0, 10**30),
)
def test_big_amounts_are_exact(amounts: list[int], seed: int) -> None:
    """Amounts far beyond 64 bits are judged and printed exactly, mixed with small ones."""
    lines = [befriend("a", "b")]
    for i, amount in enumerate([*amounts, seed]):
        lines.append(purchase("ab"[i % 2], written(amount)))
        lines.append(purchase("ba"[i % 2], str(amount % 1000)))
    stream = b"".join(lines)
    assert judge_files(None, stream, 1, 5).flagged == judge(None, stream, 1, 5).flagged


def test_a_future_timestamp_does_not_mislead_the_scan() -> None:
    """One purchase far in the future leaves later windows exact, however long the history behind it."""
    lines = [befriend("1", str(friend)) for friend in range(2, 30)]
    lines += [purchase(2, "5.00", "2999-01-01 00:00:00")]
    lines += [purchase(2 + i % 28, f"{i % 37}.00", f"2017-06-13 11:{i // 60 % 60:02}:{i % 60:02}") for i in range(900)]
    stream = b"".join(lines) + b"".join(purchase(1, "999", "2017-06-13 12:00:00") for _ in range(20))
    for T in (2, 3, 50):
        assert judge_files(None, stream, 2, T, shards=2).flagged == judge(None, stream, 2, T).flagged

"""Amounts that are too large for a column: judged exactly, and let go of with their purchases."""

import json
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import anyio
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import judge
from strategies import COMMANDS, examples
from support import MemoryLog, MemorySink, SilentLog, befriend, judge_files, outlets, purchase

from peerwatch import amounts as amounts_module
from peerwatch.actors.coordinator import Judges
from peerwatch.actors.judges import LiveJudge
from peerwatch.cli.main import cli
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.judging.state import State
from peerwatch.network.statistics import Statistics
from peerwatch.runtime.pipeline import Pipeline
from peerwatch.storage.checkpoints import read_checkpoint

HUGE = st.one_of(
    st.integers(2**62 - 1, 2**62 + 2), st.integers(10**199, 10**200), st.sampled_from([10**200, 2 * 10**200, 0])
)
PURCHASE = st.builds(
    lambda user, micros, second: purchase(user, written(micros), f"2017-06-13 11:33:{second:02}"),
    st.integers(1, 6), HUGE, st.integers(0, 59),
)  # fmt: skip
KIND = st.sampled_from(["befriend", "befriend", "befriend", "unfriend"])
TIE = st.builds(befriend, st.integers(1, 6), st.integers(7, 9), KIND)
LOG = st.lists(st.one_of(PURCHASE, PURCHASE, PURCHASE, PURCHASE, TIE), max_size=100).map(b"".join)
FRIENDS = b"".join(befriend(a, a % 6 + 1) for a in range(1, 7))


def written(micros: int) -> str:
    """Millionths as a decimal number."""
    return f"{micros // 10**6}.{micros % 10**6:06}"


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


@pytest.fixture(autouse=True, scope="module")
def forgetful() -> Iterator[None]:
    """What is not needed goes as soon as it can be known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amounts_module, "FEW", 0)
        patch.setattr(amounts_module, "SHARE", 1 << 30)
        yield


@settings(max_examples=examples(150))
@given(
    batch=LOG, stream=LOG, D=st.integers(1, 3), T=st.integers(2, 5), shards=st.integers(1, 4),
    walkers=st.integers(1, 3), batch_cap=st.integers(1, 9) | st.just(4096),
    k=st.sampled_from([Fraction(3), Fraction(1, 2), Fraction(0)]), audit=st.sampled_from([0.0, 1.0]),
)  # fmt: skip
def test_any_log_of_huge_amounts_gives_the_reference_bytes(
    batch: bytes, stream: bytes, D: int, T: int, shards: int, walkers: int, batch_cap: int, k: Fraction, audit: float
) -> None:
    """However many shards own them and however soon they are let go of; recomputed by brute force as well."""
    result = judge_files(
        FRIENDS + batch,
        stream,
        D,
        T,
        shards=shards,
        walkers=walkers,
        batch_cap=batch_cap,
        chunk=500,
        k=k,
        audit=audit,
    )
    assert result.flagged == judge(FRIENDS + batch, stream, D, T, k).flagged


@settings(COMMANDS, max_examples=examples(30))
@given(
    batch=LOG, stream=st.lists(PURCHASE, min_size=5, max_size=100), cuts=st.lists(st.integers(0, 99), max_size=3),
    T=st.integers(2, 4), first=st.integers(1, 3), later=st.integers(1, 3),
)  # fmt: skip
def test_neither_restarts_nor_sweeps_nor_explanations_miss_one(
    batch: bytes, stream: list[bytes], cuts: list[int], T: int, first: int, later: int
) -> None:
    """Stopped anywhere, started anew with other shards, swept, explained from a checkpoint: as the reference says."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        logs, output = [str(directory / log) for log in ("batch", "stream")], str(directory / "out")
        (directory / "batch").write_bytes(f'{{"D": 2, "T": {T}}}\n'.encode() + FRIENDS + batch)
        options = ["--quiet", "--state", str(directory / "state"), "--follow", "--idle-exit", "0"]
        for number, cut in enumerate([*sorted(cuts), len(stream)]):
            (directory / "stream").write_bytes(b"".join(stream[:cut]))
            shards = str(later if number else first)
            assert peerwatch("run", *logs, output, *options, "--shards", shards).exit_code == 0
        expected = judge(FRIENDS + batch, b"".join(stream), 2, T)
        assert Path(output).read_bytes() == expected.flagged
        swept = peerwatch("sweep", "--D", "2", "--T", f"2,{T + 3}", *logs, "--output", str(directory / "sweep"))
        assert swept.exit_code == 0, swept.stderr
        written_files = sorted((directory / "sweep").iterdir())
        for file, each in zip(written_files, sorted((2, T + 3), key=str), strict=True):
            assert file.read_bytes() == judge(FRIENDS + batch, b"".join(stream), 2, each).flagged
        said = json.loads(
            peerwatch(
                "explain", *logs, "--line", str(len(stream)), "--state", str(directory / "state"), "--json"
            ).stdout
        )
        paid = [int(Fraction(each["amount"]) * 10**6) for each in said["window"]]
        statistics = Statistics.of(paid)
        assert (said["n"], said["S"], said["Q"]) == (len(paid), str(statistics.S), str(statistics.Q))


@pytest.mark.parametrize("shards", [1, 3])
def test_what_no_window_can_hold_is_held_by_nobody(
    shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of thousands of huge purchases by 20 users a run, and a checkpoint, hold what these users' T latest need."""
    users, T, count, cap = 20, 8, 3000, 5
    most = users * (T + T // 4 + 5)
    stream = [purchase(i % users, f"{i}e190", f"2017-06-13 11:{i // 60 % 60:02}:{i % 60:02}") for i in range(1000)] * 3
    batch = b"".join(befriend(a, (a + 1) % users) for a in range(users)) + b"".join(stream[:700])
    state, sink = State.fresh(2, T, shards), MemorySink()
    blocks = [b"".join(stream[begin : begin + 100]) for begin in range(0, count, 100)]

    async def run() -> None:
        pipeline = Pipeline(
            state, Judges(LiveJudge(SigmaJudge(Sigma(Fraction(3))))), decisions=SilentLog(), outlets=outlets(sink),
            batch_cap=cap,
        )  # fmt: skip
        await pipeline.run([MemoryLog(batch, judged=False), MemoryLog(*blocks)])

    anyio.run(run)
    assert sink.data == judge(batch, b"".join(stream), 2, T).flagged
    assert 0 < sum(len(history.large) for history in state.histories) <= most + 20 * cap  # in flight
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batch").write_bytes(batch)
    (tmp_path / "stream").write_bytes(b"".join(stream))
    options = ["--D", "2", "--T", str(T), "--state", "state", "--shards", str(shards)]
    assert peerwatch("run", "--quiet", *options, "batch", "stream", "out").exit_code == 0
    arrays = read_checkpoint(max((tmp_path / "state").glob("checkpoint-*.npz"))).arrays
    named = [np.count_nonzero(arrays[f"amount{number}"] < 0) for number in range(shards)]
    kept = [len(arrays[f"large{number}"].tobytes().split()) for number in range(shards)]
    assert kept == named
    assert sum(kept) <= most

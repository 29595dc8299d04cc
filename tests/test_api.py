"""The Python API: what it says is what a run writes, however events come and wherever it is stopped in between."""

import asyncio
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_quarantine import Heard, judge_with_quarantine
from reference import judge as reference
from strategies import logs
from support import befriend, purchase

import peerwatch
from peerwatch.cli.main import cli
from peerwatch.judging.labels import Label

HEADER = b'{"D":"2", "T":"9"}\n'


def some_logs(count: int = 900, users: int = 12) -> tuple[bytes, bytes]:
    """Seeded logs of a small crowd with some large purchases."""
    rng = np.random.default_rng(3)
    batch = HEADER + b"".join(befriend(int(a), int(b)) for a, b in rng.integers(0, users, (30, 2)) if a != b)
    amounts = np.where(rng.random(count) < 0.02, 5000, rng.integers(1, 100, count))
    stream = b"".join(purchase(int(rng.integers(users)), str(amount)) for amount in amounts)
    return batch, stream


def as_written(stream: bytes, decisions: list[peerwatch.Decision], batch: bytes = b"") -> bytes:
    """The flagged purchases as a run writes them."""
    logs = {None: stream.split(b"\n"), "batch": batch.split(b"\n")}
    written = b""
    for one in decisions:
        if one.flagged:
            text = logs[one.log][one.line - 1].removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf")
            brace = text.rindex(b"}")
            written += text[:brace] + f', "mean": "{one.mean}", "sd": "{one.sd}"'.encode()
            written += b', "log": "batch"' * (one.log is not None) + text[brace:] + b"\n"
    return written


@settings(max_examples=150)
@given(
    batch=st.none() | logs(), stream=logs(max_size=80), D=st.integers(1, 3), T=st.integers(2, 9),
    k=st.sampled_from([3.0, 0.5, 0.0]), form=st.sampled_from(["path", "bytes", "text", "list", "generator"]),
    lines=st.integers(1, 50), directed=st.booleans(), judge_batch=st.booleans(),
)  # fmt: skip
def test_judge_says_what_the_reference_says(
    batch: bytes | None, stream: bytes, D: int, T: int, k: float, form: str, lines: int, *, directed: bool,
    judge_batch: bool,
) -> None:  # fmt: skip
    """Of messy logs, as paths, open files, lists or generators of lines, however many are taken at once."""
    as_lines: Callable[[bytes], list[bytes]] = lambda log: [line + b"\n" for line in log.split(b"\n")]  # noqa: E731
    with tempfile.TemporaryDirectory() as name:

        def given_as(log: bytes, role: str) -> Any:
            if form == "path":
                (Path(name) / role).write_bytes(log)
                return Path(name) / role
            if form == "text" and is_utf8(log):
                return io.StringIO(log.decode(), newline="")
            if form == "list":
                return as_lines(log)
            return iter(as_lines(log)) if form == "generator" else io.BytesIO(log)

        found = peerwatch.judge(
            given_as(batch, "batch") if batch is not None else None, given_as(stream, "stream"), D=D, T=T, k=k,
            friendships="directed" if directed else "mutual", judge_batch=judge_batch, lines=lines,
        )  # fmt: skip
        decisions = [*found]
    expected = reference(batch, stream, D, T, Fraction(repr(k)), directed=directed, judge_batch=judge_batch)
    if not any(b"\x00" in log for log in (batch or b"", stream)):
        assert as_written(stream, decisions, batch or b"") == expected.flagged
    assert len(found.rejected) == len(expected.batch_rejected) + len(expected.stream_rejected)
    assert [one.seq for one in decisions] == sorted(one.seq for one in decisions)


def is_utf8(log: bytes) -> bool:
    """Whether the bytes are text."""
    try:
        log.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    "name", ["sigma", "mad", "half_space_trees", pytest.param("isolation_forest", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("step", [1, 7, 400])
def test_an_engine_decides_as_a_run_does(tmp_path: Path, name: str, step: int) -> None:
    """Line by line or in pieces, saved and loaded between any two: flagged are the same, with the same figures."""
    batch, stream = some_logs()
    (tmp_path / "batch").write_bytes(batch)
    (tmp_path / "stream").write_bytes(stream)
    parameters = {"half_space_trees": {"trees": 5}, "isolation_forest": {"trees": 10}}.get(name, {})
    config = {"detector": {"name": name, "parameters": parameters, "training": {"rows": 60, "every": 150}}}
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    paths = [str(tmp_path / each) for each in ("batch", "stream", "out")]
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "-q", "--config", str(tmp_path / "c.yaml"), *paths])
    assert ended.value.code == 0
    detector = peerwatch.detector(name, **parameters) if name != "sigma" else None
    engine = peerwatch.Engine(2, 9, detector=detector, training_rows=60, training_every=150)
    engine.learn(batch.removeprefix(HEADER))
    engine.begin_log("stream")
    lines = stream.splitlines(keepends=True)
    decisions: list[peerwatch.Decision] = []
    for begin in range(0, len(lines), step):
        decisions += engine.feed(lines[begin : begin + step])
        if begin % (130 * step) == 0:
            engine.save(tmp_path / "engine")
            engine = peerwatch.Engine.load(tmp_path / "engine")
            engine.begin_log("stream", line=min(begin + step, len(lines)) + 1)
    written = [json.loads(line) for line in (tmp_path / "out").read_bytes().splitlines()]
    flagged = [one for one in decisions if one.flagged]
    assert len(decisions) == len(lines)
    assert written
    assert [(one.user, str(one.mean), str(one.sd)) for one in flagged] == [
        (each["id"], each["mean"], each["sd"]) for each in written
    ]
    if name != "sigma":
        assert [f"{one.score:.6g}" for one in flagged] == [each["score"] for each in written]
        assert [one.model for one in flagged] == [int(each["model"]) if "model" in each else None for each in written]


FRIENDS = b"".join(befriend(a, b) for a in range(1, 5) for b in range(1, a))


@given(
    batch=logs(), stream=logs(max_size=80), D=st.integers(1, 3), T=st.integers(2, 9),
    k=st.sampled_from([2.0, 0.5, 0.0]), directed=st.booleans(),
    releases=st.lists(st.tuples(st.integers(0, 80), st.integers(1, 120)), max_size=6),
)  # fmt: skip
def test_an_engine_with_quarantine_decides_as_the_reference(
    batch: bytes, stream: bytes, D: int, T: int, k: float, releases: list[tuple[int, int]], *, directed: bool
) -> None:
    """Released are any purchases at any moment, the engine saved and loaded then; what is not kept out says so."""
    batch, lines = FRIENDS + batch.removeprefix(b"\xef\xbb\xbf").replace(b"\x00", b""), stream.split(b"\n")
    engine = peerwatch.Engine(D, T, k=k, quarantine=True, friendships="directed" if directed else "mutual")
    engine.learn(batch)
    engine.begin_log("stream")
    decisions: list[peerwatch.Decision] = []
    heard: list[Heard] = []
    held, begin = set[int](), 0
    with tempfile.TemporaryDirectory() as name:
        for end, seq in sorted((min(end, len(lines)), seq) for end, seq in [*releases, (len(lines), 0)]):
            found = engine.feed(b"\n".join(lines[begin:end]) + b"\n" * (end < len(lines)) if end > begin else [])
            held |= {one.seq for one in found if one.flagged}
            decisions, begin = decisions + found, max(begin, end)
            engine.save(Path(name) / "engine")
            engine = peerwatch.Engine.load(Path(name) / "engine")
            engine.begin_log("stream", line=begin + 1)
            assert engine.release(seq) == (seq in held)
            held.discard(seq)
            heard.append(Heard(engine.events + 1, [Label(seq, None, anomaly=False)]))
    expected = judge_with_quarantine(batch, stream, D, T, Fraction(repr(k)), heard, directed=directed)
    if b"\x00" not in stream:
        assert as_written(stream, decisions) == expected


def test_an_engine_releases_only_where_it_keeps_out() -> None:
    """Without quarantine a release is a mistake."""
    with pytest.raises(peerwatch.UsageError, match="create it with quarantine=True"):
        peerwatch.Engine(1, 2).release(1)


@pytest.mark.slow
def test_an_engine_that_learns_keeps_out_what_it_flags() -> None:
    """Saved and loaded on the way, with a purchase released in between, it decides as one that was fed all at once."""
    batch, stream = some_logs(500)
    lines, typical = stream.splitlines(keepends=True), peerwatch.detector("typical:Typical")

    def begun(*, quarantine: bool) -> peerwatch.Engine:
        engine = peerwatch.Engine(2, 9, detector=typical, training_rows=60, training_every=150, quarantine=quarantine)
        engine.learn(batch.removeprefix(HEADER))
        engine.begin_log("stream")
        return engine

    def decided(step: int, *, release: bool) -> list[str]:
        engine, found = begun(quarantine=True), list[peerwatch.Decision]()
        with tempfile.TemporaryDirectory() as name:
            for begin in range(0, len(lines), step):
                found += engine.feed(lines[begin : begin + step])
                engine.save(Path(name) / "engine")
                engine = peerwatch.Engine.load(Path(name) / "engine", detector=typical)
                engine.begin_log("stream", line=begin + step + 1)
                if release and begin + step == 280:
                    assert engine.release([one.seq for one in found if one.flagged][-1])
        return shown(found)

    def shown(decisions: list[peerwatch.Decision]) -> list[str]:
        return [repr(one) for one in decisions]  # a score may be NaN, which is not equal to itself

    at_once = shown(begun(quarantine=True).feed(stream))
    assert at_once != shown(begun(quarantine=False).feed(stream))
    assert decided(70, release=False) == at_once
    assert decided(70, release=True) == decided(140, release=True) != at_once


async def listed(decisions: AsyncIterator[peerwatch.Decision]) -> list[peerwatch.Decision]:
    """All of them."""
    return [one async for one in decisions]


def test_quarantine_is_the_same_in_every_function(tmp_path: Path) -> None:
    """`judge`, `judge_async`, `explain` and `sweep` keep out what a run keeps out, with any detector."""
    batch, stream = some_logs(400)
    (tmp_path / "batch").write_bytes(batch)
    (tmp_path / "stream").write_bytes(stream)
    logs = tmp_path / "batch", tmp_path / "stream"
    found = [*peerwatch.judge(*logs, k=2.0, quarantine=True)]
    assert as_written(stream, found) == judge_with_quarantine(batch.removeprefix(HEADER), stream, 2, 9, Fraction(2))
    assert found != [*peerwatch.judge(*logs, k=2.0)]
    assert asyncio.run(listed(peerwatch.judge_async(*logs, k=2.0, quarantine=True))) == found
    flagged = [one for one in found if one.flagged]
    explained = peerwatch.explain(*logs, seq=flagged[-1].seq, k=2.0, quarantine=True)
    assert (explained.verdict, explained.mean) == ("flagged", str(flagged[-1].mean))
    assert peerwatch.sweep(*logs, k=[2.0], quarantine=True).settings[0].flagged == len(flagged)
    mad = [*peerwatch.judge(*logs, detector="mad", quarantine=True)]
    assert [*peerwatch.judge(*logs, detector="sigma", k=2)] == [*peerwatch.judge(*logs, k=2)]
    assert mad != [*peerwatch.judge(*logs, detector=peerwatch.detector("mad"))]


def test_an_engine_is_loaded_wherever_its_detector_lay_when_it_was_saved(tmp_path: Path) -> None:
    """In a module that has been split since, with the detector given or not; it decides the same."""
    batch, stream = some_logs(300)
    detector = peerwatch.detector("lof", neighbours=5)
    engine = peerwatch.Engine(2, 9, detector=detector, training_rows=60, training_every=150)
    engine.learn(batch.removeprefix(HEADER))
    lines = stream.splitlines(keepends=True)
    engine.feed(lines[:200])
    engine.save(tmp_path / "engine")
    with np.load(tmp_path / "engine") as archive:
        arrays = dict(archive)
    old = arrays["facts"].tobytes().replace(b"learned.local_outlier_factor:", b"learned:")
    assert len(old) < len(arrays["facts"])
    with (tmp_path / "old").open("wb") as file:
        np.savez(file, allow_pickle=False, **(arrays | {"facts": np.frombuffer(old, np.uint8)}))
    expected = [(one.seq, one.score, one.model) for one in engine.feed(lines[200:])]
    for given_ in (None, detector):
        loaded = peerwatch.Engine.load(tmp_path / "old", detector=given_)
        assert [(one.seq, one.score, one.model) for one in loaded.feed(lines[200:])] == expected


def test_amounts_are_exact_whatever_their_size() -> None:
    """As decimals; a mapping may hold one as well."""
    engine = peerwatch.Engine(1, 2)
    event = {"event_type": "purchase", "timestamp": "2020-01-01 00:00:00", "id": "a", "amount": "7e200"}
    (decision,) = engine.feed(event)
    assert decision.amount == 7 * Decimal(10) ** 200
    assert (decision.mean, decision.sd, decision.window_size, decision.network_size) == (None, None, 0, 0)
    assert decision.timestamp.isoformat() == "2020-01-01T00:00:00+00:00"
    engine.feed([befriend(1, "a"), b'{"event_type":"purchase","timestamp":"2020-01-01 00:00:00","id":1,"amount":0.5}'])
    (exact,) = engine.feed(event | {"id": 1, "amount": Decimal("0.10")})
    assert (exact.amount, exact.mean) == (Decimal("0.1"), Decimal("7e200"))


def test_judge_is_lazy() -> None:
    """A decision is there when its line has been taken and not one more."""
    taken = []

    def stream() -> Iterator[bytes]:
        for number in range(5):
            taken.append(number)
            yield purchase(1, str(number))

    decisions = peerwatch.judge(None, stream(), D=1, T=2, lines=1)
    assert taken == []
    assert next(decisions).amount == 0
    assert taken == [0]


async def test_the_async_form_says_the_same() -> None:
    """Over a file, and over lines that come one by one in the event loop."""
    batch, stream = some_logs(200)

    async def coming() -> AsyncIterator[bytes]:
        for line in stream.splitlines(keepends=True):
            await asyncio.sleep(0)
            yield line

    expected = [*peerwatch.judge(io.BytesIO(batch), io.BytesIO(stream))]
    assert [one async for one in peerwatch.judge_async(io.BytesIO(batch), io.BytesIO(stream))] == expected
    assert [one async for one in peerwatch.judge_async(io.BytesIO(batch), coming())] == expected
    assert len(expected) == 200


def test_decisions_become_tables() -> None:
    """With the columns of a decision, in pandas and in polars, and what has been taken before is not in them."""
    batch, stream = some_logs(100)
    expected = [*peerwatch.judge(io.BytesIO(batch), io.BytesIO(stream))]
    decisions = peerwatch.judge(io.BytesIO(batch), io.BytesIO(stream))
    next(decisions)
    frame = decisions.to_pandas()
    assert [*frame.columns] == [*peerwatch.Decision._fields]
    assert frame["amount"].tolist() == [float(one.amount) for one in expected[1:]]
    assert frame["timestamp"].dt.tz is not None
    other = peerwatch.judge(io.BytesIO(batch), io.BytesIO(stream)).to_polars()
    assert other.columns == [*peerwatch.Decision._fields]
    assert other["flagged"].to_list() == [one.flagged for one in expected]
    assert peerwatch.judge(None, [], D=1, T=2).to_pandas().empty


NOTEBOOK = """
import asyncio, json, sys, peerwatch

async def cell():
    paths, line = ("batch", "stream"), int(sys.argv[1])
    explained = peerwatch.explain(*paths, line=line)
    scored = peerwatch.explain(*paths, line=line, detector=peerwatch.detector("mad", k=2.0))
    swept = peerwatch.sweep(*paths, D=[1, 2], k=[3, 2.5])
    print(json.dumps([explained.seq, explained.mean, explained.sd, scored.verdict, swept.settings[3].flagged]))

asyncio.run(cell())
"""


def test_explain_and_sweep_work_inside_an_event_loop(tmp_path: Path) -> None:
    """As in a notebook; they say what the decision and the commands say."""
    batch, stream = some_logs()
    for name, log in (("batch", batch), ("stream", stream)):
        (tmp_path / name).write_bytes(log)
    decisions = [*peerwatch.judge(tmp_path / "batch", tmp_path / "stream")]
    flagged = [one for one in decisions if one.flagged]
    command = [sys.executable, "-c", NOTEBOOK, str(flagged[0].line)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [
        flagged[0].seq, str(flagged[0].mean), str(flagged[0].sd), "flagged", len(flagged)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: peerwatch.judge("nowhere", "s"), "cannot read the log nowhere: No such file or directory"),
        (lambda: peerwatch.judge(None, []), "there is no batch log to name D; give D"),
        (lambda: peerwatch.judge([b"{}"], [], D=1), 'the log has no header with "T"; give T'),
        (lambda: peerwatch.Engine(0, 5), "D is 0; expected a whole number, at least 1"),
        (lambda: peerwatch.Engine(1, 5, k=float("nan")), "k is nan; expected a number from 0 to 1,000,000"),
        (lambda: peerwatch.Engine(cast("Any", "1"), 5), "D is '1'; expected a whole number, at least 1"),
        (lambda: peerwatch.Engine(1, 5, k=cast("Any", "3")), "k is '3'; expected a number from 0 to 1,000,000"),
        (lambda: peerwatch.Engine(1, 5, quarantine=cast("Any", "no")), "quarantine is 'no'; expected True or False"),
        (lambda: peerwatch.judge(None, [], D=1, T=5, detector="madd"), 'there is no detector "madd"'),
        (lambda: peerwatch.judge(None, [], D=1, T=5, k=9, detector="mad"), "give a detector its own"),
        (lambda: peerwatch.sweep(None, "s", k=[-1]), "k is -1; expected a number from 0 to 1,000,000"),
        (lambda: peerwatch.sweep(None, "s", k=[float("nan")]), "k is nan; expected a number from 0"),
        (lambda: peerwatch.sweep(None, "s", D=[1], T=[1]), "T is 1; expected a whole number, at least 2"),
        (lambda: peerwatch.Engine(1, 5).feed(cast("Any", 5)), "events are lines (str or bytes) or mappings"),
        (lambda: peerwatch.Engine(1, 5).save("no/engine"), "cannot write no/engine: the directory no does not exist"),
        (lambda: peerwatch.Engine(1, 5).save("."), "cannot write .: it is a directory; name a file in it"),
        (lambda: peerwatch.Engine(1, 5, training_rows=9, training_every=8), "expected 2 <= rows <= every"),
        (lambda: peerwatch.Engine(1, 5).feed(cast("Any", [None])), "or a mapping; got NoneType"),
        (lambda: peerwatch.Engine(1, 5).feed({"id": object()}), "cannot be written as JSON"),
        (lambda: peerwatch.detector("madd"), 'there is no detector "madd"'),
        (lambda: peerwatch.Engine.load("nowhere"), "cannot read the engine nowhere: No such file or directory"),
        (lambda: peerwatch.Engine.load(__file__), "is not a saved engine, or is damaged"),
    ],
)  # fmt: skip
def test_mistakes_are_told(call: Callable[[], Any], message: str) -> None:
    """In one sentence that says what to do."""
    with pytest.raises(peerwatch.PeerwatchError) as told:
        call()
    assert message in str(told.value)


def test_what_is_public_is_listed() -> None:
    """`__all__` and `dir` say the same, each name is there, and importing peerwatch imports nothing heavy."""
    assert dir(peerwatch) == sorted(peerwatch.__all__)
    for name in peerwatch.__all__:
        assert getattr(peerwatch, name) is not None
    with pytest.raises(AttributeError):
        _ = peerwatch.Judge
    for run, modules in (
        ("", {"numpy", "msgspec", "anyio", "pandas", "polars"}),
        (
            "[*peerwatch.judge(None, [], D=1, T=2)]",
            {"pandas", "polars", "pyarrow", "sklearn", "river", "click"},
        ),
    ):
        code = f"import sys, peerwatch\n{run}\nprint({modules} & {{*sys.modules}})"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout == "set()\n"

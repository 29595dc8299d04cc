"""Explanations: every field as an independent recomputation has it, from checkpoints as from the beginning."""

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import anyio
import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive_explanation import Bought, World, comparable, events_of, explained
from strategies import NOISE, examples, purchases, ties
from support import befriend, purchase

from peerwatch.actors import dispatcher
from peerwatch.cli.main import cli
from peerwatch.files.log_file import LogFile
from peerwatch.replay import explain
from peerwatch.settings.model import Layer

TIES = b"".join(befriend(a, b) for a, b in ((1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (7, "anna")))
"""Friendships to begin with: random ones alone seldom make networks in which much is bought."""
BUSY = st.lists(st.one_of(purchases(), purchases(), purchases(), ties(), NOISE), min_size=12, max_size=40).map(
    lambda lines: b"".join(line + b"\n" for line in lines)
)
SHARED = Path(__file__).parents[3] / "shared"
HEADER = b'{"D":"2", "T":"3"}\n'


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def layer(batch: Path | None, stream: Path, D: int, T: int, k: str, state: Path | None = None, **more: Any) -> Layer:
    """Settings for a replay."""
    values = {"input.stream": str(stream), "D": D, "T": T, "detector.k": float(k), **more}
    values |= {"input.batch": str(batch)} if batch is not None else {}
    values |= {"state.directory": str(state)} if state is not None else {}
    return Layer(values, dict.fromkeys(values, "test"))


def record_of(settings: Layer, **named: Any) -> dict[str, Any]:
    """The explanation as `--json` has it."""

    async def ask() -> explain.ExplanationRecord:
        return await explain.explained([settings], **named)

    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(anyio.run(ask)))
    return found


class Read(NamedTuple):
    """An event of the logs, and its line."""

    seq: int
    path: Path
    line: int
    text: bytes
    event: tuple[Any, ...]


def read(batch: Path, stream: Path) -> list[Read]:
    """The events of both logs."""
    found = ((path, *event) for path in (batch, stream) for event in events_of(path.read_bytes()))
    return [Read(seq, *event) for seq, event in enumerate(found, 1)]


def worlds(
    events: Iterable[Read], stream: Path, *, directed: bool = False, judge_batch: bool = False
) -> Iterator[tuple[World, Bought]]:
    """Each judged purchase with the world before it."""
    world = World(directed=directed)
    for seq, path, line, _, event in events:
        if event[0] == "purchase" and (path == stream or judge_batch):
            yield world, Bought(event[1], seq, event[2], event[3], str(path), line)
        world.apply(event, seq, str(path), line)


@settings(max_examples=examples(100))
@given(
    batch=BUSY, stream=BUSY, D=st.integers(1, 3), T=st.integers(2, 5), k=st.sampled_from(["3", "0", "0.5", "1.25"]),
    directed=st.booleans(), judge_batch=st.booleans(),
)  # fmt: skip
def test_every_field_is_that_of_a_plain_recomputation(
    batch: bytes, stream: bytes, D: int, T: int, k: str, *, directed: bool, judge_batch: bool
) -> None:
    """Whatever the logs hold: late arrivals, ties, huge amounts, rejected lines, friendships that end."""
    kind: dict[str, Any] = {"friendships": "directed" if directed else "mutual", "judge_batch": judge_batch}
    with tempfile.TemporaryDirectory() as name:
        paths = Path(name) / "batch", Path(name) / "stream"
        for path, content in zip(paths, (TIES + batch, stream), strict=True):
            path.write_bytes(content)
        judged = worlds(read(*paths), paths[1], directed=directed, judge_batch=judge_batch)
        for number, (world, this) in enumerate(judged):
            if number % 4 == 1:
                by_seq = number % 8 == 1 or this.file == str(paths[0])
                way = {"seq": this.seq} if by_seq else {"line": this.line}
                record = record_of(layer(*paths, D, T, k, **kind), **way)
                expected = explained(world, this, D, T, Fraction(k))
                assert comparable(record, directed=directed) == comparable(expected, directed=directed)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(batch=BUSY, stream=BUSY, more=BUSY)
def test_a_checkpoint_and_its_marks_give_the_same_explanation(
    batch: bytes, stream: bytes, more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where purchases before the checkpoint stand is counted from the marks where every line is an event."""
    monkeypatch.setattr(dispatcher, "MARK_EVENTS", 2)
    monkeypatch.setitem(LogFile.__init__.__kwdefaults__, "chunk", 100)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as name:
        paths = Path(name) / "batch", Path(name) / "stream"
        for path, content in zip(paths, (TIES + batch, stream), strict=True):
            path.write_bytes(content)
        files = [*map(str, paths), str(Path(name) / "flagged")]
        state = Path(name) / "state"
        run = peerwatch("run", *files, "--D", "2", "--T", "4", "--state", str(state))
        assert run.exit_code == 0, run.stderr
        before = max((this.seq for _, this in worlds(read(*paths), paths[1])), default=0)
        with paths[1].open("ab") as file:
            file.write(more)
        later = [this.seq for _, this in worlds(read(*paths), paths[1]) if this.seq > before]
        for seq in later[:3]:
            fresh = record_of(layer(*paths, 2, 4, "3"), seq=seq)
            assert record_of(layer(*paths, 2, 4, "3", state), seq=seq) == fresh


def test_rejected_lines_between_marks_are_not_counted_as_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other line is no event: the lines of purchases before the checkpoint are read, not counted."""
    monkeypatch.setattr(dispatcher, "MARK_EVENTS", 2)
    monkeypatch.setitem(LogFile.__init__.__kwdefaults__, "chunk", 100)  # type: ignore[arg-type]
    paths = tmp_path / "batch", tmp_path / "stream"
    paths[0].write_bytes(befriend(1, 2) + b"".join(purchase(2, str(i)) + b"none\n" for i in range(1, 9)))
    paths[1].write_bytes(purchase(3, "1") + b"none\n")
    files = [*map(str, paths), str(tmp_path / "flagged")]
    state = tmp_path / "state"
    assert peerwatch("run", *files, "--D", "2", "--T", "4", "--state", str(state)).exit_code == 0
    with paths[1].open("ab") as file:
        file.write(purchase(1, "100"))
    record = record_of(layer(*paths, 2, 4, "3", state), seq=11)
    assert [bought["line"] for bought in record["window"]] == [16, 14, 12, 10]


@pytest.fixture(scope="module")
def real_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the woven logs and the state directory of a run that kept all its checkpoints."""
    if not (SHARED / "real_case.py").exists():
        pytest.skip(f"the real data are not here: no {SHARED / 'real_case.py'}")
    directory = tmp_path_factory.mktemp("real")
    data = [str(SHARED / "data" / name) for name in ("facebook_friendships.txt", "cdnow_purchases.txt")]
    subprocess.run([sys.executable, str(SHARED / "real_case.py"), *data, str(directory), "2", "50", "1"], check=True)
    config = directory / "config.yaml"
    config.write_text(f"state:\n  directory: {directory / 'state'}\n  events: 5000\n  keep: 100\n")
    files = [str(directory / name) for name in ("batch_log.json", "stream_log.json", "flagged.json")]
    assert peerwatch("run", "--config", str(config), *files).exit_code == 0
    return directory


@pytest.mark.slow
def test_random_decisions_of_the_real_case(real_case: Path) -> None:
    """100 of the flagged ones, 100 of all; from the nearest checkpoint, one in ten from the beginning.

    So many in the profile `full`.
    """
    count = examples(100)
    batch, stream = real_case / "batch_log.json", real_case / "stream_log.json"
    flagged = {line.rpartition(b', "mean"')[0] for line in (real_case / "flagged.json").read_bytes().splitlines()}
    random = Random(1)
    events = read(batch, stream)
    purchases = [(each.seq, each.text) for each in events if each.path == stream and each.event[0] == "purchase"]
    anomalous = [seq for seq, text in purchases if text.removesuffix(b"}") in flagged]
    chosen = {*random.sample(anomalous, count)}
    chosen |= {*random.sample([seq for seq, _ in purchases if seq not in chosen], count)}
    compared = 0
    for world, this in worlds(events, stream):
        if this.seq not in chosen:
            continue
        compared += 1
        state = real_case / "state" if compared % 10 else None
        record = record_of(layer(batch, stream, 2, 50, "3", state), seq=this.seq)
        assert comparable(record) == comparable(explained(world, this, 2, 50, Fraction(3)))
        assert (record["verdict"] == "flagged") == (this.seq in anomalous)
    assert compared == 2 * count

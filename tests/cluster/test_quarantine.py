"""Quarantine on a cluster: whatever happens to workers, what is kept out and released is as in one process."""

import shutil
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cluster import (
    BATCH,
    QUARANTINE,
    STREAM,
    DriverKilled,
    Fault,
    MemoryEngine,
    layer,
    run_on,
    run_with,
    written,
)
from naive_quarantine import heard_in, judge_with_quarantine
from strategies import COMMANDS, examples

from peerwatch.runtime.pipeline import Totals
from peerwatch.storage.feedback import FeedbackEntry, append_feedback

LINES = STREAM.splitlines(keepends=True)
D, T, K = 2, 5, Fraction(2)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the logs, for one run after the other."""
    return tmp_path_factory.mktemp("quarantine")


def forget(directory: Path) -> None:
    """Remove what the last runs have written."""
    for old in (*directory.glob("alone*"), *directory.glob("there*")):
        shutil.rmtree(old) if old.is_dir() else old.unlink()


def run_through(directory: Path, engine: MemoryEngine, **values: Any) -> Totals:
    """Run on a cluster, again after each death of the run itself."""
    while True:
        try:
            return run_on(engine, layer(directory, "there", **QUARANTINE, **values)).totals
        except DriverKilled:
            continue


def label(directory: Path) -> None:
    """Label the latest flagged purchases, all but one as normal."""
    flagged = (directory / "there").read_bytes().splitlines()
    lines = [LINES.index(line.rpartition(b', "mean"')[0] + b"}\n") + 1 for line in flagged[-4:]]
    entries = [
        FeedbackEntry(line=line, label="normal" if place != 1 else "anomaly") for place, line in enumerate(lines)
    ]
    if entries:
        append_feedback(directory / "there.state", entries)


def in_pieces(directory: Path, cuts: list[int], faults: Mapping[int, Fault], **values: Any) -> MemoryEngine:
    """A run that is stopped and started anew while its log grows, with labels in between, is as the reference says."""
    forget(directory)
    engine = MemoryEngine(faults)
    for end in (*sorted({*cuts}), len(LINES)):
        (directory / "growing").write_bytes(b"".join(LINES[:end]))
        run_through(directory, engine, **{"input.stream": str(directory / "growing")}, **values)
        label(directory)
    heard = heard_in(directory / "there.state")
    assert (directory / "there").read_bytes() == judge_with_quarantine(BATCH, STREAM, D, T, K, heard)
    assert len(heard) == len({*cuts})
    return engine


@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_labels_and_lost_workers_change_nothing_but_what_is_released(directory: Path, workers: int) -> None:
    """With any number of workers; some are lost or frozen, some reply late, and once the run itself dies."""
    faults = {9: Fault.LOST_AFTER, 15: Fault.FROZEN, 20: Fault.LATE, 26: Fault.DRIVER_KILLED, 33: Fault.LOST_BEFORE}
    engine = in_pieces(directory, [150, 300], faults, cluster__workers=workers)
    assert engine.calls > 33
    forget(directory)
    alone = run_with(layer(directory, "alone", **QUARANTINE)).totals
    assert alone.flagged >= 10
    assert run_through(directory, MemoryEngine(faults), cluster__workers=workers) == alone
    assert written(directory, "there") == written(directory, "alone")


@settings(COMMANDS, max_examples=examples(40))
@given(
    st.lists(st.integers(60, len(LINES) - 10), max_size=3),
    st.dictionaries(st.integers(0, 100), st.sampled_from(Fault), max_size=12),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 3),
)
@pytest.mark.slow
def test_several_faults(directory: Path, cuts: list[int], faults: dict[int, Fault], workers: int, shards: int) -> None:
    """In a row, in all slots, while batches are replayed, and while checkpoints are taken, with labels on the way."""
    in_pieces(directory, cuts, faults, cluster__workers=workers, shards=shards)


@pytest.mark.parametrize(
    "values",
    [pytest.param({"friendships": "directed"}, marks=pytest.mark.slow), {"judge_batch": True, "audit": 1.0}],
)
def test_other_settings_go_with_it(directory: Path, values: dict[str, Any]) -> None:
    """Friendships in one direction, the batch log judged as well, and an audit: all is written as in one process."""
    forget(directory)
    alone = run_with(layer(directory, "alone", **QUARANTINE, **values)).totals
    assert run_through(directory, MemoryEngine({9: Fault.LOST_AFTER}), **values) == alone
    assert written(directory, "there") == written(directory, "alone")
    assert alone.recomputed == (alone.decisions if "audit" in values else 0)
    assert alone.differences == 0


@pytest.mark.slow
def test_a_cluster_and_one_process_go_on_from_each_other(directory: Path) -> None:
    """A checkpoint of a run on a cluster has the quarantine and all purchases, of however many shards."""
    forget(directory)
    for place, end in enumerate(range(100, len(LINES) + 1, 50)):
        (directory / "growing").write_bytes(b"".join(LINES[:end]))
        values = {"input.stream": str(directory / "growing"), "shards": 1 + place % 3}
        if place % 2:
            run_with(layer(directory, "there", **QUARANTINE, **values))
        else:
            run_through(directory, MemoryEngine(), **values)
        label(directory)
    heard = heard_in(directory / "there.state")
    assert len(heard) >= 5
    assert (directory / "there").read_bytes() == judge_with_quarantine(BATCH, STREAM, D, T, K, heard)

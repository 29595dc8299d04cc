"""Explanations made behind a run are those that a replay makes."""

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import NOISE, examples, purchases, ties
from support import befriend, purchase

from peerwatch import api
from peerwatch.errors import BadInput, RunError
from peerwatch.files.log_file import LogFile
from peerwatch.replay.explain import ExplanationRecord, explained
from peerwatch.replay.follow_flagged import FlaggedEvent, JudgedThrough, follow_flagged
from peerwatch.settings.model import Layer

TIES = b"".join(befriend(a, b) for a, b in ((1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (7, "anna")))
BUSY = st.lists(st.one_of(purchases(), purchases(), purchases(), ties(), NOISE), min_size=12, max_size=40).map(
    lambda lines: b"".join(line + b"\n" for line in lines)
)


def layers_of(directory: Path, **values: Any) -> list[Layer]:
    """Settings for the logs in a directory."""
    values = {"input.batch": str(directory / "batch"), "input.stream": str(directory / "stream"), **values}
    return [Layer(values, dict.fromkeys(values, "test"))]


async def followed(layers: list[Layer], messages: list[JudgedThrough], first: int = 1) -> dict[int, ExplanationRecord]:
    """The explanations that a follower makes which is told these messages."""
    found: dict[int, ExplanationRecord] = {}
    left = iter(messages)

    async def judged() -> JudgedThrough:
        return next(left)

    async def take(seq: int, record: ExplanationRecord) -> None:
        found[seq] = record

    await follow_flagged(layers, "", first, judged, take)
    return found


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    batch=BUSY, stream=BUSY, k=st.sampled_from([0.0, 0.5, 3.0]), steps=st.lists(st.integers(1, 20), min_size=1),
    detector=st.sampled_from(["sigma", "mad"]), friendships=st.sampled_from(["mutual", "directed"]),
    judge_batch=st.booleans(),
)  # fmt: skip
def test_a_follower_explains_as_a_replay_does(
    batch: bytes, stream: bytes, k: float, steps: list[int], detector: str, friendships: Any,
    monkeypatch: pytest.MonkeyPatch, *, judge_batch: bool,
) -> None:  # fmt: skip
    """Whatever the logs hold, in however many blocks they are read, and however far apart it hears what was judged."""
    monkeypatch.setitem(LogFile.__init__.__kwdefaults__, "chunk", 300)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "batch").write_bytes(TIES + batch)
        (directory / "stream").write_bytes(stream)
        rule: dict[str, Any] = {"detector.k": k} if detector == "sigma" else {"detector.name": detector}
        both: dict[str, Any] = {"D": 2, "T": 4, "friendships": friendships, "judge_batch": judge_batch}
        layers = layers_of(directory, **both, **rule)
        rule_of_api = {"k": k} if detector == "sigma" else {"detector": api.detector(detector)}
        decisions = [*api.judge(directory / "batch", directory / "stream", **both, **rule_of_api)]
        flagged = [FlaggedEvent(one.seq, one.user) for one in decisions if one.flagged]
        bounds = np.cumsum([0, *steps, 1000]).tolist()
        messages = [
            JudgedThrough(end, [one for one in flagged if begin < one.seq <= end]) for begin, end in pairwise(bounds)
        ]
        found = anyio.run(followed, layers, messages)
        assert [*found] == [one.seq for one in flagged]
        for seq, record in found.items():

            async def again(seq: int = seq) -> ExplanationRecord:
                return await explained(layers, seq=seq)

            assert msgspec.to_builtins(record) == msgspec.to_builtins(anyio.run(again))


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A directory with logs of which event 8 is flagged."""
    (tmp_path / "batch").write_bytes(befriend(1, 2) + purchase(1, "10") * 3 + purchase(1, "11") * 3)
    (tmp_path / "stream").write_bytes(purchase(2, "900") + purchase(1, "10"))
    return tmp_path


@pytest.mark.parametrize("flagged", [(8, "1"), (9, "1"), (1, "1"), (2, "1")])
async def test_a_lost_place_is_noticed(logs: Path, flagged: tuple[int, str]) -> None:
    """An event that is another buyer's, was not flagged, is a friendship or was not judged: never a wrong answer."""
    with pytest.raises(RunError, match="the place in the logs is lost"):
        await followed(layers_of(logs, D=2, T=10), [JudgedThrough(9, [FlaggedEvent(*flagged)])])


async def test_an_event_that_was_passed_is_noticed(logs: Path) -> None:
    """It was named too late; the service begins again before it."""
    messages = [JudgedThrough(8, []), JudgedThrough(9, [FlaggedEvent(8, "2")])]
    with pytest.raises(RunError, match="event 8 has been passed already"):
        await followed(layers_of(logs, D=2, T=10), messages)


async def test_what_was_learned_is_left_to_replay(logs: Path) -> None:
    """A detector that learns or adapts decides by all that came before."""
    for rule in ({"detector.name": "isolation_forest"}, {"detector.name": "mad", "detector.adapt.flag_rate": 0.1}):
        with pytest.raises(BadInput, match="decides by what it has learned or adapted to so far"):
            await followed(layers_of(logs, D=2, T=10, **rule), [])

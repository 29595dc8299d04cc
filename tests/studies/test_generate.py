"""Synthetic logs: seeded, well formed, with the shares asked for."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from peerwatch.cli.main import cli
from peerwatch.network.decoder import Decoder
from peerwatch.studies.generate import Recipe, generate


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Another seed gives others; nothing is overwritten without being asked to."""
    arguments = ["--users", "50", "--batch-events", "400", "--stream-events", "100", "--mean-degree", "4"]
    contents = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert CliRunner().invoke(cli, ["generate", str(tmp_path / name), "--seed", seed, *arguments]).exit_code == 0
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1] != contents[2]
    again = CliRunner().invoke(cli, ["generate", str(tmp_path / "a"), *arguments])
    assert again.exit_code == 2
    assert again.stderr.endswith("labels.json already exists; name another directory or add --force\n")
    assert CliRunner().invoke(cli, ["generate", str(tmp_path / "a"), "--force", *arguments]).exit_code == 0


def test_the_shares_are_those_asked_for() -> None:
    """Events, degrees with a heavy tail, ties, friend events, anomalies and their labels."""
    recipe = Recipe(users=2000, batch_events=40_000, stream_events=20_000, friend_share=0.2, ties=0.3, anomalies=0.05)
    batch, stream, labels = generate(recipe)
    assert json.loads(batch[0]) == {"D": "2", "T": "50"}
    assert (len(batch), len(stream)) == (40_001, 20_000)
    events = [json.loads(line) for line in batch[1:]]
    ties = [event for event in events if event["event_type"] == "befriend"]
    assert len(ties) == 10_000
    degrees = np.bincount([int(event[key]) for event in ties for key in ("id1", "id2")])
    assert degrees.max() > 10 * degrees.mean()
    stamps = [event["timestamp"] for event in events]
    assert stamps == sorted(stamps)
    assert abs(np.mean([a == b for a, b in itertools.pairwise(stamps)]) - 0.3) < 0.02
    judged = [json.loads(line) for line in stream]
    assert abs(np.mean([event["event_type"] != "purchase" for event in judged]) - 0.2) < 0.02
    found = [json.loads(label) for label in labels]
    assert abs(len(found) / 16_000 - 0.05) < 0.01
    assert all(judged[label["line"] - 1]["id"] == label["id"] for label in found)


def test_every_line_is_an_event() -> None:
    """The decoder rejects nothing."""
    batch, stream, _ = generate(Recipe(users=30, batch_events=300, stream_events=300, friend_share=0.5, mean_degree=3))
    assert Decoder().decode("".join([*batch[1:], *stream]).encode(), 1).rejected == []


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(users=2, batch_events=0, stream_events=0, mean_degree=0),
        Recipe(users=2, batch_events=0, stream_events=50, mean_degree=0, friend_share=1),
    ],
)
def test_the_smallest_recipes_work(recipe: Recipe) -> None:
    """Nothing at all, or nothing but friend events without a friendship to end."""
    batch, stream, _ = generate(recipe)
    assert len(batch) == 1
    assert Decoder().decode("".join(stream).encode(), 1).rejected == []

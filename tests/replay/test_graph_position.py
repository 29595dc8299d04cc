"""The buyer's place in the friend graph, beside the verdict on the purchase."""

import itertools
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import befriend, purchase

from peerwatch.cli.main import cli

OLD, NEW = "2017-06-01 12:00:00", "2017-06-13 11:00:00"


@pytest.fixture
def logs(tmp_path: Path) -> list[str]:
    """A chain of 300 users who know the two before them, a ring of 12, and one who found 15 friends today."""
    batch = [befriend(a, b, stamp=OLD) for a in range(300) for b in range(max(a - 2, 0), a)]
    batch += [befriend(f"r{a}", f"r{b}", stamp=OLD) for a, b in itertools.combinations(range(12), 2)]
    batch += [befriend("hub", 299, stamp=OLD), befriend("hub", 298, stamp=OLD)]
    stream = [befriend("hub", 10 * friend, stamp=NEW) for friend in range(15)]
    stream += [befriend("hub", 0, "unfriend", stamp=NEW), purchase("hub", "5.00"), purchase("r3", "5.00")]
    stream += [purchase(7, "5.00"), befriend("hub", 1), purchase("stranger", "5.00")]
    (tmp_path / "batch.json").write_bytes(b'{"D":"2", "T":"3"}\n' + b"".join(batch))
    (tmp_path / "stream.json").write_bytes(b"".join(stream))
    return [str(tmp_path / "batch.json"), str(tmp_path / "stream.json")]


def explained(*arguments: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(cli, ["explain", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("line", "friends", "friendships", "new", "unusual"),
    [
        (17, 16, 17, 14, ["star", "sudden hub"]),
        (18, 11, 66, 0, ["dense ring"]),
        (19, 4, 7, 0, []),
        (21, 0, 0, 0, []),
    ],
)
def test_rings_stars_and_sudden_hubs_are_told(
    logs: list[str], line: int, friends: int, friendships: int, new: int, unusual: list[str]
) -> None:
    """As the graph was before the purchase: who has been lost does not count, nor who comes later."""
    found = json.loads(explained(*logs, "--line", str(line), "--graph", "--json"))["graph"]
    assert (found["friends"], found["friendships"], found["new_friends"]) == (friends, friendships, new)
    assert found["unusual"] == unusual
    assert found["community"]["friends"] <= friends


def test_it_stands_beside_the_verdict_where_it_is_asked_for(logs: list[str]) -> None:
    """As text and as JSON; without the option the explanation is as it was."""
    text = explained(*logs, "--line", "18", "--graph")
    assert "graph      DENSE RING: 11 friends, 66 friendships with and among them, where " in text
    assert "community" in text
    assert "community" not in explained(*logs, "--line", "18")
    assert "graph" not in json.loads(explained(*logs, "--line", "18", "--json"))


def test_directed_friendships_have_no_circles(tmp_path: Path) -> None:
    """They are refused with the reason."""
    log = tmp_path / "stream.json"
    log.write_bytes(befriend(1, 2) + purchase(1, "5.00"))
    windows = ["--D", "2", "--T", "3", "--friendships", "directed"]
    result = CliRunner().invoke(cli, ["explain", str(log), *windows, "--line", "2", "--graph"])
    assert result.exit_code == 2
    assert "--graph compares circles of mutual friends; these friendships are directed" in result.output

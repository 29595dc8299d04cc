"""What a friendship or a user takes part in: as networks, windows and verdicts without it show."""

import json
import tempfile
from collections.abc import Iterable
from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_explanation import Bought, World, decimal, events_of, order
from naive_windows import flags, limit_of, window_of
from strategies import COMMANDS, examples, logs
from support import befriend, purchase

from peerwatch.cli.main import cli
from peerwatch.studies import radius

Friendship = tuple[str, str]


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def world_of(batch: bytes, stream: bytes, through: int, *, directed: bool) -> World:
    """The state after so many events."""
    world, seq = World(directed=directed), 0
    for file, content in (("batch", batch), ("stream", stream)):
        for line, _, event in events_of(content):
            seq += 1
            if seq <= through:
                world.apply(event, seq, file, line)
    return world


def friendships(world: World) -> list[Friendship]:
    """Each friendship once."""
    every = ((a, b) for a, friends in world.friends.items() for b in friends)
    return sorted((a, b) for a, b in every if world.directed or order(a) < order(b))


def parted(world: World, edges: Iterable[Friendship]) -> World:
    """The state without some friendships."""
    other = deepcopy(world)
    for a, b in edges:
        other.friends[a].discard(b)
        if not world.directed:
            other.friends[b].discard(a)
    return other


def concerned(world: World, other: World, user: str, D: int, T: int, k: Fraction) -> dict[str, Any]:
    """What is another than it was for one user."""
    windows = [window_of(each, user, D, T) for each in (world, other)]
    seqs = [{one.seq for one in window} for window in windows]
    networks = [world.hops(user, D).keys(), other.hops(user, D).keys()]
    own: Bought | None = max((one for one in world.purchases if one.user == user), default=None)
    verdicts: list[str | None] = [None, None]
    if own is not None:
        verdicts = ["flagged" if flags(window, own.amount, k) else "normal" for window in windows]
    return {
        "user": user, "network_size": len(networks[0]), "lost": sorted(networks[0] - networks[1], key=order),
        "purchases_lost": sorted(seqs[0] - seqs[1]), "purchases_gained": sorted(seqs[1] - seqs[0]),
        "limit": limit_of(windows[0], k), "limit_without": limit_of(windows[1], k),
        "latest": own.seq if own is not None else None, "amount": decimal(own.amount) if own is not None else None,
        "verdict": verdicts[0], "verdict_without": verdicts[1],
    }  # fmt: skip


def without(
    world: World, edges: list[Friendship], left_out: str | None, D: int, T: int, k: Fraction
) -> list[dict[str, Any]]:
    """Everybody whose network is smaller, the most concerned first."""
    other = parted(world, edges)
    found = [concerned(world, other, user, D, T, k) for user in world.friends if user != left_out]
    found = [one for one in found if one["lost"]]
    return sorted(found, key=lambda one: (
        one["verdict"] == one["verdict_without"], not one["purchases_lost"], order(one["user"]),
    ))  # fmt: skip


def counts(users: list[dict[str, Any]]) -> tuple[int, int, int]:
    """How many networks, windows and verdicts are others."""
    windows = sum(1 for one in users if one["purchases_lost"])
    return len(users), windows, sum(one["verdict"] != one["verdict_without"] for one in users)


@settings(COMMANDS, max_examples=examples(60))
@given(
    batch=logs(),
    stream=logs(max_size=80),
    D=st.integers(1, 4),
    T=st.integers(2, 6),
    k=st.sampled_from(["0", "0.5", "1.1", "3"]),
    at=st.integers(1, 120),
    place=st.integers(0, 1000),
    directed=st.booleans(),
    narrow=st.booleans(),
)
def test_everything_is_as_a_state_without_it_shows(
    batch: bytes, stream: bytes, D: int, T: int, k: str, at: int, place: int, directed: bool, narrow: bool
) -> None:
    """Messy logs, any moment: a friendship, a user, and the order of all bridges, in every field.

    With as much room for windows as usual, or with hardly any (`narrow`).
    """
    events = sum(1 for content in (batch, stream) for _ in events_of(content))
    world = world_of(batch, stream, at, directed=directed)
    edges, factor = friendships(world), Fraction(k)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.chdir(name)
        if narrow:
            patch.setattr(radius, "AT_ONCE", 1)
            patch.setattr(radius, "DEEPER", 1)
        Path("batch").write_bytes(batch)
        Path("stream").write_bytes(stream)
        options = ["batch", "stream", "--D", str(D), "--T", str(T), "--k", k, "--json"]
        options += ["--at", str(at)] if at < events else []
        options += ["--friendships", "directed"] if directed else []

        def asked(*more: str) -> dict[str, Any]:
            result = peerwatch("radius", *options, *more)
            assert result.exit_code == 0, result.output
            found: dict[str, Any] = json.loads(result.stdout)
            return found

        bridges = asked("--top", "1000")
        if edges:
            a, b = edges[place % len(edges)]
            named = (a, b) if directed else (b, a)
            found = asked("--edge", *named)
            assert found["users"] == without(world, [(a, b)], None, D, T, factor)
            assert (found["networks"], found["windows"], found["verdicts"]) == counts(found["users"])
            assert (found["seq"], found["friendship"], found["user"]) == (min(at, events), [*named], None)
            users = {*world.friends, *(one for friends in world.friends.values() for one in friends)}
            ends = {a} if directed else {a, b}
            assert found["near"] == sum(1 for one in users if ends & {one, *world.hops(one, D - 1)})
            user = asked("--user", a)
            own = [edge for edge in edges if a in edge]
            assert user["users"] == without(world, own, a, D, T, factor)
            assert user["near"] == sum(1 for one in users if a in world.hops(one, D))
    assert bridges["friendships"] == len(edges)
    every = {edge: counts(without(world, [edge], None, D, T, factor)) for edge in edges}
    ranked = sorted((edge for edge in edges if every[edge][1]), key=lambda edge: (
        -every[edge][2], -every[edge][1], [*map(order, edge)] if directed else sorted(map(order, edge)),
    ))  # fmt: skip
    assert [tuple(one["friendship"]) for one in bridges["bridges"]] == ranked
    assert [(one["networks"], one["windows"], one["verdicts"]) for one in bridges["bridges"]] == [
        every[edge] for edge in ranked
    ]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with logs in which two circles have one friendship between them."""
    circles = b"".join(befriend(a, b) for base in (0, 3) for a, b in ((base + 1, base + 2), (base + 2, base + 3)))
    bought = b"".join(purchase(user, f"{10 * user + i}") for i in range(3) for user in range(1, 7))
    (tmp_path / "batch").write_bytes(b'{"D":"2", "T":"5"}\n' + circles + befriend(3, 4) + bought)
    (tmp_path / "stream").write_bytes(purchase(1, "11") + befriend(1, 2, "unfriend") + purchase(5, "900"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tables_say_who_is_concerned(directory: Path) -> None:
    """For a friendship, for a user, and the friendships that matter most; at a moment or at the end."""
    text = peerwatch("radius", "batch", "stream", "--edge", "3", "4").stdout
    assert "the friendship of 3 with 4, as of event 26 (D=2, T=5, k=3)" in text
    assert "networks   4 would be smaller, of 4 within reach" in text
    then = peerwatch("radius", "batch", "stream", "--user", "3", "--at", "23").stdout
    assert "user 3, as of event 23" in then
    assert "and 2 more" in peerwatch("radius", "batch", "stream", "--user", "3", "--at", "23", "--top", "2").stdout
    bridges = peerwatch("radius", "batch", "stream", "--top", "3").stdout
    assert "4 friendships; without one of these" in bridges
    assert len(bridges.splitlines()) == 7
    assert directory.exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--edge", "1", "2"], "user 2 is not a friend of user 1 as of event 26"),
        (["--edge", "1", "nobody"], "user nobody does not exist as of event 26"),
        (["--user", "nobody"], "user nobody does not exist as of event 26"),
        (["--user", "1", "--edge", "1", "2"], "name one: --edge A B, --user ID, or neither"),
        (["--user", "1", "--at", "99"], "there is no event 99: the logs end with event 26"),
        (["--config", "other.yaml"], "radius works with the detector sigma only, not with mad"),
    ],
)
def test_what_cannot_be_answered_is_told(directory: Path, options: list[str], sentence: str) -> None:
    """In one sentence, with exit code 2."""
    (directory / "other.yaml").write_text("detector: {name: mad}\n")
    result = peerwatch("radius", "batch", "stream", *options)
    assert (result.exit_code, sentence in result.stderr) == (2, True), result.stderr

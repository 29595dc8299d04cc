"""Directed friendships: befriending makes id2 a friend of id1 alone, in everything that knows friends."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from reference import judge, network_of
from support import befriend, purchase

import peerwatch as api
from peerwatch.cli.main import cli
from peerwatch.errors import BadInput
from peerwatch.studies.generate import Recipe, generate

RECIPE = Recipe(
    users=60, batch_events=500, stream_events=500, mean_degree=4, friend_share=0.3, friendships="directed", D=3, T=6,
    anomalies=0.05,
)  # fmt: skip
BATCH, STREAM = ("".join(log).encode() for log in generate(RECIPE)[:2])
EVENTS = BATCH.partition(b"\n")[2]
EXPECTED = judge(EVENTS, STREAM, 3, 6, directed=True).flagged
MUTUAL = judge(EVENTS, STREAM, 3, 6).flagged


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with generated logs, whose header says that friendships are directed."""
    (tmp_path / "batch").write_bytes(BATCH)
    (tmp_path / "stream").write_bytes(STREAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def peerwatch(*arguments: str, code: int = 0) -> Result:
    """Run the command in this process."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == code, result.output
    return result


def run(*options: str, code: int = 0) -> Result:
    """A run on the logs."""
    return peerwatch("run", "batch", "stream", "out", *options, code=code)


def test_the_header_the_config_and_the_option_say_which(logs: Path) -> None:
    """The option beats the config, the config beats the header; without any of them friendships are mutual."""
    assert EXPECTED != MUTUAL
    summary = run().stderr
    assert (logs / "out").read_bytes() == EXPECTED
    assert " directed friendships in force at the end" in summary
    (logs / "c.yaml").write_text("friendships: mutual\n")
    run("-c", "c.yaml")
    assert (logs / "out").read_bytes() == MUTUAL
    run("-c", "c.yaml", "--friendships", "directed")
    assert (logs / "out").read_bytes() == EXPECTED
    (logs / "batch").write_bytes(EVENTS)
    run("--D", "3", "--T", "6")
    assert (logs / "out").read_bytes() == MUTUAL


@pytest.mark.parametrize(
    ("header", "config", "message"),
    [
        (', "friendships":"both"', "", 'batch:1: the header\'s "friendships" is "both"; expected mutual or directed'),
        ("", "friendships: one-way", "c.yaml:1: \"friendships\" is 'one-way'; expected one of mutual, directed"),
    ],
)
def test_another_kind_is_refused(logs: Path, header: str, config: str, message: str) -> None:
    """The sentence names the file, the line, the key and what is possible."""
    (logs / "batch").write_bytes(f'{{"D":1, "T":2{header}}}\n'.encode())
    (logs / "c.yaml").write_text(f"{config}\n")
    assert run("-c", "c.yaml", code=2).stderr == f"peerwatch: {message}\n"


def test_a_log_judged_in_pieces_gives_the_same_bytes(logs: Path) -> None:
    """From checkpoints, with other shards and walkers; each decision is recomputed, also from the logs before them."""
    lines = STREAM.splitlines(keepends=True)
    for number, end in enumerate((1, 100, 350, len(lines))):
        (logs / "stream").write_bytes(b"".join(lines[:end]))
        options = ("--shards", str(1 + number), "--walkers", str(1 + number % 2), "--audit", "1")
        assert "trusts" not in run("--state", "state", *options).stderr
    assert (logs / "out").read_bytes() == EXPECTED
    assert "every one as in out\n" in peerwatch("verify", "batch", "stream", "out", "--audit", "1").stdout
    (logs / "batch").unlink()  # what the header said is in the state
    (logs / "stream").write_bytes(STREAM + purchase(1, "1"))
    assert "trusts the checkpoint" in run("--state", "state", "--audit", "1").stderr
    assert (logs / "out").read_bytes() == EXPECTED


def test_a_checkpoint_of_the_other_kind_is_refused(logs: Path) -> None:
    """Friends of one kind mean nothing to the other; both ways out are named."""
    run("--state", "state")
    result = run("--state", "state", "--friendships", "mutual", code=2)
    assert result.stderr == (
        'peerwatch: --friendships: "friendships" is mutual, but the state in state was built with directed; go on with'
        " directed, or begin anew with --reset\n"
    )
    run("--state", "state", "--friendships", "mutual", "--reset")
    assert (logs / "out").read_bytes() == MUTUAL
    result = run("--state", "state", code=2)
    assert result.stderr == (
        'peerwatch: batch:1: "friendships" is directed, but the state in state was built with mutual; go on with'
        " mutual, or begin anew with --reset\n"
    )


def test_a_replay_takes_the_kind_from_the_state(logs: Path) -> None:
    """Explained and shown are the run's networks, with no option and no word in the header; an option asks what if."""
    (logs / "batch").write_bytes(BATCH.replace(b', "friendships":"directed"', b""))
    run("--state", "state", "--friendships", "directed", "--verdicts", "ledger")
    friends: dict[str, set[str]] = {}
    for line in (EVENTS + STREAM).splitlines():
        event = json.loads(line)
        if event["event_type"] == "befriend":
            friends.setdefault(event["id1"], set()).add(event["id2"])
        elif event["event_type"] == "unfriend":
            friends.get(event["id1"], set()).discard(event["id2"])
    seq = str(EVENTS.count(b"\n") + STREAM.count(b"\n"))
    for user in map(str, range(1, 9)):
        command = ("state", "--user", user, "batch", "stream", "--at", seq, "--json")
        shown = json.loads(peerwatch(*command, "--state", "state").stdout)
        assert set(shown["friends"]) == friends.get(user, set())
        assert {one["user"] for one in shown["network"]} == network_of(friends, user, 3)
    entries = [json.loads(line) for line in (logs / "ledger").read_bytes().splitlines()]
    flagged = [seq for entry in entries for seq, *_ in entry["flagged"]]
    for seq in map(str, flagged[::4]):
        explained = peerwatch("explain", "batch", "stream", "--state", "state", "--seq", seq, "--json")
        assert json.loads(explained.stdout)["verdict"] == "flagged"
        alone = peerwatch("explain", "batch", "stream", "--friendships", "directed", "--seq", seq, "--json").stdout
        assert alone == explained.stdout
        other = ("--state", "state", "--friendships", "mutual")
        what_if = peerwatch("explain", "batch", "stream", *other, "--seq", seq, "--json").stdout
        assert what_if == peerwatch("explain", "batch", "stream", "--seq", seq, "--json").stdout


def test_generated_friends_go_one_way(logs: Path) -> None:
    """As many friends each as asked for, by befriendings that count for the first user; `run` needs no option."""
    arguments = ("generate", "made", "--users", "500", "--batch-events", "4000", "--stream-events", "10")
    peerwatch(*arguments, "--mean-degree", "4", "--friendships", "directed")
    header, *lines = (logs / "made" / "batch_log.json").read_text().splitlines()
    assert json.loads(header) == {"D": "2", "T": "50", "friendships": "directed"}
    assert sum('"befriend"' in line for line in lines) == 2000
    peerwatch(*arguments, "--mean-degree", "4", "--force")
    header, *lines = (logs / "made" / "batch_log.json").read_text().splitlines()
    assert json.loads(header) == {"D": "2", "T": "50"}
    assert sum('"befriend"' in line for line in lines) == 1000


def test_an_engine_keeps_its_kind() -> None:
    """Saved and loaded it goes on alike; one that an earlier version has saved is mutual; other kinds are refused."""
    lines = STREAM.splitlines(keepends=True)
    for friendships, expected in (("directed", EXPECTED), ("mutual", MUTUAL)):
        engine = api.Engine(3, 6, friendships=friendships)  # type: ignore[arg-type]
        engine.learn(EVENTS)
        decisions = engine.feed(lines[:200])
        engine.save("engine.npz")
        with np.load("engine.npz") as archive:
            arrays = dict(archive)
        facts = msgspec.json.decode(arrays["facts"].tobytes())
        if friendships == "mutual":
            del facts["friendships"]
            encoded = np.frombuffer(msgspec.json.encode(facts | {"version": 1}), np.uint8)
            np.savez("engine.npz", **(arrays | {"facts": encoded}))
        engine = api.Engine.load("engine.npz")
        assert engine.friendships == friendships
        decisions += engine.feed(lines[200:])
        assert sum(one.flagged for one in decisions) == expected.count(b"\n")
    with pytest.raises(BadInput, match="friendships is 'both'; expected one of mutual, directed"):
        api.Engine(1, 2, friendships="both")  # type: ignore[arg-type]
    found = [*api.judge("batch", "stream")]
    assert sum(one.flagged for one in found) == EXPECTED.count(b"\n")
    flagged = next(one for one in found if one.flagged)
    assert str(flagged.mean) == api.explain("batch", "stream", seq=flagged.seq).mean
    (cell,) = api.sweep("batch", "stream").settings
    assert cell.flagged == EXPECTED.count(b"\n")
    (cell,) = api.sweep("batch", "stream", friendships="mutual").settings
    assert cell.flagged == MUTUAL.count(b"\n")


def test_it_is_purchases_of_whom_one_has_befriended_that_count(logs: Path) -> None:
    """One's own befriending brings others' purchases in; being befriended brings nothing, nor does unfriending back."""
    usual = b"".join(purchase(2, str(9 + i % 3)) for i in range(6))
    (logs / "batch").write_bytes(b'{"D":1, "T":5, "friendships":"directed"}\n' + befriend(1, 2) + usual)
    (logs / "stream").write_bytes(
        purchase(2, "500") + befriend(2, 1, "unfriend") + purchase(1, "9000") + befriend(1, 2, "unfriend")
        + purchase(1, "9000")
    )  # fmt: skip
    run()
    assert [json.loads(line)["id"] for line in (logs / "out").read_bytes().splitlines()] == ["1"]

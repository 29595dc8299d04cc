"""Verification: what is wrong is found and named, what is right is left alone, and two runs compare in one line."""

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import event_of, judge, network_of, verdict_of
from rotations import Log, decompressed
from strategies import examples
from strategies import logs as any_logs
from support import befriend, judge_files, purchase

from peerwatch import kernels
from peerwatch.amounts import Amounts
from peerwatch.cli.main import cli
from peerwatch.judging import verdict_hash as verdicts
from peerwatch.judging.verdict_hash import NOTHING
from peerwatch.kernels import Int32s, Int64s
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.interner import ids_of
from peerwatch.runtime import supervisor
from peerwatch.storage.checkpoints import read_checkpoint

D, T, K = 2, 4, 1


def lines_of(seed: int, count: int, first: int) -> list[bytes]:
    """Events of ten users, each with a timestamp of its own."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        stamp = f"2017-06-13 {(first + i) // 3600:02}:{(first + i) // 60 % 60:02}:{(first + i) % 60:02}"
        a, b = rng.choice(10, 2, replace=False)
        if rng.random() < 0.2:
            lines.append(befriend(a, b, "befriend" if rng.random() < 0.6 else "unfriend", stamp))
        else:
            lines.append(purchase(a, f"{rng.integers(100, 1000) / 100:.2f}", stamp))
    return lines


BATCH = lines_of(1, 60, 0)
STREAM = lines_of(2, 400, 3600)
HALF = 200
HELD = [*BATCH, *STREAM[:HALF]]
"""The events that the state holds at the checkpoint."""
EXPECTED = judge(b"".join(BATCH), b"".join(STREAM), D, T, Fraction(K))


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with both logs; groups are small, so that a ledger has many."""
    (tmp_path / "batch").write_bytes(b"".join(BATCH))
    (tmp_path / "stream").write_bytes(b"".join(STREAM))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verdicts, "GROUP", 16)
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", 0.0)
    return tmp_path


def peerwatch(command: str, *arguments: str) -> Result:
    """Run the command in this process; those that judge with the parameters."""
    options = ["--D", str(D), "--T", str(T), "--k", str(K)] if command in {"run", "verify"} else []
    return CliRunner().invoke(cli, [command, *options, *arguments])


def live(*options: str) -> Result:
    """A run that follows the stream to its present end and keeps its state."""
    return peerwatch("run", "batch", "stream", "out", "--state", "state", "--follow", "--idle-exit", "0", *options)


def hash_in(result: Result) -> str:
    """The hash of all verdicts that a run or a comparison has reported."""
    return str(re.findall(r"hash ([0-9a-f]{32})", result.output)[-1])


def decisions(lines: list[bytes]) -> list[tuple[int, int, int, str | None]]:
    """What is to be decided on each line's purchase, naively: n, S and Q of its window, and the fields if flagged."""
    friends: dict[str, set[str]] = {}
    bought: list[tuple[Any, int, str, int]] = []
    found: list[tuple[int, int, int, str | None]] = []
    for seq, line in enumerate(lines, 1):
        kind, when, a, b = event_of(line)
        if kind == "purchase":
            members = network_of(friends, a, D)
            window = [one[3] for one in sorted(one for one in bought if one[2] in members)[-T:]]
            bought.append((when, seq, a, b))
            found.append((len(window), sum(window), sum(x * x for x in window), verdict_of(window, b, Fraction(K))))
            continue
        change = set.add if kind == "befriend" else set.discard
        change(friends.setdefault(a, set()), b)
        change(friends.setdefault(b, set()), a)
        found.append((0, 0, 0, None))
    return found


RIGHT = decisions([*BATCH, *STREAM])


def tamper(change: Callable[[dict[str, Any]], None]) -> None:
    """Let `change` change the newest checkpoint's arrays, and write it so that it is whole."""
    newest = max(Path("state").glob("checkpoint-*.npz"))
    checkpoint = read_checkpoint(newest)
    change(checkpoint.arrays)
    facts = np.frombuffer(msgspec.json.encode(checkpoint.envelope), np.uint8)
    np.savez(newest, facts=facts, **checkpoint.arrays)


def change_an_amount(arrays: dict[str, Any]) -> None:
    """The amount of the newest purchase becomes 1000."""
    arrays["amount0"][np.argmax(arrays["seq0"])] = 1000 * 10**6


def forget_a_friendship(arrays: dict[str, Any]) -> None:
    """The last friendship that was made is forgotten, on both sides."""
    ids = ids_of(arrays["arena"], arrays["ends"], 0)
    a, b = (ids.index(name.encode()) for name in newest_friends())
    starts = np.cumsum(arrays["degree"]) - arrays["degree"]
    places = [
        starts[one] + arrays["friends"][starts[one] : starts[one] + arrays["degree"][one]].tolist().index(other)
        for one, other in ((a, b), (b, a))
    ]
    arrays["friends"] = np.delete(arrays["friends"], places)
    arrays["degree"][[a, b]] -= 1


def newest_friends() -> tuple[str, str]:
    """The last who became friends before the checkpoint and still are."""
    in_force: dict[frozenset[str], tuple[str, str]] = {}
    for line in HELD:
        kind, _, a, b = event_of(line)
        if kind != "purchase":
            in_force.pop(frozenset((a, b)), None)
        if kind == "befriend":
            in_force[frozenset((a, b))] = (a, b)
    return list(in_force.values())[-1]


def wrong_decisions(change: Callable[[dict[str, Any]], None]) -> list[tuple[int, int, int, str | None]]:
    """What follows from the tampered state, in the order of the lines: logs that lead to it say so."""
    if change is forget_a_friendship:
        held = [*HELD, befriend(*newest_friends(), "unfriend")]
    else:
        at = max(place for place, line in enumerate(HELD) if b"purchase" in line)
        held = [*HELD[:at], re.sub(rb'"amount": "[^"]*"', b'"amount": "1000"', HELD[at]), *HELD[at + 1 :]]
    return RIGHT[: len(HELD)] + decisions([*held, *STREAM[HALF:]])[len(held) :]


def as_said(fields: str | None) -> str:
    """A verdict as `bisect` says it."""
    return "flagged" + re.sub('[:"]', "", fields) if fields is not None else "normal"


def flagged_in(found: list[tuple[int, int, int, str | None]]) -> list[tuple[int, str]]:
    """The flagged purchases of the stream: their numbers and fields."""
    return [(seq, fields) for seq, (*_, fields) in enumerate(found, 1) if fields is not None and seq > len(BATCH)]


@pytest.mark.parametrize("change", [change_an_amount, forget_a_friendship])
def test_a_corrupted_state_is_caught_and_the_first_wrong_decision_named(
    logs: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    """The audit reports it with exit code 1, `bisect` names the first wrong verdict, `verify` the first wrong line."""
    assert peerwatch("run", "batch", "stream", "clean", "--verdicts", "clean.ledger").exit_code == 0
    (logs / "stream").write_bytes(b"".join(STREAM[:HALF]))
    assert live("--verdicts", "ledger", "--audit", "1").exit_code == 0
    tamper(change)
    (logs / "stream").write_bytes(b"".join(STREAM))
    result = live("--verdicts", "ledger", "--audit", "1", "--log-format", "json", "--log-file", "log")
    wrong = wrong_decisions(change)
    differing = [seq for seq, pair in enumerate(zip(RIGHT, wrong, strict=True), 1) if pair[0] != pair[1]]
    records = [json.loads(line) for line in (logs / "log").read_bytes().splitlines()]
    assert [record["seq"] for record in records] == differing != []
    assert {record["event"] for record in records} == {"audit difference"}
    for key, decided in (("judged", wrong), ("recomputed", RIGHT)):
        n, S, Q, fields = decided[differing[0] - 1]
        said = {"verdict": "normal" if fields is None else "flagged", "n": n, "S": str(S), "Q": str(Q)}
        assert said.items() <= records[0][key].items()
    assert result.exit_code == 1
    line = differing[0] - len(BATCH)
    assert result.stderr.endswith(f"differ, the first on event {differing[0]} (stream:{line}); each is in the log\n")
    assert f"{len(differing)} of" in peerwatch("status", "state").stdout

    first = next(seq for seq in differing if RIGHT[seq - 1][3] != wrong[seq - 1][3])
    result = peerwatch("bisect", "clean.ledger", "ledger")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"The first decision that differs is on event {first}, line {first - len(BATCH)}:",
        f"  clean.ledger  {as_said(RIGHT[first - 1][3])}",
        f"  ledger        {as_said(wrong[first - 1][3])}",
    ]

    due, written = flagged_in(RIGHT), flagged_in(wrong)
    place = next(place for place, pair in enumerate(zip_longest(due, written)) if pair[0] != pair[1])
    result = peerwatch("verify", "batch", "stream", "out", "--audit", "1")
    assert result.exit_code == 1
    seq = due[place][0]
    assert f"out:{place + 1} differs; it should be event {seq}, stream line {seq - len(BATCH)}, " in result.stdout
    assert peerwatch("verify", "batch", "stream", "clean").exit_code == 0


def test_a_difference_is_a_notice_in_every_sink_that_takes_them(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each, in order, as the log tells it; however often the run ends, and restarts from a checkpoint."""
    (logs / "c.yaml").write_text(
        "state: {events: 20}\n"
        "sinks: [{to: notices.json, records: [notices]}, {to: 'sqlite:n.db', records: [notices, flagged]}]\n"
    )
    options = ["--audit", "1", "--log-format", "json", "--log-file", "log", "-c", "c.yaml"]
    (logs / "stream").write_bytes(b"".join(STREAM[:HALF]))
    assert live(*options).exit_code == 0
    tamper(change_an_amount)
    original, left = FriendGraph.walk, [len(HELD) + 30, len(HELD) + 31, len(HELD) + 90, len(HELD) + 150]

    def walk(graph: FriendGraph, *arguments: Any, **named: Any) -> Any:
        if left and arguments[5] > left[0]:
            left.pop(0)
            raise ZeroDivisionError("broken for the test")
        return original(graph, *arguments, **named)

    monkeypatch.setattr(FriendGraph, "walk", walk)
    for end in (HALF + 60, HALF + 61, HALF + 100, len(STREAM)):
        (logs / "stream").write_bytes(b"".join(STREAM[:end]))
        live(*options)
    assert left == []
    wrong = wrong_decisions(change_an_amount)
    differing = [seq for seq, pair in enumerate(zip(RIGHT, wrong, strict=True), 1) if pair[0] != pair[1]]
    notices = [json.loads(line) for line in (logs / "notices.json").read_bytes().splitlines()]
    assert [notice["event"] for notice in notices] == differing != []
    assert {(notice["who"], notice["notice"]) for notice in notices} == {("champion", "difference")}
    records = [json.loads(line) for line in (logs / "log").read_bytes().splitlines()]
    logged = {record["seq"]: record for record in records if record["event"] == "audit difference"}
    for notice in notices:
        assert notice["details"].items() <= logged[notice["event"]].items()
    with closing(sqlite3.connect("n.db")) as database:
        rows = database.execute("SELECT seq, event, details FROM peerwatch_notices ORDER BY seq").fetchall()
    assert rows == [(one["seq"], one["event"], msgspec.json.encode(one["details"]).decode()) for one in notices]


def test_a_state_that_goes_wrong_in_memory_is_caught(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One amount is stored a millionth too high: the first decision whose window holds it is the one reported."""
    original = PurchaseHistory.append
    wrong = len(BATCH) + 1 + next(place for place, line in enumerate(STREAM) if b"purchase" in line)

    def append(
        history: PurchaseHistory, seq: Int64s, user: Int32s, timestamp: Int64s, amount: Amounts, *rest: int
    ) -> None:
        original(history, seq, user, timestamp, Amounts(amount.held + (seq == wrong)), *rest)

    monkeypatch.setattr(PurchaseHistory, "append", append)
    assert peerwatch("run", "batch", "stream", "out", "--audit", "0").exit_code == 0
    result = peerwatch("run", "batch", "stream", "out", "--audit", "1")
    assert result.exit_code == 1
    line = STREAM[wrong - 1 - len(BATCH)]
    other = re.sub(rb'"amount": "([^"]*)"', rb'"amount": "\g<1>0001"', line)
    held = decisions([*BATCH, *(other if one == line else one for one in STREAM)])
    first = next(seq for seq, pair in enumerate(zip(RIGHT, held, strict=True), 1) if pair[0] != pair[1])
    assert f"differ, the first on event {first} (stream:{first - len(BATCH)}); each is in the log" in result.stderr
    assert (logs / "out").exists()


def test_the_hash_tells_in_one_line_whether_two_runs_agree(logs: Path) -> None:
    """In pieces, with a kill in between, at other shards: the same hash and ledger; with other settings another."""
    whole = peerwatch("run", "batch", "stream", "whole", "--verdicts", "whole.ledger")
    for number, cut in enumerate((100, 101, 250, 400)):
        (logs / "stream").write_bytes(b"".join(STREAM[:cut]))
        result = live("--verdicts", "ledger", "--shards", str(1 + number), "--audit", "1")
        assert result.exit_code == 0
        assert "all the same" in result.stderr
        assert "trusts the checkpoint" not in result.stderr
        with (logs / "ledger").open("ab") as file:
            file.write(b'{"through": 1')  # as a kill may leave it
    assert live("--verdicts", "ledger", "--log-user", "nobody", "--audit", "1").exit_code == 0
    assert hash_in(whole) == hash_in(result) == hash_in(peerwatch("status", "state"))
    assert (logs / "ledger").read_bytes() == (logs / "whole.ledger").read_bytes() != b""
    found = peerwatch("bisect", "ledger", "whole.ledger")
    assert (found.exit_code, hash_in(found)) == (0, hash_in(whole))
    assert hash_in(peerwatch("run", "batch", "stream", "other", "--T", "3")) != hash_in(whole)


@pytest.mark.parametrize("rotation", ["rename", "compress", "copytruncate"])
def test_a_ledger_that_is_rotated_between_runs_goes_on(logs: Path, rotation: str) -> None:
    """A run ends within a group; the next one goes on in a new file, and the files together are the whole ledger."""
    assert peerwatch("run", "batch", "stream", "whole", "--verdicts", "whole.ledger").exit_code == 0
    rotator = Log(logs / "ledger.json")
    for cut in (100, 101, 101, 250, 400):
        (logs / "stream").write_bytes(b"".join(STREAM[:cut]))
        result = live("--verdicts", "ledger.json")
        assert result.exit_code == 0, result.stderr
        if rotation == "copytruncate":
            rotator.copytruncate()
        else:
            rotator.rename()
            if rotation == "compress":
                rotator.compress(0, ".gz")
    (logs / "together").write_bytes(b"".join(map(decompressed, reversed(rotator.rotated))))
    assert len((logs / "together").read_bytes().splitlines()) > len((logs / "whole.ledger").read_bytes().splitlines())
    found = peerwatch("bisect", "together", "whole.ledger")
    assert (found.exit_code, hash_in(found)) == (0, hash_in(result)), found.output


@given(
    batch=any_logs(max_size=20), stream=any_logs(), D=st.integers(1, 3), T=st.integers(2, 5), shards=st.integers(1, 3),
    walkers=st.integers(1, 2), cap=st.integers(1, 30), chunk=st.integers(1, 400),
    k=st.sampled_from([Fraction(3), Fraction(1, 2), Fraction(0)]), directed=st.booleans(), judge_batch=st.booleans(),
)  # fmt: skip
@settings(max_examples=examples(60))
def test_recomputing_finds_nothing_in_clean_logs(
    batch: bytes, stream: bytes, D: int, T: int, shards: int, walkers: int, cap: int, chunk: int, k: Fraction,
    *, directed: bool, judge_batch: bool,
) -> None:  # fmt: skip
    """Late arrivals, unfriends, huge amounts, bad lines: each decision comes out the same; so does the hash."""
    kind: dict[str, Any] = {"directed": directed, "judge_batch": judge_batch}
    found = judge_files(
        batch, stream, D, T, shards=shards, walkers=walkers, batch_cap=cap, chunk=chunk, k=k, audit=1.0, **kind
    )
    totals = found.totals
    assert totals.recomputed == totals.decisions == totals.progress.judged
    assert found.flagged == judge(batch, stream, D, T, k, **kind).flagged
    plain = judge_files(batch, stream, D, T, k=k, **kind)
    assert plain.totals.verdicts == totals.verdicts
    assert (totals.verdicts == NOTHING) == (totals.decisions == 0)


def test_the_audit_reads_rotated_logs_again(logs: Path) -> None:
    """What a checkpoint is to be checked against may lie in several files by now."""
    (logs / "stream").write_bytes(b"".join(STREAM[:HALF]))
    assert live("--audit", "1").exit_code == 0
    (logs / "stream").rename(logs / "stream.1")
    (logs / "stream").write_bytes(b"".join(STREAM[HALF:]))
    tamper(change_an_amount)
    result = live("--audit", "1")
    assert result.exit_code == 1
    assert "trusts the checkpoint" not in result.stderr


def test_verify_follows_rotations(logs: Path) -> None:
    """With the state directory it knows where the log began, and reads it through all its files."""
    (logs / "stream").write_bytes(b"".join(STREAM[:HALF]))
    assert live().exit_code == 0
    (logs / "stream").rename(logs / "stream.1")
    (logs / "stream").write_bytes(b"".join(STREAM[HALF:]))
    assert live().exit_code == 0
    result = peerwatch("verify", "batch", "stream", "out", "--follow", "--state", "state")
    assert (result.exit_code, hash_in(result)) == (0, hash_in(peerwatch("status", "state")))
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_a_audit_that_cannot_read_the_beginning_says_so(logs: Path) -> None:
    """It goes on from the checkpoint with a warning, and everything behind it is still checked."""
    (logs / "stream").write_bytes(b"".join(STREAM[:HALF]))
    assert live().exit_code == 0
    (logs / "stream").write_bytes(b"".join(STREAM))
    (logs / "batch").write_bytes(b"".join(BATCH[:-1]))
    result = live("--audit", "1")
    assert result.exit_code == 0
    assert "the audit trusts the checkpoint and can only find errors after it: " in result.stderr
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_a_restart_begins_a_new_audit(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure the pipeline is built anew, and its audit with it, from the logs."""
    original, left = FriendGraph.walk, [1]

    def walk(graph: FriendGraph, *arguments: Any, **options: Any) -> Any:
        if left[0] and arguments[5] > len(HELD):
            left[0] -= 1
            raise ZeroDivisionError("broken for the test")
        return original(graph, *arguments, **options)

    (logs / "stream").write_bytes(b"".join(STREAM[:HALF]))
    assert live().exit_code == 0
    (logs / "stream").write_bytes(b"".join(STREAM))
    monkeypatch.setattr(FriendGraph, "walk", walk)
    result = live("--audit", "1")
    assert (result.exit_code, left) == (0, [0])
    assert "broken for the test" in result.stderr
    assert "all the same" in result.stderr
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_a_audit_begins_behind_holes_as_well(logs: Path) -> None:
    """NUL bytes that a truncation has left count as read, though no event is in them."""
    hole = bytes(5000)
    (logs / "stream").write_bytes(hole + b"".join(STREAM[:HALF]))
    assert live().exit_code == 0
    (logs / "stream").write_bytes(hole + b"".join(STREAM))
    result = live("--audit", "1")
    assert result.exit_code == 0
    assert "all the same" in result.stderr
    assert "trusts the checkpoint" not in result.stderr


def test_verify_names_the_first_line_that_is_wrong(logs: Path) -> None:
    """Changed, missing, one too many, or a blank one among them; right is right, whatever the share."""
    whole = peerwatch("run", "batch", "stream", "out")
    right = (logs / "out").read_bytes()
    lines = right.splitlines(keepends=True)
    result = peerwatch("verify", "batch", "stream", "out", "--audit", "0.5")
    assert result.exit_code == 0
    assert "every one as in out\n" in result.stdout
    assert hash_in(result) == hash_in(whole)
    due = flagged_in(RIGHT)
    for place, content, words in (
        (0, b"", "is missing; it should be"),
        (3, b"".join(lines[:3]), "is missing; it should be"),
        (2, right.replace(lines[2], b""), "differs; it should be"),
        (4, b"".join([*lines[:4], lines[4][:9]]), "differs; it should be"),
        (0, b"\n" + right, "differs; it should be"),
        (3, b"".join([*lines[:3], b"\n", *lines[3:]]), "differs; it should be"),
    ):
        (logs / "out").write_bytes(content)
        result = peerwatch("verify", "batch", "stream", "out")
        assert result.exit_code == 1
        assert (
            f"out:{place + 1} {words} event {due[place][0]}, stream line {due[place][0] - len(BATCH)}" in result.stdout
        )
    assert result.stdout.endswith(", and is\n  (a blank line)\n")
    for more, shown in ((lines[0], "{"), (b"\n", "(a blank line)\n")):
        (logs / "out").write_bytes(right + more)
        result = peerwatch("verify", "batch", "stream", "out", "--audit", "0")
        assert result.exit_code == 1
        assert f"out:{len(lines) + 1} should not be there; nothing more is flagged:\n  {shown}" in result.stdout
    (logs / "out").unlink()
    result = peerwatch("verify", "batch", "stream", "out")
    assert (result.exit_code, result.stderr) == (
        2,
        "peerwatch: cannot read the output out: No such file or directory\n",
    )


def test_verify_is_as_quiet_as_the_config_says(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`quiet: true` is worth as much as --quiet: nothing on standard error, the result where it belongs."""
    assert peerwatch("run", "batch", "stream", "out").exit_code == 0
    monkeypatch.setattr(kernels, "load", lambda compiling, _: compiling())
    for quiet in (False, True):
        (logs / "c.yaml").write_text(f"quiet: {str(quiet).lower()}\n")
        result = peerwatch("verify", "batch", "stream", "out", "-c", "c.yaml")
        assert (result.exit_code, "every one as in out" in result.stdout) == (0, True)
        assert (result.stderr == "") == quiet


def test_bisect_tells_a_beginning_from_a_difference(logs: Path) -> None:
    """One ledger may end before the other; ledgers of other logs, or altered ones, are told as such."""
    for name, lines in (("a", STREAM), ("b", STREAM[:HALF]), ("c", STREAM[2:])):
        (logs / "stream").write_bytes(b"".join(lines))
        assert peerwatch("run", "batch", "stream", "out", "--verdicts", name).exit_code == 0
    ends = f"b ends with event {len(HELD)}, and a goes on; up to there they agree.\n"
    for order in (("a", "b"), ("b", "a")):
        result = peerwatch("bisect", *order)
        assert (result.exit_code, result.stdout) == (1, ends)
    assert peerwatch("bisect", "a", "c").exit_code == 1
    (logs / "d").write_bytes(re.sub(rb'"digest":"....', b'"digest":"0000', (logs / "a").read_bytes()))
    result = peerwatch("bisect", "a", "d")
    assert (result.exit_code, result.stderr) == (
        2, "peerwatch: a:1 and d:1 agree, but their digests differ: one of the files has been altered\n",
    )  # fmt: skip
    (logs / "e").write_bytes(b"")
    assert "e ends with event 0, and a goes on" in peerwatch("bisect", "a", "e").stdout
    assert peerwatch("bisect", "e", "e").stdout == "Both are empty: nothing was judged.\n"
    result = peerwatch("bisect", "a", "stream")
    assert result.exit_code == 2
    assert re.match(
        r"peerwatch: stream:\d+: not a line of a ledger \(.*\); name files written with --verdicts", result.stderr
    )
    assert peerwatch("bisect", "a", "no").stderr == "peerwatch: cannot read the ledger no: No such file or directory\n"


def test_a_ledger_is_an_output_like_the_others(logs: Path) -> None:
    """It is not written over what somebody else wrote, nor beside itself, and a state remembers it."""
    (logs / "mine").write_bytes(b"mine\n")
    result = peerwatch("run", "batch", "stream", "out", "--verdicts", "mine")
    assert result.exit_code == 2
    assert result.stderr.startswith("peerwatch: mine holds something that peerwatch has not written")
    result = peerwatch("run", "batch", "stream", "out", "--verdicts", "out")
    assert result.stderr == "peerwatch: out is named for the ledger and for the output; name two files\n"
    assert live("--verdicts", "ledger").exit_code == 0
    result = live()
    assert result.exit_code == 2
    assert '"output.verdicts" is none, but the state in state was built with' in result.stderr

"""What flagged purchases did: as rerunning without each of them shows."""

import json
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_explanation import decimal
from naive_windows import Judged, judge_all, limit_of, micros
from strategies import COMMANDS, examples, logs
from support import befriend, purchase

from peerwatch.cli.main import cli
from peerwatch.runtime.decision_log import moment

FRIENDS = b"".join(befriend(a, b) for a in range(1, 5) for b in range(1, a))


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def shown(one: Judged) -> str:
    """When it was bought."""
    return moment(round(one.bought.when.timestamp() * 10**6)) or ""


def entry(seq: int, now: Judged, then: Judged, k: Fraction) -> dict[str, Any]:
    """A window that another one would stand in the place of."""
    limits = limit_of(now.window, k), limit_of(then.window, k)
    return {"seq": seq, "timestamp": shown(now), "limit": limits[0], "limit_without": limits[1]}


def moved(entries: list[dict[str, Any]]) -> str | None:
    """The largest difference, the first of those of the same size."""
    moves = [
        micros(each["limit"]) - micros(each["limit_without"])
        for each in entries
        if each["limit"] is not None and each["limit_without"] is not None
    ]
    if not moves:
        return None
    most = max(moves, key=abs)
    return f"{'-' if most < 0 else '+'}{decimal(abs(most))}"


def expected(batch: bytes, stream: bytes, D: int, T: int, k: Fraction, seq: int, *, directed: bool) -> dict[str, Any]:
    """What one purchase did, from a run with it and a run without it."""
    base = judge_all(batch, stream, D, T, k, directed=directed)
    without = judge_all(batch, stream, D, T, k, without=seq, directed=directed)
    own = base[seq]
    held = [other for other, one in base.items() if any(bought.seq == seq for bought in one.window)]
    assert held == [other for other in base if base[other].window != without[other].window]
    entries = {other: entry(other, base[other], without[other], k) for other in held}
    users = dict.fromkeys(base[other].bought.user for other in held)
    by_user = {user: [entries[other] for other in held if base[other].bought.user == user] for user in users}
    times = [base[other].bought.when.timestamp() for other in held]

    def changed(*, flagged: bool) -> list[dict[str, Any]]:
        return [
            entries[other]
            | {"file": "stream", "line": one.bought.line, "user": one.bought.user, "amount": decimal(one.bought.amount)}
            for other, one in base.items()
            if one.flagged == flagged != without[other].flagged
        ]

    return {
        "seq": seq, "file": "stream", "line": own.bought.line, "user": own.bought.user, "timestamp": shown(own),
        "amount": decimal(own.bought.amount), "flagged": own.flagged, "windows": len(held),
        "first": held[0] if held else None, "last": held[-1] if held else None,
        "seconds": pytest.approx(max(times) - min(times) if times else 0.0), "moved": moved([*entries.values()]),
        "users": [
            {"user": user, "first": found[0]["seq"], "last": found[-1]["seq"], "moved": moved(found), "windows": found}
            for user, found in by_user.items()
        ],
        "hidden": changed(flagged=False), "caused": changed(flagged=True),
    }  # fmt: skip


@settings(COMMANDS, max_examples=examples(60))
@given(
    batch=logs(),
    stream=logs(max_size=80),
    D=st.integers(1, 3),
    T=st.integers(2, 6),
    k=st.sampled_from(["0", "0.5", "1.1", "3"]),
    labelled=st.one_of(st.none(), st.sets(st.integers(1, 80), min_size=1, max_size=5)),
    directed=st.booleans(),
)
def test_each_purchase_did_what_a_run_without_it_shows(
    batch: bytes, stream: bytes, D: int, T: int, k: str, labelled: set[int] | None, directed: bool
) -> None:
    """Messy logs; whose windows, for how long, by how much, and which verdicts: every field."""
    batch = FRIENDS + batch
    base = judge_all(batch, stream, D, T, Fraction(k), directed=directed)
    lines = {one.bought.line: seq for seq, one in base.items()}
    labelled = labelled and labelled & lines.keys()
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.chdir(name)
        Path("batch").write_bytes(batch)
        Path("stream").write_bytes(stream)
        options = ["--D", str(D), "--T", str(T), "--k", k]
        options += ["--friendships", "directed"] if directed else []
        if labelled:
            Path("labels").write_text("".join(f'{{"line": {line}}}\n' for line in labelled))
            options += ["--labels", "labels"]
        result = peerwatch("poison", "batch", "stream", *options, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["judged"], found["flagged"]) == (len(base), sum(one.flagged for one in base.values()))
    wanted = {lines[line] for line in labelled} if labelled else {seq for seq, one in base.items() if one.flagged}
    assert {one["seq"] for one in found["purchases"]} == wanted
    for one in found["purchases"]:
        assert one == expected(batch, stream, D, T, Fraction(k), one["seq"], directed=directed)
    ranks = [(-len(one["hidden"]), -one["windows"], one["seq"]) for one in found["purchases"]]
    assert ranks == sorted(ranks)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with logs in which one purchase hides another."""
    bought = b"".join(purchase(2, f"{10 + i % 3}") for i in range(6))
    (tmp_path / "batch").write_bytes(b'{"D":"1", "T":"5"}\n' + befriend(1, 2) + befriend(2, 3) + bought)
    (tmp_path / "stream").write_bytes(
        purchase(3, "11") + purchase(2, "900") + purchase(1, "100") + purchase(3, "11", "2017-06-13 13:33:01")
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tables_name_what_hid_the_most(directory: Path) -> None:
    """The purchase with its windows, users, time and limits; in full for one line."""
    (directory / "stream").write_bytes(purchase(1, "11") + purchase(3, "11") + (directory / "stream").read_bytes())
    result = peerwatch("poison", "batch", "stream")
    assert result.exit_code == 0, result.output
    assert "1 purchase, each by one of 1 alone" in result.stdout
    assert " ".join(result.stdout.splitlines()[-1].split()) == "12 4 2 900.00 2 2 2.0 h +1242.057326 1"
    details = peerwatch("poison", "batch", "stream", "--line", "4").stdout
    assert "hid        1 purchase, flagged without it" in details
    for table in ("It hid", "It was in windows of"):
        assert table in details
    assert peerwatch("poison", "batch", "stream", "--line", "4", "--json").stdout.startswith('{"seq":12,')


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--line", "1"], "line 1 is not a flagged purchase"),
        (["--labels", "none"], "cannot read the labels none"),
        (["--config", "other.yaml"], "poison works with the detector sigma only, not with mad"),
        (["--config", "c.yaml"], 'c.yaml:1: "detector.quarantine" is on: flagged purchases are in no window'),
    ],
)
def test_what_cannot_be_answered_is_told(directory: Path, options: list[str], sentence: str) -> None:
    """In one sentence, with exit code 2."""
    (directory / "c.yaml").write_text("detector: {quarantine: true}\n")
    (directory / "other.yaml").write_text("detector: {name: mad}\n")
    result = peerwatch("poison", "batch", "stream", *options)
    assert (result.exit_code, sentence in result.stderr) == (2, True), result.stderr

"""`peerwatch explain` and `peerwatch state` as a person types them, right and wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support import befriend, purchase

from peerwatch.cli.main import cli
from peerwatch.studies import pictures as plots

HEADER = b'{"D":"2", "T":"3"}\n'
BATCH = befriend(1, 2) + befriend(2, 3) + purchase(2, "10") + purchase(3, "12") + purchase(3, "11")
STREAM = (
    purchase(1, "11", "2017-06-13 11:33:05")
    + b"no event\n"
    + b"\n"
    + purchase(1, "50", "2017-06-13 11:33:06")
    + befriend(1, 4)
    + purchase(4, "700", "2017-06-13 11:33:07")
    + purchase(1, "12", "2017-06-13 11:33:06")
)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a batch and a stream log; it is the working directory."""
    (tmp_path / "batch").write_bytes(HEADER + BATCH)
    (tmp_path / "stream").write_bytes(STREAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def explain(*arguments: str) -> Result:
    """Explain on both logs."""
    return peerwatch("explain", "batch", "stream", *arguments)


@pytest.mark.usefixtures("logs")
def test_a_person_reads_the_whole_truth() -> None:
    """Who, where, the verdict, the window with lines and paths, the integers, and what flips it."""
    result = explain("--line", "4")
    assert result.exit_code == 0
    for part in (
        "user 1 paid 50.00 at 2017-06-13T11:33:06Z", "stream:4, event 7", "FLAGGED by sigma with D=2 T=3 k=3",
        "2 users: 1 at hop 1, 1 at hop 2", "mean 11.00, sd 0.81", "13689000000000000 > 54000000000000",
        "at 13.449489 it would be normal: 3,656 cents less", "batch:6", "1 - 2 - 3",
    ):  # fmt: skip
        assert part in result.stdout


@pytest.mark.usefixtures("logs")
def test_one_decision_has_three_names() -> None:
    """Its number, its line, its user and time: the same JSON; also for a purchase that is not flagged."""
    for seq, line, at in (("7", "4", None), ("6", "1", "2017-06-13 11:33:05"), ("9", "6", "2017-06-13T11:33:07Z")):
        by_seq = explain("--json", "--seq", seq)
        assert by_seq.exit_code == 0
        assert by_seq.stdout == explain("--json", "--line", line).stdout
        record = json.loads(by_seq.stdout)
        assert (record["seq"], record["line"]) == (int(seq), int(line))
        if at is not None:
            assert by_seq.stdout == explain("--json", "--user", record["user"], "--at", at).stdout


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name one decision: --seq N, --line N, or --user ID with --at TIME"),
        (["--seq", "1", "--line", "2"], "name one decision"),
        (["--user", "1"], "name one decision"),
        (["--seq", "11"], "there is no event 11: the logs end with event 10"),
        (["--seq", "8"], "event 8 (stream:5) is a befriending; only purchases are judged"),
        (["--seq", "5"], "event 5 (batch:6) is in the batch log, which is not judged"),
        (["--line", "2"], "stream:2 was rejected, not judged: "),
        (["--line", "3"], "stream:3 is blank; name the line of a purchase"),
        (["--line", "8"], "stream has no line 8: it has 7"),
        (["--user", "1", "--at", "2017-06-13 11:33:06"], "name one: --seq 7 (stream:4), --seq 10 (stream:7)"),
        (["--user", "4", "--at", "2017-06-13 11:33:08"], "the nearest are --seq 9 (stream:6)"),
        (["--user", "9", "--at", "2017-06-13 11:33:08"], "user 9 has no purchase that was judged"),
        (["--user", "4", "--at", "noon"], '"timestamp" "noon" is not YYYY-MM-DD HH:MM:SS'),
        (["--seq", "7", "--plot", "why.gif"], "why.gif: a picture's name ends in .svg or .png"),
        (["--seq", "7", "--plot", "nowhere/why.svg"], "nowhere/why.svg: the directory nowhere does not exist"),
        (["--seq", "7", "--state", "nowhere"], "no checkpoints in the state directory nowhere"),
    ],
)  # fmt: skip
def test_each_mistake_gets_its_sentence(arguments: list[str], sentence: str) -> None:
    """Exit code 2, one line on standard error, nothing on standard output."""
    result = explain(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (["stream", "-"], "- cannot be read again; name a log that is a file"),
        (["nothing", "stream"], "cannot read the log nothing: No such file or directory"),
        (["batch", "."], ". is a directory; name the log file in it"),
        (["stream"], '"D" is not set'),
        (["batch", "stream", "out"], "name BATCH STREAM, or STREAM without a batch log"),
    ],
)
def test_each_wrong_log_gets_its_sentence(paths: list[str], sentence: str) -> None:
    """The same for the logs."""
    result = peerwatch("explain", *paths, "--seq", "7")
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_a_state_directory_answers_for_what_it_was_built_with(logs: Path) -> None:
    """D, T and k are its own; with another D the logs are gone through from their beginning."""
    command = ["--D", "1", "--k", "2", "--state", "state"]
    assert peerwatch("run", "batch", "stream", "out", *command).exit_code == 0
    record = json.loads(explain("--seq", "7", "--state", "state", "--json").stdout)
    assert (record["D"], record["T"], record["k"]) == (1, 3, "2")
    assert record["mean"] == "10.00"
    with (logs / "stream").open("ab") as stream:
        stream.write(purchase(2, "800"))
    later = [json.loads(explain("--seq", "11", "--D", "1", "--k", "2", "--json", *more).stdout)
             for more in ([], ["--state", "state"])]  # fmt: skip
    assert later[0] == later[1]
    assert [bought["line"] for bought in later[0]["window"]] == [7, 4, 1]
    other = explain("--seq", "11", "--D", "2", "--k", "3", "--json", "--state", "state")
    assert other.stdout == explain("--seq", "11", "--json").stdout


def test_a_config_may_name_a_state_directory_that_no_run_has_made_yet(logs: Path) -> None:
    """The logs are read from their beginning then; a directory named on the command line must be there."""
    (logs / "c.yaml").write_text("input: {batch: batch, stream: stream}\nstate: {directory: nowhere}\n")
    assert peerwatch("explain", "--config", "c.yaml", "--seq", "7").exit_code == 0
    assert peerwatch("sweep", "--config", "c.yaml", "--k", "2,3").exit_code == 0


@pytest.fixture
def rotated(logs: Path) -> list[str]:
    """The options for a log that a run has followed through a rotation, event 9 being in the first file."""
    arguments = ["batch", "stream", "out", "--state", "state", "--follow", "--idle-exit", "0"]
    assert peerwatch("run", *arguments).exit_code == 0
    (logs / "stream").rename("stream.1")
    (logs / "stream").write_bytes(purchase(2, "800") + purchase(1, "9", "2017-06-14 00:00:00"))
    assert peerwatch("run", *arguments).exit_code == 0
    return ["batch", "stream", "--follow", "--state", "state"]


def test_what_a_rotation_has_taken_away_is_not_explained_as_something_else(logs: Path, rotated: list[str]) -> None:
    """Without the first file other events would have these numbers: refused, whichever way it is asked."""
    known = peerwatch("explain", *rotated, "--user", "1", "--at", "2017-06-14 00:00:00")
    assert "stream:2, event 12" in known.stdout
    (logs / "stream.1").unlink()
    for command in (
        ["explain", *rotated, "--seq", "7"],
        ["explain", *rotated, "--user", "1", "--at", "2017-06-14 00:00:00"],
        ["state", *rotated, "--user", "1", "--at", "2017-06-14 00:00:00"],
        ["verify", "batch", "stream", "out", *rotated[2:]],
    ):
        result = peerwatch(*command)
        assert (result.exit_code, result.stdout) == (2, ""), command
        assert "the logs cannot be read again" in result.stderr


def test_a_log_that_has_been_changed_is_noticed_by_its_marks(logs: Path) -> None:
    """A line taken out before what the run had read: the numbers would be others."""
    assert peerwatch("run", "batch", "stream", "out", "--state", "state").exit_code == 0
    lines = (logs / "batch").read_bytes().splitlines(keepends=True)
    (logs / "batch").write_bytes(b"".join(lines[:2] + lines[3:]) + b" " * len(lines[2]))
    result = explain("--seq", "7", "--state", "state")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "4 events stand before it, but 5 did" in result.stderr


def test_lines_are_named_in_the_file_they_are_in_after_a_copytruncate(logs: Path) -> None:
    """The file at the path has the same inode, but other lines."""
    run = ["batch", "stream", "out", "--state", "state", "--follow", "--idle-exit", "0"]
    assert peerwatch("run", *run).exit_code == 0
    copy = (logs / "stream").read_bytes()
    (logs / "stream.1").write_bytes(copy)
    (logs / "stream").write_bytes(purchase(1, "13", "2017-06-13 12:00:00"))
    result = peerwatch(
        "state", "batch", "stream", "--follow", "--state", "state", "--user", "1", "--at", "10", "--json"
    )
    assert result.exit_code == 0, result.stderr
    assert {bought["file"] for bought in json.loads(result.stdout)["purchases"]} == {"stream.1"}


def test_a_followed_log_is_explained_through_its_rotations(logs: Path) -> None:
    """The file named for each purchase is the one it is in now."""
    arguments = ["batch", "stream", "out", "--state", "state", "--follow", "--idle-exit", "0"]
    assert peerwatch("run", *arguments).exit_code == 0
    (logs / "stream").rename("stream.1")
    (logs / "stream").write_bytes(purchase(2, "800"))
    assert peerwatch("run", *arguments).exit_code == 0
    (logs / "config.yaml").write_text(
        "follow: true\ninput: {batch: batch, stream: stream}\nstate: {directory: state}\n"
    )
    for seq, where in ((9, "stream.1:6"), (11, "stream:1")):
        result = peerwatch("explain", "--config", "config.yaml", "--seq", str(seq))
        assert result.exit_code == 0, result.stderr
        assert f"{where}, event {seq}" in result.stdout
    assert "stream.1:7" in result.stdout
    assert "stream:1, event 11" in peerwatch("explain", "--config", "config.yaml", "--line", "1").stdout


def test_pictures_are_drawn_and_always_the_same(logs: Path) -> None:
    """SVG and PNG; the SVG names the buyers; a network of nobody is drawn as well."""
    for name in ("why.svg", "again.svg", "why.png"):
        assert explain("--seq", "9", "--plot", name).exit_code == 0
    assert (logs / "why.svg").read_bytes() == (logs / "again.svg").read_bytes()
    assert (logs / "why.png").read_bytes().startswith(b"\x89PNG")
    (logs / "alone").write_bytes(purchase(1, "5"))
    alone = peerwatch("explain", "alone", "--D", "1", "--T", "2", "--seq", "1", "--plot", "alone.svg")
    assert alone.exit_code == 0
    assert "empty: nobody in the network had bought anything" in alone.stdout


def test_unusual_ids_are_shown_so_that_nothing_is_mistaken(logs: Path) -> None:
    """Spaces, line feeds, escape sequences, dollar signs; also in a picture."""
    ids = ["a b", "x\\ny", "\\u001b[31m", "$x^{$", "ü"]
    (logs / "odd").write_bytes(
        b"".join(befriend("me", user) + purchase(user, "5") for user in ids) + purchase("me", "900")
    )
    result = peerwatch("explain", "odd", "--D", "1", "--T", "9", "--seq", "11", "--plot", "odd.svg")
    assert result.exit_code == 0, result.stderr
    assert "\x1b" not in result.stdout
    for text in ('"a b"', '"x\\ny"', '"\\u001b[31m"', "$x^{$", "ü"):
        assert text in result.stdout
    assert "$x^{$" in (logs / "odd.svg").read_text()


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize(
    "arguments",
    [
        ["state", "batch", "stream", "--user", "\udcff", "--at", "7"],
        ["state", "batch", "stream", "--user", "", "--at", "7"],
        ["state", "batch", "stream", "--user", "1", "--at", "\udcff"],
        ["state", "batch", "stream", "--user", "1", "--at", "9" * 5000],
        ["explain", "batch", "stream", "--user", "\udcff", "--at", "2017-06-13 11:33:05"],
    ],
)
def test_values_that_are_no_text_get_a_sentence(arguments: list[str]) -> None:
    """Exit code 2, no traceback."""
    result = peerwatch(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("peerwatch: ")


@pytest.mark.usefixtures("logs")
def test_without_matplotlib_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any work is done."""
    monkeypatch.setattr(plots, "find_spec", lambda _: None)
    result = explain("--seq", "7", "--plot", "why.svg")
    assert result.exit_code == 2
    assert "pip install matplotlib" in result.stderr


def state(at: str, user: str) -> Any:
    """A user's state as JSON."""
    result = peerwatch("state", "batch", "stream", "--at", at, "--user", user, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.usefixtures("logs")
def test_the_state_of_a_user_at_a_number_and_at_a_time() -> None:
    """Behind the event of that number; before the first event that is later than the time."""
    assert state("7", "1")["friends"] == ["2"]
    after = state("8", "1")
    assert after["friends"] == ["2", "4"]
    assert [(bought["seq"], bought["line"], bought["amount"]) for bought in after["purchases"]] == [
        (7, 4, "50.00"), (6, 1, "11.00"),
    ]  # fmt: skip
    assert (after["window_size"], after["mean"], after["sd"]) == (3, "11.00", "0.81")
    assert state("2017-06-13 11:33:05", "1") == state("6", "1")
    assert state("2017-06-13 11:33:06", "1") == state("8", "1")
    assert state("2099-01-01 00:00:00", "1") == state("10", "1")
    text = peerwatch("state", "batch", "stream", "--at", "10", "--user", "1").stdout
    for part in ("user       1, as of event 10", "friends    2: 2 4", "the 3 latest", "stream:7"):
        assert part in text


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize(
    ("at", "user", "sentence"),
    [
        ("11", "1", "there is no event 11: the logs end with event 10"),
        ("7", "4", "user 4 does not exist as of event 7: no event has named it yet"),
        ("7", "nobody", "user nobody does not exist as of event 7"),
        ("today", "1", "is not YYYY-MM-DD HH:MM:SS"),
    ],
)
def test_each_wrong_moment_gets_its_sentence(at: str, user: str, sentence: str) -> None:
    """Exit code 2."""
    result = peerwatch("state", "batch", "stream", "--at", at, "--user", user)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr

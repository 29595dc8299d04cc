"""State directories of earlier versions: `data` holds some, written by those versions' own code."""

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from make_state import (
    BATCH,
    CONFIG,
    DATA,
    FIRST,
    FOURTH,
    SECOND,
    STAGES,
    THIRD,
    place_logs,
    run_followed,
    run_trained,
)  # fmt: skip
from support import ROOT

from peerwatch.actors.dispatcher import Dispatcher
from peerwatch.cli.main import cli
from peerwatch.errors import SinkError
from peerwatch.files import follow
from peerwatch.files.tail import Tail
from peerwatch.settings.model import InputSettings
from peerwatch.storage.checkpoints import OLDEST, VERSION, CheckpointEnvelope, read_checkpoint
from peerwatch.storage.migrations import STEPS, StoredCheckpoint, Surroundings

EARLIER = range(OLDEST, VERSION)
INPUTS = InputSettings(batch="batch", stream="stream")
HALF = FOURTH.index(b"\n", len(FOURTH) // 2) + 1
GONE = (
    "peerwatch: stream: neither the file there nor a rotated one still begins with the {:,} bytes that were there when"
    " the checkpoint was taken, which an earlier version has written; bring the log back, finish with the version of"
    " peerwatch that wrote it, or begin anew with --reset"
)
OUTPUTS = ("out", "out.rejects.json", "ledger")


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def newest() -> Path:
    """The newest checkpoint."""
    return max(Path("state").glob("checkpoint-*.npz"))


def stored(path: Path) -> StoredCheckpoint:
    """A checkpoint as it lies there."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    return StoredCheckpoint(msgspec.json.decode(arrays.pop("facts").tobytes()), arrays)


def store(path: Path, checkpoint: StoredCheckpoint) -> None:
    """Write a checkpoint of any version."""
    facts = np.frombuffer(msgspec.json.encode(checkpoint.envelope), np.uint8)
    np.savez(path, facts=facts, **checkpoint.arrays)  # type: ignore[arg-type]


def place(directory: Path, version: int, name: str) -> None:
    """Put what a version has left behind into a directory, as if it had run there, with its logs as they were."""
    copytree(DATA / f"version_{version}" / name, directory, dirs_exist_ok=True)
    (directory / "c.yaml").write_text(CONFIG.format(learning="training"))
    place_logs(directory, *STAGES[name][-1])
    if version == 4:  # it knows outputs by their absolute paths, and none of it moves
        for path in (directory / "state").glob("checkpoint-*.npz"):
            found = stored(path)
            for output in ("flagged", "rejects", "verdicts"):
                before = found.envelope["identity"][output]
                found.envelope["identity"][output] = before and str(directory / Path(before).name)
            store(path, found)


@pytest.fixture(params=EARLIER)
def followed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What each earlier version has left behind of a followed run: three shards, a rotation, a rejected line."""
    monkeypatch.chdir(tmp_path)
    place(tmp_path, request.param, "followed")
    return tmp_path


@pytest.fixture(params=EARLIER)
def trained(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What each earlier version has left behind of a run with a detector that learns."""
    monkeypatch.chdir(tmp_path)
    place(tmp_path, request.param, "trained")
    return tmp_path


@pytest.fixture(autouse=True)
def nobody_reopens_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed file is finished at once: nobody writes to it any more."""
    monkeypatch.setitem(Tail.__init__.__kwdefaults__, "quiet", 0.0)  # type: ignore[arg-type]
    monkeypatch.setattr(follow, "QUIET_SECONDS", 0.01)


def expected_of(monkeypatch: pytest.MonkeyPatch, directory: Path) -> dict[str, bytes]:
    """What the present version writes through the same rotations; the output is that of one run over one file."""
    directory.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(directory)
        place_logs(directory, FIRST + SECOND + THIRD + FOURTH)
        assert peerwatch("run", "batch", "stream", "out", "--verdicts", "ledger").exit_code == 0
        uninterrupted = Path("out").read_bytes()
        place_logs(directory, FIRST + SECOND)
        assert peerwatch(*run_followed("--force")).exit_code == 0
        rotate(THIRD + FOURTH[:HALF])
        assert peerwatch(*run_followed()).exit_code == 0
        rotate(FOURTH[HALF:])
        assert peerwatch(*run_followed()).exit_code == 0
        assert Path("out").read_bytes() == uninterrupted
        return outputs()


def rotate(content: bytes, compress: Callable[[bytes], bytes] | None = None) -> None:
    """The log is renamed, and a new one begun."""
    for number in (2, 1, 0):
        old = Path(f"stream.{number}" if number else "stream")
        if old.exists():
            old.rename(f"stream.{number + 1}")
    if compress is not None:
        Path("stream.1.gz").write_bytes(compress(Path("stream.1").read_bytes()))
        Path("stream.1").unlink()
    Path("stream").write_bytes(content)


def copy_and_truncate(content: bytes) -> None:
    """The log is copied and emptied."""
    own = Path("stream").read_bytes()
    Path("stream.1").rename("stream.2")
    Path("stream.1").write_bytes(own)
    with Path("stream").open("r+b") as file:
        file.truncate()
        file.write(content)


def append(path: str, content: bytes) -> None:
    """Add to a file."""
    with Path(path).open("ab") as file:
        file.write(content)


def outputs() -> dict[str, bytes]:
    """What has been written."""
    return {name: Path(name).read_bytes() for name in OUTPUTS}


def test_a_followed_run_is_gone_on_with(
    followed: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a rotation, behind half a line that a crash has left: the output is that of an uninterrupted run."""
    expected = expected_of(monkeypatch, tmp_path_factory.mktemp("expected") / "run")
    append("out", b'{"half a li')
    append("stream", FOURTH[:HALF])
    result = peerwatch(*run_followed("--shards", "2"))
    assert result.exit_code == 0, result.stderr
    rotate(FOURTH[HALF:])
    result = peerwatch(*run_followed())
    assert result.exit_code == 0, result.stderr
    assert outputs() == expected
    assert {stored(path).envelope["version"] for path in (followed / "state").glob("checkpoint-*")} == {VERSION}


@pytest.mark.parametrize("compress", [None, gzip.compress])
@pytest.mark.usefixtures("followed")
def test_everything_may_be_rotated_after_a_crash_at_once(
    compress: Callable[[bytes], bytes] | None,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first run dies before its first checkpoint; log and output are rotated before the second: exactly once."""
    expected = expected_of(monkeypatch, tmp_path_factory.mktemp("expected") / "run")

    async def die(*_: Any) -> None:
        raise SinkError("killed")

    append("stream", FOURTH[:HALF])
    with monkeypatch.context() as patch:
        patch.setattr(Dispatcher, "run", die)
        assert peerwatch(*run_followed()).exit_code == 1
    rotate(FOURTH[HALF:], compress)
    for name in OUTPUTS:
        Path(name).rename(f"{name}.1")
    result = peerwatch(*run_followed())
    assert result.exit_code == 0, result.stderr
    assert {name: Path(f"{name}.1").read_bytes() + Path(name).read_bytes() for name in OUTPUTS} == expected


@pytest.mark.parametrize("way", [rotate, partial(rotate, compress=gzip.compress), copy_and_truncate])
@pytest.mark.usefixtures("followed")
def test_a_log_that_was_rotated_meanwhile_is_read_to_its_end(
    way: Callable[[bytes], None],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the last run of the earlier version and the first of this one; the old file may be compressed."""
    expected = expected_of(monkeypatch, tmp_path_factory.mktemp("expected") / "run")
    append("stream", FOURTH[:HALF])
    way(FOURTH[HALF:])
    result = peerwatch(*run_followed())
    assert result.exit_code == 0, result.stderr
    found, _ = outputs(), expected.pop("out.rejects.json")
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("version", EARLIER)
def test_a_run_that_was_killed_at_once_begins_where_it_began(
    version: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first event; the log is rotated twice before the next start, and what lay beside it stays unread."""
    expected = expected_of(monkeypatch, tmp_path_factory.mktemp("expected") / "run")
    monkeypatch.chdir(tmp_path)
    place(tmp_path, version, "begun")
    append("stream", SECOND)
    rotate(THIRD + FOURTH[:HALF])
    rotate(FOURTH[HALF:])
    result = peerwatch(*run_followed())
    assert result.exit_code == 0, result.stderr
    found, _ = outputs(), expected.pop("out.rejects.json")
    assert {name: found[name] for name in expected} == expected


@pytest.mark.usefixtures("trained")
def test_a_run_with_models_is_gone_on_with(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its models, journal, threshold and drift detection serve on: the output is that of an uninterrupted run."""
    other = tmp_path_factory.mktemp("expected")
    with monkeypatch.context() as patch:
        patch.chdir(other)
        (other / "c.yaml").write_text(CONFIG.format(learning="training"))
        place_logs(other, FIRST + SECOND + THIRD + FOURTH)
        assert peerwatch("run", "--config", "c.yaml", "batch", "stream", "out").exit_code == 0
        expected = {name: Path(name).read_bytes() for name in OUTPUTS[:2]}
    append("stream", THIRD)
    for more in (FOURTH, b""):
        result = peerwatch(*run_trained())
        assert result.exit_code == 0, result.stderr
        append("stream", more)
    assert {name: Path(name).read_bytes() for name in OUTPUTS[:2]} == expected
    assert b'"model": "5"' in expected["out"]


@pytest.mark.usefixtures("followed")
def test_looking_at_a_followed_run_that_has_not_been_gone_on_with() -> None:
    """`explain`, `verify`, `state` and `status` read the directory, from its checkpoints and bookmarks; none writes."""
    before = {path: path.read_bytes() for path in Path("state").glob("checkpoint-*")}
    logs = ("batch", "stream", "--follow", "--state", "state")
    result = peerwatch("explain", *logs, "--seq", "400", "--json")
    assert result.exit_code == 0, result.stderr
    Path("whole").write_bytes(FIRST + SECOND + THIRD)
    again = peerwatch("explain", "batch", "whole", "--seq", "400", "--json")
    assert again.exit_code == 0, again.stderr
    found, expected = (msgspec.json.decode(each.stdout) for each in (result, again))
    assert found["amount"] == expected["amount"]
    assert without_lines(found) == without_lines(expected)
    result = peerwatch("verify", "batch", "stream", "out", "--follow", "--state", "state", "--audit", "1")
    assert result.exit_code == 0, result.output
    assert peerwatch("state", *logs, "--user", "3", "--at", "430").exit_code == 0
    status = msgspec.json.decode(peerwatch("status", "state", "--json").stdout)
    assert (status["through"], status["running"]) == (435, False)
    label = peerwatch("feedback", "state", "--seq", "400", "--label", "anomaly")
    assert label.exit_code == 0, label.output
    assert before == {path: path.read_bytes() for path in Path("state").glob("checkpoint-*")}


@pytest.mark.usefixtures("trained")
def test_looking_at_a_run_with_models_that_has_not_been_gone_on_with() -> None:
    """The decision is made again by the model that made it."""
    flagged = msgspec.json.decode(Path("out").read_bytes().splitlines()[-1])
    at = ("--user", flagged["id"], "--at", flagged["timestamp"])
    result = peerwatch("explain", "--config", "c.yaml", "batch", "stream", "--state", "state", *at, "--json")
    assert result.exit_code == 0, result.stderr
    assert str(msgspec.json.decode(result.stdout)["model"]) == flagged["model"]
    result = peerwatch("verify", "--config", "c.yaml", "batch", "stream", "out", "--state", "state")
    assert result.exit_code == 0, result.output


def steps_of(version: int) -> list[StoredCheckpoint]:
    """The newest checkpoint as that version has written it, and as each step leaves it."""
    found = [stored(newest())]
    assert found[0].envelope["version"] == version
    while found[-1].envelope["version"] < VERSION:
        step = STEPS[found[-1].envelope["version"]]
        found.append(step(found[-1], Surroundings(Path("state"), INPUTS)))
    return found


def without_lines(value: Any) -> Any:
    """Plain JSON without files and line numbers, which differ where the log has been rotated."""
    if isinstance(value, dict):
        return {key: without_lines(each) for key, each in value.items() if key not in {"file", "line"}}
    return [without_lines(each) for each in value] if isinstance(value, list) else value


def without_places(value: Any) -> Any:
    """Plain JSON without what depends on the disk: devices, inodes, times and absolute paths."""
    if isinstance(value, dict):
        local = {"device", "inode", "taken", "absolute"}
        return {key: without_places(each) for key, each in value.items() if key not in local}
    if isinstance(value, list) and len(value) == 7 and isinstance(value[0], list):  # a file that has been seen
        return [value[0], value[3], *value[5:]]
    return [without_places(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", STAGES)
def test_version_4_becomes_exactly_what_version_5_has_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both versions have judged the same logs in the same steps: all facts and arrays are equal, but for the disk's."""
    found = []
    for version in (4, 5):
        directory = tmp_path / str(version)
        place(directory, version, name)
        monkeypatch.chdir(directory)
        found.append(next(step for step in steps_of(version) if step.envelope["version"] == 5))
        if name == "trained":  # version 5 looks only beside logs that it follows
            found[-1].envelope["facts"]["seen"]["files"].clear()
    assert without_places(found[0].envelope) == without_places(found[1].envelope)
    assert found[0].arrays.keys() == found[1].arrays.keys()
    for array in found[0].arrays:
        assert found[0].arrays[array].dtype == found[1].arrays[array].dtype
        assert np.array_equal(found[0].arrays[array], found[1].arrays[array], equal_nan=True), array


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("version", EARLIER)
def test_the_last_step_gives_just_what_the_present_version_writes(
    version: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fact has its place in the present envelope, and none of them is missing."""
    monkeypatch.chdir(tmp_path)
    place(tmp_path, version, name)
    last = steps_of(version)[-1]
    envelope = msgspec.json.decode(msgspec.json.encode(last.envelope), type=CheckpointEnvelope)
    assert msgspec.json.decode(msgspec.json.encode(envelope)) == last.envelope
    assert envelope.names == sorted(last.arrays)
    assert read_checkpoint(newest(), INPUTS).envelope == envelope


def test_the_page_names_the_present_version() -> None:
    """And the earliest that can be gone on with."""
    page = " ".join((ROOT / "docs" / "live.md").read_text().split())
    assert f"if its checkpoints have format version {OLDEST} or later (the present one is {VERSION})" in page


def test_there_is_a_step_from_every_earlier_version() -> None:
    """And to the present one."""
    assert sorted(STEPS) == [*EARLIER]


@pytest.fixture
def version_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What version 4 has left behind of a followed run."""
    monkeypatch.chdir(tmp_path)
    place(tmp_path, 4, "followed")
    return tmp_path


def change_facts(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Let `change` change the facts of a checkpoint."""
    found = stored(path)
    change(found.envelope["facts"])
    store(path, found)


def empty_next(facts: dict[str, Any]) -> None:
    """The first file has been read to its end, and the next was still empty when it was opened."""
    facts["position"] |= {"offset": 0, "line": 1, "head": "", "modified": Path("stream.1").stat().st_mtime_ns}


@pytest.mark.parametrize("change", [lambda _: None, empty_next])
@pytest.mark.usefixtures("version_4")
def test_an_older_checkpoint_serves_as_well(
    change: Callable[[dict[str, Any]], None], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The position is at the end of the rotated file, or before the first byte of the next; the output has more."""
    expected = expected_of(monkeypatch, tmp_path_factory.mktemp("expected") / "run")
    newest().unlink()
    change_facts(newest(), change)
    append("stream", FOURTH[:HALF])
    assert peerwatch(*run_followed()).exit_code == 0
    rotate(FOURTH[HALF:])
    assert peerwatch(*run_followed()).exit_code == 0
    assert outputs() == expected


def test_a_log_that_was_not_there_at_the_beginning_is_read_from_its_first_file(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came and was rotated after version 4 had been killed; what had been written before stays unread."""
    expected = expected_of(monkeypatch, tmp_path_factory.mktemp("expected") / "run")
    monkeypatch.chdir(tmp_path)
    place(tmp_path, 4, "begun")
    place_logs(tmp_path, FIRST + SECOND, THIRD + FOURTH[:HALF], FOURTH[HALF:])
    nothing = {"device": 0, "inode": 0, "head": "", "modified": Path("stream.9").stat().st_mtime_ns}
    change_facts(newest(), lambda facts: facts["began"].update(nothing))
    assert peerwatch(*run_followed()).exit_code == 0
    assert Path("out").read_bytes() == expected["out"]


def change_a_line_feed(path: str) -> None:
    """The same length, but another number of lines."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:2000].replace(b"\n", b" ") + content[2000:])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: Path("stream").unlink(),
        lambda: Path("stream").write_bytes(THIRD[:-100]),
        lambda: Path("stream").write_bytes(FOURTH + THIRD),
        lambda: change_a_line_feed("stream"),
    ],
)
@pytest.mark.usefixtures("version_4")
def test_a_log_that_no_longer_fits_is_refused(spoil: Callable[[], object]) -> None:
    """Gone, cut, replaced or edited: what would be judged twice or not at all cannot be known."""
    spoil()
    before = outputs()
    result = peerwatch(*run_followed())
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == GONE.format(len(THIRD))
    assert outputs() == before
    assert stored(newest()).envelope["version"] == 4


def test_a_log_that_is_gone_before_its_first_event_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 4 knows the first 1,024 bytes of the file with which the log began."""
    monkeypatch.chdir(tmp_path)
    place(tmp_path, 4, "begun")
    Path("stream").write_bytes(FOURTH)
    result = peerwatch(*run_followed())
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == GONE.format(1024)


@pytest.mark.parametrize("name", ["out", "out.rejects.json"])
@pytest.mark.usefixtures("version_4")
def test_an_output_that_no_longer_fits_is_refused(name: str) -> None:
    """Shorter, or with other lines than the checkpoint counts."""
    whole = Path(name).read_bytes()
    for content in (whole[:-1], b"", whole.replace(b"\n", b" ", 1)):
        Path(name).write_bytes(content)
        result = peerwatch(*run_followed())
        assert result.exit_code == 2
        assert f"{name} does not hold the {len(whole):,} bytes that had been written" in result.stderr
        assert Path(name).read_bytes() == content
    assert stored(newest()).envelope["version"] == 4


@pytest.mark.usefixtures("version_4")
def test_files_that_were_read_long_ago_may_be_gone(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on; only what needs them to look back is refused."""
    expected = expected_of(monkeypatch, tmp_path_factory.mktemp("expected") / "run")
    Path("stream.1").unlink()
    result = peerwatch("verify", "batch", "stream", "out", "--follow", "--state", "state")
    assert result.exit_code == 2
    assert "stream: file number 1 of the log is gone, or has changed" in result.stderr
    append("stream", FOURTH[:HALF])
    assert peerwatch(*run_followed()).exit_code == 0
    rotate(FOURTH[HALF:])
    assert peerwatch(*run_followed()).exit_code == 0
    assert outputs() == expected


@pytest.mark.parametrize(("version", "who"), [(VERSION + 1, "a newer peerwatch"), (OLDEST - 1, "an early peerwatch")])
@pytest.mark.usefixtures("followed")
def test_an_unknown_version_is_refused(version: int, who: str) -> None:
    """It is no damage: the checkpoint before it must not serve, nor may it be thrown away."""
    path = newest()
    found = stored(path)
    found.envelope["version"] = version
    store(path, found)
    before = {file: file.read_bytes() for file in [*Path("state").iterdir(), *map(Path, OUTPUTS)]}
    message = (
        f"peerwatch: the checkpoint {path} is of format version {version}, written by {who}; this one reads versions"
        f" {OLDEST} to {VERSION}: go on with the one that wrote it, or begin anew with --reset"
    )
    for command in (
        run_followed(),
        ["explain", "batch", "stream", "--follow", "--state", "state", "--seq", "400"],
        ["verify", "batch", "stream", "out", "--follow", "--state", "state"],
        ["feedback", "state", "--seq", "400", "--label", "anomaly"],
    ):
        result = peerwatch(*command)
        assert result.exit_code == 2, result.output
        assert result.stderr.splitlines()[-1] == message
    assert before == {file: file.read_bytes() for file in before}
    assert peerwatch(*run_followed("--reset", "--force")).exit_code == 0


def test_the_data_are_of_the_logs() -> None:
    """What each version has written belongs to the logs that the tests put beside it."""
    for version in EARLIER:
        for name in ("followed", "trained"):
            directory = DATA / f"version_{version}" / name
            facts = stored(max((directory / "state").glob("checkpoint-*.npz"))).envelope["facts"]
            read = len(BATCH + FIRST + SECOND + (THIRD if name == "followed" else b"")) - len(b'{"D":"2", "T":"9"}\n')
            assert facts["progress"][0] == read
            assert (directory / "out").read_bytes().count(b"\n") == facts["flagged"] > 3

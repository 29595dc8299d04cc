"""Every decision as Parquet."""

import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from anyio.to_thread import run_sync
from support import befriend, purchase

import peerwatch
from peerwatch.cli.main import cli
from peerwatch.connectors.parquet_decisions import DecisionsFile
from peerwatch.connectors.records import DecisionRow
from peerwatch.errors import SinkError, UsageError

BATCH = b'{"D":"2", "T":"5"}\n' + befriend(1, 2) + befriend(2, 3) + purchase(3, "7")
LINES = [purchase(number % 4, "900" if number % 37 == 36 else str(number % 9 + 1)) for number in range(400)]
LINES[50] = b"no event\n"
LINES[60] = purchase(2, "1e200")


def run(*options: str, code: int = 0) -> None:
    """Run the command, which is to end with `code`."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "-q", "batch", "stream", "out", *options])
    assert ended.value.code == code


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both logs, and the current one."""
    (tmp_path / "batch").write_bytes(BATCH)
    (tmp_path / "stream").write_bytes(b"".join(LINES))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def as_api() -> list[tuple[object, ...]]:
    """What the Python API says of the same logs."""
    return [
        (
            one.seq, "stream", one.line, one.user, one.timestamp, float(one.amount), one.flagged, one.window_size,
            float(one.mean) if one.mean is not None else None, float(one.sd) if one.sd is not None else None,
            one.network_size, None, None, None, None,
        )
        for one in peerwatch.judge("batch", "stream")
    ]  # fmt: skip


def rows(path: str) -> list[tuple[object, ...]]:
    """The rows of a file or of a folder of parts."""
    table = pq.read_table(path)
    assert table.column_names == [*DecisionRow.__struct_fields__]
    return [tuple(row.values()) for row in table.to_pylist()]


def test_every_decision_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    """Normal ones as well, as the Python API gives them; a file that is there is not overwritten without --force."""
    run("--decisions-file", "all.parquet", "--shards", "3")
    assert rows("all.parquet") == as_api()
    assert len(as_api()) == 399
    run("--decisions-file", "all.parquet", code=2)
    assert "all.parquet is there already; name another --decisions-file, or add --force" in capsys.readouterr().err
    run("--decisions-file", "all.parquet", "--force")
    assert not [*Path().glob("*.new")]


@pytest.mark.parametrize("cut", [1, 100, 399])
def test_no_part_is_there_twice_after_a_crash(logs: Path, cut: int) -> None:
    """Parts behind the checkpoint, and unfinished ones, are removed by the run that goes on; nothing is missing."""
    (logs / "stream").write_bytes(b"".join(LINES[:cut]))
    run("--decisions-file", "all", "--state", "state")
    whole = {path.name: path.read_bytes() for path in (logs / "all").iterdir()}
    (logs / "all" / "part-000002.parquet").write_bytes(b"of a run that died behind its checkpoint")
    (logs / "all" / "part-000003.parquet.new").write_bytes(b"unfinished")
    (logs / "stream").write_bytes(b"".join(LINES))
    run("--decisions-file", "all", "--state", "state")
    assert {path.name for path in (logs / "all").iterdir()} == {"part-000001.parquet", "part-000002.parquet"}
    assert (logs / "all" / "part-000001.parquet").read_bytes() == whole["part-000001.parquet"]
    assert rows("all") == as_api()
    run("--decisions-file", "all", "--state", "state")
    assert rows("all") == as_api()


def test_mistakes_are_told(logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for a file, a file for a folder, standard output, a lost part, another name, no pyarrow."""
    for options, message in (
        (("--decisions-file", "."), ". is a directory; name a file in it"),
        (("--decisions-file", "out", "--state", "s"), "out is named for the decisions file and for the output"),
        (("--decisions-file", "batch", "--follow"), "batch is named for the decisions file and for the batch log"),
        (("--decisions-file", "-"), "decisions cannot go to standard output; name a file"),
        (("--decisions-file", "no/where/d"), "cannot write the decisions no/where/d: "),
    ):
        run(*options, code=1 if "no/where" in options[1] else 2)
        assert message in capsys.readouterr().err
    (logs / "file").touch()
    run("--decisions-file", "file", "--state", "s", code=2)
    assert "file is a file, and here decisions are written in parts; name a folder" in capsys.readouterr().err
    run("--decisions-file", "all", "--state", "state")
    run("--decisions-file", "other", "--state", "state", code=2)
    assert '"output.decisions"' in capsys.readouterr().err
    (logs / "all" / "part-000001.parquet").unlink()
    run("--decisions-file", "all", "--state", "state", code=2)
    assert "part-000001.parquet is gone; bring it back, or begin anew with --reset" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    run("--decisions-file", "x", "--force", code=2)
    assert "Parquet needs pyarrow; install it: pip install 'peerwatch[parquet]'" in capsys.readouterr().err


async def test_a_full_disk_leaves_no_half_file(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file; what is not complete has no name that a reader would take for it."""
    file, stack = DecisionsFile("all", parts=True), AsyncExitStack()
    await file.open(stack)
    await file.start()
    row = DecisionRow(1, "f", 1, "u", 0, "1.00", False, 0, None, None, None, None, None, None, None)  # noqa: FBT003
    await file.write([row] * 10)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("peerwatch.durable.fsync", full)
        with pytest.raises(SinkError, match="cannot write the decisions all: No space left on device; fix that"):
            await file.sync()
    await stack.aclose()
    assert not await run_sync(lambda: [*(logs / "all").glob("part-*.parquet")])
    with pytest.raises(UsageError, match=r"part-000001.parquet is gone"):
        await file.start(1)

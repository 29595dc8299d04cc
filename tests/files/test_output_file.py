"""An output that others rotate: across all its files every byte is there once, whatever happens when."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rotations import COMPRESS, Log, decompressed, line
from strategies import examples

from peerwatch.errors import SinkError, UsageError
from peerwatch.files.output_file import OutputFile, Written, open_output


def is_provisional(line: bytes) -> bool:
    """Whether a run ended with the line."""
    return line.startswith(b"ended ")


class Writer:
    """Writes lines to an output, and can be killed and started again from its last checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.number = 0
        self.start(None)
        self.kept = (self.file.sync(), 0)

    def start(self, written: Written | None, *, force: bool = False) -> None:
        """A new process."""
        self.file = OutputFile(self.path, open_output(self.path), self.warnings.append, is_provisional)
        self.file.begin(written, force=force)

    def checkpoint(self) -> None:
        """Remember how far it has come."""
        self.kept = (self.file.sync(), self.number)

    def end(self) -> None:
        """A run's end, at which a line is written that a run that goes on writes differently."""
        self.file.write(b"ended %d\n" % self.number)
        self.file.close()

    def kill(self, *, force: bool = False) -> None:
        """Killed and started again: what came behind the checkpoint is written again."""
        self.file.close()
        self.restart(force=force)

    def restart(self, *, force: bool = False) -> None:
        """What came behind the checkpoint is written again."""
        self.start(self.kept[0], force=force)
        number, self.number = self.number, self.kept[1]
        self.write(number - self.number)

    def write(self, count: int = 1) -> None:
        """The next lines, in one piece."""
        self.file.write(b"".join(line(number) for number in range(self.number, self.number + count)))
        self.number += count

    @property
    def expected(self) -> bytes:
        """All that has been written."""
        return b"".join(map(line, range(self.number)))


class Rotator(Log):
    """Somebody who rotates the output, but writes nothing to it."""

    @property
    def content(self) -> bytes:
        """All files together, without the provisional lines, which are at the ends of files."""
        there = self.path.read_bytes() if self.path.exists() else b""
        files = [*map(decompressed, reversed(self.rotated)), there]
        for file in files:
            assert not any(map(is_provisional, file.splitlines()[:-1]))
        return b"".join(one for file in files for one in file.splitlines(keepends=True) if not is_provisional(one))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of an output."""
    return tmp_path / "out.json"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    """A writer that has written three lines and taken a checkpoint."""
    writer = Writer(path)
    writer.write(3)
    writer.checkpoint()
    yield writer
    writer.file.close()


@settings(max_examples=examples(300))
@given(
    moves=st.lists(
        st.sampled_from(
            [
                "write",
                "write",
                "much",
                "rename",
                "take away",
                "copy",
                "compress",
                "look",
                "keep",
                "kill",
                "end",
                "ended",
            ]
        ),
        max_size=25,
    ),
    scheme=st.sampled_from(["number", "date", "infix", "seconds"]),
    ending=st.sampled_from(sorted(COMPRESS)),
)
def test_every_byte_is_there_once(
    moves: list[str], scheme: str, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Renamed with or without a new file, copied and truncated, compressed, killed, ended, in any order."""
    directory = tmp_path_factory.mktemp("output")
    path = directory / "out.json"
    writer = Writer(path)
    rotator = Rotator(path, scheme)
    for move in moves:
        if move in {"write", "much"}:
            writer.write(100 if move == "much" else 1)
        elif move == "copy":
            if path.exists():
                rotator.copytruncate()
        elif move in {"rename", "take away"}:
            if path.exists():
                rotator.rename()
            if move == "take away":
                path.unlink(missing_ok=True)
        elif move == "compress":
            rotator.compress(0, ending)
        elif move == "look":
            writer.file.look()
        elif move == "keep":
            writer.checkpoint()
        elif move in {"end", "end!"}:
            writer.end()
            if move == "end!":
                rotator.rename()
                rotator.compress(0, ending)
            writer.restart()
        else:
            writer.kill()
        assert rotator.content == writer.expected
    writer.file.close()
    shutil.rmtree(directory)


def test_a_file_that_was_moved_away_is_noticed_without_a_write(writer: Writer, path: Path) -> None:
    """The new one has the rights of the old one; it is told once."""
    path.chmod(0o640)
    path.rename(f"{path}.1")
    for _ in range(3):
        writer.file.look()
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"", 0o640)
    writer.write()
    assert path.read_bytes() == line(3)
    assert writer.warnings == [f"{path} has been moved away; what is written from now on goes into a new file there"]


def test_a_file_that_was_deleted_is_made_anew(writer: Writer, path: Path) -> None:
    """Nothing is written into nothing."""
    path.unlink()
    writer.write()
    assert path.read_bytes() == line(3)
    assert writer.warnings == [f"{path} has been deleted; what is written from now on goes into a new file there"]
    writer.checkpoint()
    writer.kill()
    assert path.read_bytes() == line(3)


def test_a_file_that_was_emptied_has_no_hole(writer: Writer, path: Path) -> None:
    """Writing goes on at its start."""
    os.truncate(path, 0)
    writer.write()
    assert path.read_bytes() == line(3)
    (warning,) = writer.warnings
    assert warning.startswith(f"{path} was cut to 0 bytes by somebody else; writing goes on at its end")


def test_what_somebody_else_appends_stays(writer: Writer, path: Path) -> None:
    """And is told; what is written goes behind it."""
    with path.open("ab") as file:
        file.write(b"by somebody\n")
    writer.write()
    writer.checkpoint()
    writer.kill()
    assert path.read_bytes() == b"".join(map(line, range(3))) + b"by somebody\n" + line(3)
    (warning,) = writer.warnings
    assert warning.startswith(f"{path} had 12 bytes added by somebody else")


@pytest.mark.parametrize("gone", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_what_is_nowhere_to_be_found_is_refused(writer: Writer, path: Path, gone: object) -> None:
    """Unless a new file is asked for."""
    gone(path)  # type: ignore[operator]
    with pytest.raises(UsageError) as refused:
        writer.kill()
    assert str(refused.value) == (
        f"{path} does not hold the 66 bytes that had been written when the checkpoint was taken, nor does a rotated"
        " file beside it; bring it back, add --force to begin a new file, or begin anew with --reset"
    )
    writer.kill(force=True)
    writer.write()
    assert path.read_bytes() == line(3)


def test_a_rotated_file_that_was_changed_is_refused_when_that_is_found(writer: Writer, path: Path) -> None:
    """What is judged again must be what stands there, else it would be neither once nor complete."""
    writer.write(2)
    path.rename(f"{path}.1")
    content = Path(f"{path}.1").read_bytes()
    Path(f"{path}.1").write_bytes(content[:-3] + b"x" + content[-2:])
    writer.start(writer.kept[0])
    writer.number = 3
    with pytest.raises(SinkError, match="1 holds something else after byte 66 than has been judged again; bring back"):
        writer.write(2)


def test_where_no_new_file_can_be_made_the_old_one_is_written_on(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it can; only where the old one is deleted the run has to end."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path.rename(f"{path}.1")
    with monkeypatch.context() as patch:
        patch.setattr("peerwatch.files.output_file.open_output", refuse)
        writer.write()
        writer.write()
        assert Path(f"{path}.1").read_bytes() == writer.expected
        (warning,) = writer.warnings
        problem = f"{path} was moved away, and a new one cannot be made: Permission denied"
        assert warning == f"{problem}; writing goes on where it is now"
        Path(f"{path}.1").unlink()
        with pytest.raises(SinkError, match=f"{problem}; fix that and run again"):
            writer.write()
    writer.write()
    assert path.read_bytes() == line(5)


def test_a_copy_at_another_place_goes_on(writer: Writer, path: Path) -> None:
    """After a move to another volume, though what was copied lies beside it."""
    writer.write(100)
    writer.checkpoint()
    writer.write()
    path.rename(f"{path}.bak")
    shutil.copy2(f"{path}.bak", path)
    writer.kill()
    assert path.read_bytes() == writer.expected

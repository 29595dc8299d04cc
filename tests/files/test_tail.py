"""Following a log through everything that rotates logs and tampers with them, while running and while down."""

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rotations import COMPRESS, Follower, Log, line
from strategies import examples

from peerwatch.files import stored_file, tail
from peerwatch.files.position import EDGE
from peerwatch.files.seen import Lost
from peerwatch.files.tail import Beginning, look_at

MOVES: Final = (
    "write", "write", "much", "rename", "rename", "copy", "compress", "read", "read", "step", "peek", "kill", "kill",
    "move all", "copied", "clock", "touch", "late", "foreign", "empty", "edit", "block", "unblock",
)  # fmt: skip


class Blocked:
    """Files that may not be opened for a while."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand between peerwatch and the system."""
        opened = stored_file.descriptor_of

        def refuse(path: Path) -> int:
            if path in self.paths:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return opened(path)

        stored_file.descriptor_of = refuse
        try:
            yield
        finally:
            stored_file.descriptor_of = opened


class Play:
    """A log and its follower, moved in any order; after each move the follower has read what it should have."""

    def __init__(self, directory: Path, scheme: str, link: str, chunk: int, rng: random.Random) -> None:
        self.log = Log(directory / "log.json", scheme, link)
        self.rng = rng
        self.log.write(rng.choice([1, 100]))
        rotated = str(directory / "old" / "*") if scheme == "elsewhere" else None
        self.follower = Follower(self.log.path, chunk, rotated)
        self.blocked = Blocked()
        self.warned = False
        """Whether something has happened of which it warns."""
        self.gone = False
        """Whether something that has been read is not there any more."""

    def move(self, name: str) -> None:
        """One move."""
        getattr(self, name.replace(" ", "_"))()

    def read(self) -> None:
        """All that is there, which is all if nothing is in the way."""
        lines = self.follower.catch_up()
        assert lines == (self.log.lines[: len(lines)] if self.blocked.paths else self.log.lines)

    def read_again(self) -> list[bytes]:
        """All lines from the beginning, as far as they had been read then."""
        beginning = Beginning(seen=self.follower.tail.seen(), again=True)
        again = tail.Tail(self.log.path, beginning, pytest.fail, rotated=self.follower.rotated, quiet=0.0)
        found = b""
        while (lines := again.read()) is not None:
            found += lines.content
        again.close()
        return found.splitlines(keepends=True)

    def caught_up(self) -> bool:
        """Read all, with something in the newest file; whether nothing is in the way of that."""
        if not self.blocked.paths:
            self.log.write(self.rng.choice([1, 100]))
            self.read()
        return not self.blocked.paths

    def again(self) -> None:
        """Read all again, perhaps after a kill."""
        if self.rng.random() < 0.5:
            self.follower.restart()
        self.read()

    def write(self) -> None:
        """A line."""
        self.log.write()

    def much(self) -> None:
        """More than what is compared each time."""
        self.log.write(100)

    def rename(self) -> None:
        """A file that stays empty is no generation."""
        self.log.write()
        self.log.rename()

    def copy(self) -> None:
        """Only where names give the order of all rotated files."""
        if self.log.link == "no":
            self.log.write()
            self.log.copytruncate()

    def compress(self) -> None:
        """Any of the rotated files."""
        self.log.compress(self.rng.randrange(100), self.rng.choice(sorted(COMPRESS)))

    def step(self) -> None:
        """Read once only."""
        self.follower.step()

    def peek(self) -> None:
        """Read all without a checkpoint."""
        while self.follower.step():
            pass

    def kill(self) -> None:
        """Back to the last checkpoint."""
        self.follower.restart()

    def move_all(self) -> None:
        """Other inodes."""
        self.log.move_all()

    def copied(self) -> None:
        """Another inode, and perhaps a longer file before anybody looks."""
        self.log.replace_by_copy()

    def clock(self) -> None:
        """Set back or forth by hours."""
        self.log.clock += self.rng.choice([-1, 1]) * 10**9 * 3600 * self.rng.randrange(1, 48)

    def touch(self) -> None:
        """Any rotated file."""
        if self.log.rotated:
            self.log.touch(self.rng.choice(self.log.rotated))

    def late(self) -> None:
        """A writer goes on in a file that has been read to its end and is finished."""
        if self.log.rotated and self.caught_up():
            path = self.rng.choice(self.log.rotated)
            if path.suffix not in COMPRESS:
                with path.open("ab") as file:
                    file.write(b"late\n")
                self.warned = True
                self.again()

    def foreign(self) -> None:
        """Somebody else's file, whose name looks as if it were the log's, and which is written to again and again."""
        if self.caught_up():
            name = self.rng.choice(["log.json-2", "log-5.json", "log.json.bak", "log.json~", "log.json.20991231"])
            with (self.log.real.parent / name).open("ab") as file:
                file.write(b"foreign\n" * self.rng.choice([1, 1000]))
            self.again()

    def empty(self) -> None:
        """Emptied without a copy when all has been read, and perhaps longer than before when it is looked at."""
        if self.caught_up():
            os.truncate(self.log.path, 0)
            self.log.write(self.rng.choice([1, 400]))
            self.warned = self.gone = True
            self.again()

    def edit(self) -> None:
        """What was before the position is changed."""
        if self.caught_up():
            self.log.edit()
            self.warned = self.gone = True
            self.again()

    def block(self) -> None:
        """Some files cannot be opened for now."""
        files = [self.log.path, self.log.real, *self.log.rotated]
        self.blocked.paths |= set(self.rng.sample(files, self.rng.randrange(1, len(files))))
        self.warned = True

    def unblock(self) -> None:
        """All can be opened again."""
        self.blocked.paths.clear()


@settings(max_examples=examples(300))
@given(
    moves=st.lists(st.sampled_from(MOVES), max_size=25),
    scheme=st.sampled_from(["number", "date", "infix", "seconds", "elsewhere"]),
    link=st.sampled_from(["no", "no", "beside", "elsewhere"]),
    chunk=st.sampled_from([7, 64, 1 << 18]),
    seed=st.integers(0, 2**32),
)
def test_every_line_is_read_once_and_in_order(
    moves: list[str], scheme: str, link: str, chunk: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever happens to the files in whatever order: no line is lost, repeated or out of place.

    And all of it can be read again, if it is still there.

    Writes, rotations by both methods under many names, links, compression, kills, other inodes, copies put into the
    file's place, clocks set back and forth, files that cannot be opened for a while, late writers, foreign files that
    look like the log's, emptied and edited files. Nothing is warned of without a reason.
    """
    directory = tmp_path_factory.mktemp("tail")
    play = Play(directory, scheme, link, chunk, random.Random(seed))
    with play.blocked.installed():
        for move in moves:
            play.move(move)
        play.unblock()
        play.write()
        play.read()
    assert play.warned or play.follower.warnings == []
    play.follower.stop()
    if not play.gone:
        assert play.read_again() == play.log.lines
    shutil.rmtree(directory)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log with three lines."""
    log = Log(tmp_path / "log.json")
    log.write(3)
    return log


@pytest.fixture
def follower(log: Log) -> Iterator[Follower]:
    """A follower of the log that has read its three lines."""
    follower = Follower(log.path)
    assert follower.catch_up() == log.lines
    yield follower
    follower.stop()


@pytest.mark.parametrize("method", [Log.rename, Log.copytruncate])
@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("ending", ["", *COMPRESS])
def test_rotations_while_down_are_caught_up(
    log: Log, follower: Follower, method: Callable[[Log], None], times: int, ending: str
) -> None:
    """The unread files are found among the rotated ones, in order, also compressed at once."""
    follower.stop()
    for _ in range(times):
        log.write(2)
        method(log)
        if ending:
            log.compress(0, ending)
    log.write(2)
    follower.start()
    assert follower.catch_up() == log.lines
    assert follower.warnings == []


def test_the_file_may_come_later(tmp_path: Path) -> None:
    """Nothing there is nothing new; what is rotated before the first look is read too."""
    path = tmp_path / "log.json"
    follower = Follower(path)
    assert follower.catch_up() == []
    log = Log(path)
    log.write()
    log.rename()
    log.write()
    assert follower.catch_up() == log.lines
    assert follower.warnings == []
    follower.stop()


def test_what_was_rotated_before_the_first_start_is_left_alone(log: Log) -> None:
    """Also if it is written to, touched, compressed or moved to other inodes later."""
    log.rename()
    log.write(100)
    log.rename()
    log.write()
    del log.lines[:-1]
    follower = Follower(log.path)
    assert follower.catch_up() == log.lines
    with log.rotated[0].open("ab") as file:
        file.write(b"late\n")
    log.compress(1, ".gz")
    log.move_all()
    log.write()
    log.rename()
    log.write()
    follower.restart()
    assert follower.catch_up() == log.lines
    assert follower.warnings == []
    follower.stop()


def test_another_file_under_the_same_inode_is_read_from_its_start(log: Log, follower: Follower) -> None:
    """Emptied and filled with more than had been read while down: told, and judged from the start."""
    follower.stop()
    content = b"another file whose first bytes differ\n" * 20
    log.path.write_bytes(content)
    follower.start()
    assert b"".join(follower.catch_up()[3:]) == content
    (warning,) = follower.warnings
    assert warning.endswith("log.json: the file that was being read is gone; what stood after byte 66 is lost")
    assert follower.tail.seen().lost == Lost(1, 0)


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("lines", [1, 3, 400])
def test_an_emptied_file_is_told_from_one_that_grew(log: Log, follower: Follower, lines: int, *, down: bool) -> None:
    """Also when it is as long as before, or longer, by the time it is looked at."""
    os.truncate(log.path, 0)
    log.write(lines)
    if down:
        follower.restart()
    assert follower.catch_up() == log.lines
    (warning,) = follower.warnings
    assert warning.endswith("after byte 66 is lost" if down else "lines, if there were any, after byte 66 are lost")


def test_an_emptied_file_is_told_even_if_its_edges_are_the_same(tmp_path: Path) -> None:
    """After a restart the sum of all that had been read is compared, not only its first and last bytes."""
    path, edge = tmp_path / "log.json", b"x" * EDGE + b"\n"
    path.write_bytes(edge + b"one\n" + edge)
    follower = Follower(path)
    follower.catch_up()
    path.write_bytes(edge + b"two\n" + edge + b"more\n")
    follower.restart()
    assert follower.catch_up()[3:] == [edge, b"two\n", edge, b"more\n"]
    follower.stop()


def test_an_emptied_file_is_told_while_running_by_its_last_bytes(tmp_path: Path) -> None:
    """Though it begins as before, as logs do that begin with a heading, and is longer than before."""
    path, heading = tmp_path / "log.json", b"x" * EDGE + b"\n"
    path.write_bytes(heading + b"one\n")
    follower = Follower(path)
    follower.catch_up()
    path.write_bytes(heading + b"two\nthree\n")
    assert follower.catch_up() == [heading, b"one\n", heading, b"two\n", b"three\n"]
    assert len(follower.warnings) == 1
    follower.stop()


@pytest.mark.parametrize("lines", [0, 1, 100])
def test_files_that_begin_alike_are_told_apart(tmp_path: Path, lines: int) -> None:
    """A short file that was read to its end is no reason not to read a longer one that begins like it."""
    log, heading = Log(tmp_path / "log.json"), b"a heading\n"
    log.path.write_bytes(heading)
    follower = Follower(log.path)
    follower.catch_up()
    log.rename()
    log.path.write_bytes(heading + line(1))
    expected = [heading, heading, line(1)]
    assert follower.catch_up() == expected
    follower.stop()
    for number in range(2):
        log.rename()
        log.path.write_bytes(heading + b"".join(line(1000 * number + each) for each in range(lines + 1)))
        expected += log.path.read_bytes().splitlines(keepends=True)
    follower.start()
    assert follower.catch_up() == expected
    assert follower.warnings == []
    follower.stop()


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("lines", [3, 400])
def test_an_edited_file_is_judged_from_its_start_and_that_is_told(tmp_path: Path, lines: int, *, down: bool) -> None:
    """What had been read before the position has changed: it is another log."""
    log = Log(tmp_path / "log.json")
    log.write(lines)
    follower = Follower(log.path)
    follower.catch_up()
    if down:
        follower.stop()
    log.edit()
    if down:
        follower.start()
    assert follower.catch_up() == log.lines
    (warning,) = follower.warnings
    changed = f"up to byte {22 * lines:,}, has changed: it is another log now, judged from its start"
    gone = "the file that was being read is gone; what stood after byte 66 is lost"
    replaced = "deleted or replaced; what stands at the path now is another log, judged from its start"
    assert warning.endswith((changed if lines == 400 else gone) if down else replaced)
    follower.stop()


@pytest.mark.parametrize("down", [True, False])
def test_a_longer_copy_of_the_file_goes_on(log: Log, follower: Follower, *, down: bool) -> None:
    """As rsync leaves one: another inode, the same bytes and more."""
    log.replace_by_copy()
    log.write(5)
    if down:
        follower.restart()
    assert follower.catch_up() == log.lines
    assert follower.warnings == []


def test_a_deleted_file_that_comes_back(log: Log, follower: Follower) -> None:
    """While the path is empty the old file is read on; then the new one is read from its start, and that is told."""
    with log.path.open("ab") as still_open:
        log.path.unlink()
        assert follower.catch_up() == log.lines
        still_open.write(line(log.number))
    log.lines.append(line(log.number))
    log.number += 1
    assert follower.catch_up() == log.lines
    assert follower.warnings == []
    log.write(2)
    assert follower.catch_up() == log.lines
    assert len(follower.warnings) == 1


def test_the_old_file_is_read_on_until_the_new_one_has_something(log: Log, follower: Follower) -> None:
    """A writer may go on in the renamed file until it opens the new one."""
    with log.path.open("ab") as still_open:
        log.rename()
        assert follower.catch_up() == log.lines
        still_open.write(line(log.number))
    log.lines.append(line(log.number))
    log.number += 1
    assert follower.catch_up() == log.lines
    log.write()
    assert follower.catch_up() == log.lines


def test_a_renamed_file_is_finished_when_nobody_has_written_to_it_for_a_second(log: Log) -> None:
    """Some writers open the new file later than others; what they put into the old one until then comes first."""
    clock = [0.0]
    follower = Follower(log.path)
    follower.tail.close()
    follower.tail = tail.Tail(log.path, look_at(log.path), follower.warnings.append, now=lambda: clock[0])
    assert follower.catch_up() == log.lines
    log.rename()
    old = log.rotated[0]
    log.write()
    written = old.stat().st_mtime
    clock[0] = written + 0.5
    assert follower.catch_up() == log.lines[:-1]
    assert follower.tail.holds_back
    with old.open("ab") as file:
        file.write(b"by a writer that reopens late\n")
    os.utime(old, (written, written))
    clock[0] = written + 1.5
    assert follower.catch_up() == [*log.lines[:-1], b"by a writer that reopens late\n", log.lines[-1]]
    assert not follower.tail.holds_back
    follower.stop()


def test_what_comes_into_a_finished_file_is_told_and_counted_once(log: Log, follower: Follower) -> None:
    """It is lost, because judging it now would depend on when it was seen; the file's present name is told."""
    log.rename()
    log.write()
    follower.catch_up()
    with log.rotated[0].open("ab") as file:
        file.write(b"late\n")
    log.write()
    log.rename()
    log.write()
    for _ in range(3):
        assert follower.catch_up() == log.lines
    follower.restart()
    assert follower.catch_up() == log.lines
    (warning,) = follower.warnings
    assert "log.json.2: 5 bytes were added after byte 66 when the file had been read to its end and the next" in warning
    assert follower.tail.seen().lost == Lost(1, 5)


def test_what_came_into_a_finished_file_while_down_is_told(log: Log, follower: Follower) -> None:
    """The finished files beside the path are looked at again at a start."""
    log.rename()
    log.write()
    follower.catch_up()
    follower.stop()
    with log.rotated[0].open("ab") as file:
        file.write(b"late\n")
    follower.start()
    assert follower.catch_up() == log.lines
    (warning,) = follower.warnings
    assert "log.json.1: 5 bytes were added after byte 66" in warning


def test_the_last_line_of_a_rotated_file_needs_no_line_feed(log: Log, follower: Follower) -> None:
    """It is finished, so the line is; and an unfinished line of the live file waits."""
    with log.path.open("ab") as file:
        file.write(b"cut off")
    assert follower.catch_up() == log.lines
    log.rename()
    with log.path.open("ab") as file:
        file.write(b"new\n")
    assert follower.catch_up() == [*log.lines, b"cut off", b"new\n"]


def test_a_finished_file_that_is_back_at_the_path_goes_on_behind_its_end(tmp_path: Path) -> None:
    """As when a rotation is undone by hand: what has been judged is not judged again."""
    log = Log(tmp_path / "log.json")
    log.write(100)
    follower = Follower(log.path)
    follower.catch_up()
    log.rename()
    log.write()
    follower.catch_up()
    log.path.rename(tmp_path / "log.json.5")
    log.rotated[0].rename(log.path)
    log.write(3)
    assert follower.catch_up() == log.lines
    assert follower.tail.position().line == 104
    follower.stop()


def test_a_dated_file_that_the_path_links_to_is_read_once(tmp_path: Path) -> None:
    """It lies beside the link, and its name is that of a rotated file."""
    (tmp_path / "log.json.20261124").write_bytes(line(1))
    (tmp_path / "log.json.20261125").write_bytes(line(2))
    path = tmp_path / "log.json"
    path.symlink_to("log.json.20261125")
    follower = Follower(path)
    for _ in range(3):
        assert follower.catch_up() == [line(2)]
        follower.restart()
    path.unlink()
    (tmp_path / "log.json.20261126").write_bytes(line(3))
    (tmp_path / "log.json.20261127").write_bytes(line(4))
    path.symlink_to("log.json.20261127")
    assert follower.catch_up() == [line(2), line(3), line(4)]
    assert follower.warnings == []
    follower.stop()


def test_foreign_files_are_left_alone(log: Log, follower: Follower) -> None:
    """Only names of rotated files count, and of those only what came when the path no longer held the newest file."""
    for name in ("log.jsonl", "other.json.1", "log.json.d/x", "log.json.flagged", "log.json.9", "log.json-20991231"):
        (log.path.parent / name).parent.mkdir(exist_ok=True)
        (log.path.parent / name).write_bytes(b"not mine\n")
    follower.catch_up()
    with (log.path.parent / "log.json-20991231").open("ab") as file:
        file.write(b"nor this\n")
    log.rename()
    log.write()
    assert follower.catch_up() == log.lines
    assert follower.warnings == []


def test_an_older_name_that_was_never_seen_is_told_and_left_alone(log: Log, follower: Follower) -> None:
    """An old log that is unpacked while peerwatch is down is not judged, whatever its time."""
    log.write(100)
    log.rename()
    log.write()
    follower.catch_up()
    follower.stop()
    (log.path.parent / "log.json.7").write_bytes(b"unpacked\n")
    log.rename()
    log.write()
    follower.start()
    assert follower.catch_up() == log.lines
    (warning,) = follower.warnings
    assert "log.json.7 (9 bytes) is not read: by its name it is older than" in warning


@pytest.mark.parametrize("down", [True, False])
def test_names_order_rotated_files_whatever_their_times(log: Log, follower: Follower, *, down: bool) -> None:
    """A clock that is set back between two rotations changes nothing."""
    for _ in range(3):
        log.write(10)
        log.rename()
        log.clock -= 10**9 * 3600
    log.write()
    if down:
        follower.restart()
    assert follower.catch_up() == log.lines
    assert follower.warnings == []


@pytest.mark.parametrize("method", [Log.rename, Log.copytruncate])
def test_a_rotation_between_two_looks_at_the_path_is_noticed(
    log: Log, method: Callable[[Log], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that is opened must be the one that was looked at, and none must have come before it meanwhile."""
    follower = Follower(log.path)
    opened = stored_file.descriptor_of

    def rotate_first(path: Path) -> int:
        monkeypatch.setattr(stored_file, "descriptor_of", opened)
        method(log)
        log.write()
        return opened(path)

    monkeypatch.setattr(stored_file, "descriptor_of", rotate_first)
    assert follower.catch_up() == log.lines
    assert follower.warnings == []
    follower.stop()


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize(
    ("blocked", "code"),
    [("path", errno.EACCES), ("path", errno.EMFILE), ("rotated", errno.EACCES), ("rotated", errno.ESTALE)],
)
def test_what_cannot_be_read_now_is_waited_for(
    log: Log, follower: Follower, blocked: str, code: int, monkeypatch: pytest.MonkeyPatch, *, down: bool
) -> None:
    """Nothing behind it is read meanwhile; it is told once, by name."""
    log.write(10)
    log.rename()
    log.write(10)
    log.rename()
    log.write(10)
    wanted = log.path if blocked == "path" else log.rotated[0]
    opened = stored_file.descriptor_of

    def refuse(path: Path) -> int:
        if path == wanted:
            raise OSError(code, os.strerror(code), str(path))
        return opened(path)

    with monkeypatch.context() as patch:
        patch.setattr(stored_file, "descriptor_of", refuse)
        if down:
            follower.restart()
        for _ in range(3):
            lines = follower.catch_up()
            assert lines == log.lines[: len(lines)]
            assert len(lines) == (23 if blocked == "path" else 13)
        assert follower.warnings == [f"cannot read {wanted}: {os.strerror(code)}; waiting until it can be read"]
    assert follower.catch_up() == log.lines


def test_a_directory_in_the_way_is_waited_for(log: Log, follower: Follower) -> None:
    """Somebody has made one at the path between two files."""
    log.path.rename(f"{log.path}.1")
    log.path.mkdir()
    for _ in range(3):
        assert follower.catch_up() == log.lines
    log.path.rmdir()
    log.write()
    assert follower.catch_up() == log.lines
    assert follower.warnings == [f"cannot read {log.path}: it is a directory; waiting until it can be read"]


def test_a_stale_handle_is_opened_anew(log: Log, follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS gives one when its server was restarted."""
    log.write(2)
    with monkeypatch.context() as patch:

        def stale(*_: object) -> bytes:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

        patch.setattr(stored_file.PlainFile, "read_at", stale)
        assert follower.catch_up() == log.lines[:3]
    assert follower.catch_up() == log.lines
    assert follower.warnings == [f"cannot read {log.path}: Stale file handle; waiting until it can be read"]


def test_a_failing_disk_is_not_waited_for(log: Log, follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is passed on."""

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    log.write()
    monkeypatch.setattr(stored_file.PlainFile, "read_at", fail)
    with pytest.raises(OSError, match="Input/output error"):
        follower.catch_up()


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_damaged_file_is_read_as_far_as_it_can_be(log: Log, follower: Follower, ending: str) -> None:
    """What is lost behind that is told and counted; nothing is read twice after a restart."""
    follower.stop()
    log.write(20_000)
    log.rename()
    log.write()
    log.rename()
    log.write()
    log.compress(1, ending)
    damaged = bytearray(log.rotated[1].read_bytes())
    damaged[-40:-30] = bytes(10)
    log.rotated[1].write_bytes(damaged)
    follower.start()
    lines = list(follower.catch_up())
    assert lines[-2:] == log.lines[-2:]
    assert b"".join(log.lines).startswith(b"".join(lines[:-2]))
    assert any("it is damaged" in warning for warning in follower.warnings)
    assert follower.tail.seen().lost.pieces > 0
    for _ in range(2):
        follower.restart()
        assert follower.catch_up() == lines


def test_a_compressed_file_that_is_still_being_written_is_waited_for(log: Log, follower: Follower) -> None:
    """One that ends too early may be just that."""
    follower.stop()
    log.write(1000)
    log.rename()
    log.write()
    log.compress(0, ".gz")
    whole = log.rotated[0].read_bytes()
    log.rotated[0].write_bytes(whole[:-500])
    follower.start()
    lines = list(follower.catch_up())
    assert lines == log.lines[: len(lines)]
    log.rotated[0].write_bytes(whole)
    follower.restart()
    assert follower.catch_up() == log.lines
    assert "it ends too early, as if it were still being written; waiting until" in follower.warnings[0]


def test_a_hole_before_the_first_line_is_skipped_and_told(log: Log, follower: Follower) -> None:
    """A writer that does not append goes on at its old offset when the file is emptied under it."""
    shutil.copy2(log.path, f"{log.path}.1")
    with log.path.open("r+b") as file:
        file.truncate(0)
        file.seek(10_000_000)
        file.write(line(3))
        file.flush()
        log.lines.append(line(3))
        assert follower.catch_up() == log.lines
        file.write(line(4))
    log.lines.append(line(4))
    assert follower.catch_up() == log.lines
    follower.restart()
    assert follower.catch_up() == log.lines
    assert follower.warnings == []
    assert follower.holes == 10_000_000


@given(
    chunk=st.integers(1, 40),
    pieces=st.lists(st.sampled_from([b"\0", b"\0" * 50, b"a\n", b"bc", b"\n"]), max_size=12),
)
def test_room_that_is_set_aside_is_read_when_it_is_written(
    chunk: int, pieces: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """NULs at the end of a file may be overwritten later; those before a line's first byte are none of it."""
    path = tmp_path_factory.mktemp("room") / "log.json"
    path.write_bytes(bytes(2000))
    follower = Follower(path, chunk)
    written = 0
    for piece in [*pieces, b"\n"]:
        with path.open("r+b") as file:
            file.seek(written)
            file.write(piece)
        written += len(piece)
        follower.catch_up()
    expected = [found.lstrip(b"\0") + b"\n" for found in b"".join([*pieces, b"\n"]).split(b"\n")[:-1]]
    assert follower.lines == expected
    assert follower.warnings == []
    follower.stop()
    shutil.rmtree(path.parent)


def test_a_missing_log_at_a_resume_may_come_back(log: Log, follower: Follower) -> None:
    """Moved away and back (a mount, say): nothing is read twice, and that it is missing is told once."""
    follower.stop()
    away = log.path.with_name("away")
    log.path.rename(away)
    follower.start()
    for _ in range(3):
        assert follower.catch_up() == log.lines
    away.rename(log.path)
    log.write()
    assert follower.catch_up() == log.lines
    assert follower.warnings == [f"{log.path}, which was being read, is not there; waiting until it can be read"]


def test_an_emptied_log_is_told_once(log: Log) -> None:
    """With an old rotated file beside it and nothing new, the warning is not repeated at every look."""
    log.rename()
    log.write()
    follower = Follower(log.path)
    follower.catch_up()
    os.truncate(log.path, 0)
    for _ in range(3):
        follower.catch_up()
    log.write()
    for _ in range(3):
        follower.catch_up()
    assert len(follower.warnings) == 1
    follower.stop()


def test_a_short_beginning_is_no_identity(tmp_path: Path) -> None:
    """What had been read when the first line was half written does not take another file for this one."""
    path = tmp_path / "log.json"
    path.write_bytes(b"{")
    follower = Follower(path)
    follower.catch_up()
    path.write_bytes(b'{"a": 1}\n')
    assert follower.catch_up() == [b'{"a": 1}\n']
    follower.restart()
    shutil.copy2(path, f"{path}.1")
    path.write_bytes(b'{"b": 22222}\n')
    assert follower.catch_up() == [b'{"a": 1}\n', b'{"b": 22222}\n']
    follower.stop()


def test_a_pipe_is_not_touched(tmp_path: Path) -> None:
    """Looking at a named pipe neither waits for its writer nor opens it."""
    os.mkfifo(tmp_path / "pipe")
    assert look_at(tmp_path / "pipe") == Beginning()


def test_thousands_of_rotated_files_are_not_held_open(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor opened again at each look; a restore of all of them under other inodes is seen through."""
    for number in range(1, 1441):
        (log.path.parent / f"log.json.2026{number:06d}").write_bytes(line(90_000 + number))
    log.scheme = "date"
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    follower = Follower(log.path)
    opened: list[Path] = []
    original = stored_file.descriptor_of

    def count(path: Path) -> int:
        opened.append(path)
        return original(path)

    monkeypatch.setattr(stored_file, "descriptor_of", count)
    follower.catch_up()
    for _ in range(3):
        log.write()
        log.rename()
        log.write()
        assert follower.catch_up() == log.lines
    assert len(opened) < 50
    assert len(os.listdir("/dev/fd")) <= before + 2  # noqa: PTH208
    for path in log.path.parent.iterdir():
        shutil.copy2(path, f"{path}.copy")
        Path(f"{path}.copy").replace(path)
    log.write()
    log.rename()
    log.write()
    follower.restart()
    assert follower.catch_up() == log.lines
    assert follower.warnings == []
    follower.stop()

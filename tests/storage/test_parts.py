"""Parts of checkpoints: those that are needed stay, and nothing else does for long."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import anyio
import numpy as np
import pytest

from peerwatch import durable
from peerwatch.files.seen import Seen
from peerwatch.judging.state import Arrays, Counts
from peerwatch.judging.verdict_hash import VerdictHash
from peerwatch.storage import checkpoints
from peerwatch.storage.checkpoints import (
    VERSION,
    CheckpointEnvelope,
    Facts,
    FilePlace,
    Identity,
    StateDirectory,
    StoredPart,
    part_name,
    read_checkpoint,
    remove_unfinished,
    write_part,
)

OWN: Arrays = {"ends": np.arange(3)}
COLUMNS: Arrays = {"degree": np.arange(5, dtype=np.int32), "held0": np.arange(7)}


def part_of(directory: Path, through: int, writer: str) -> StoredPart:
    """A part, as a worker writes it."""
    return write_part(directory / part_name(through, writer), COLUMNS)


def write(directory: StateDirectory, through: int, *parts: StoredPart) -> None:
    """A checkpoint behind an event."""
    facts = Facts(
        Counts(events=through), judged=True, position=None, flagged=0, marks={}, verdicts=VerdictHash(), shards=1,
        unseen=[], bookmarks=[], seen=Seen(),
    )  # fmt: skip
    names = sorted([*OWN, *(name for part in parts for name in part.arrays)])
    identity = Identity("run", 1, 3, {}, FilePlace("", ""), {})
    directory.write(OWN, CheckpointEnvelope(VERSION, identity, facts, 0.0, names, [*parts]))


def names_in(directory: Path, pattern: str = "part-*") -> list[str]:
    """The files of a state directory that have such names."""
    return sorted(path.name for path in directory.glob(pattern))


@contextmanager
def opened(path: Path) -> Iterator[StateDirectory]:
    """A state directory that a run has."""
    stack, directory = AsyncExitStack(), StateDirectory(path, print)
    directory.open(stack)
    yield directory
    anyio.run(stack.aclose)


def test_parts_go_with_their_checkpoints(tmp_path: Path) -> None:
    """While the run goes on; and so does what a lost worker has left, once there is a later checkpoint."""
    with opened(tmp_path) as directory:
        for through in (1, 2, 3, 4):
            part = part_of(tmp_path, through, "a")
            part_of(tmp_path, through, "lost")
            (tmp_path / f"{part_name(through, 'killed')}.new").write_bytes(b"half of it")
            write(directory, through, part)
            needed = [part_name(before, "a") for before in (through - 1, through) if before]
            ours = [part_name(through, "killed") + ".new", part_name(through, "lost")]
            assert names_in(tmp_path) == sorted(needed + ours)
        assert names_in(tmp_path, "checkpoint-*") == [f"checkpoint-{through:020d}.npz" for through in (3, 4)]
    assert names_in(tmp_path) == [part_name(3, "a"), part_name(4, "a")]
    arrays = read_checkpoint(max(tmp_path.glob("checkpoint-*"))).arrays
    assert {name: array.tolist() for name, array in arrays.items()} == {
        name: array.tolist() for name, array in {**OWN, **COLUMNS}.items()
    }


def test_the_part_of_the_next_checkpoint_stays(tmp_path: Path) -> None:
    """It may be there before the checkpoint before it is, and stand behind the same event."""
    with opened(tmp_path) as directory:
        part, same, later = part_of(tmp_path, 5, "a"), part_of(tmp_path, 5, "b"), part_of(tmp_path, 6, "c")
        write(directory, 5, part)
        write(directory, 5, same)
        write(directory, 6, later)
        assert names_in(tmp_path) == [same.name, later.name]


def test_no_part_goes_while_a_checkpoint_cannot_be_read(tmp_path: Path) -> None:
    """It may be one that is brought back, or one of a later version: its part is needed then."""
    with opened(tmp_path) as directory:
        write(directory, 5, part_of(tmp_path, 5, "a"))
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:100])
    with opened(tmp_path) as directory:
        assert names_in(tmp_path) == [part_name(5, "a")]
    checkpoint.write_bytes(whole)
    with opened(tmp_path) as directory:
        assert directory.newest() is not None


def test_a_checkpoint_in_the_place_of_a_damaged_one_stays(tmp_path: Path) -> None:
    """As when the run goes on from the one before, and its log has not grown."""
    with opened(tmp_path) as directory:
        write(directory, 4, part_of(tmp_path, 4, "a"))
        write(directory, 5, part_of(tmp_path, 5, "a"))
        (tmp_path / part_name(5, "a")).unlink()
        newest = directory.newest()
        assert newest is not None
        assert newest.envelope.facts.progress.events == 4
        write(directory, 5, part_of(tmp_path, 5, "b"))
        newest = directory.newest()
        assert newest is not None
        assert newest.envelope.facts.progress.events == 5


def test_a_part_may_be_finished_while_a_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a worker of a run that was killed."""
    unfinished = tmp_path / f"{part_name(5, 'a')}.new"
    unfinished.write_bytes(b"")

    def finished(path: Path) -> None:
        if path == unfinished:
            path.rename(path.with_suffix(""))
        durable.unlink(path)

    monkeypatch.setattr(checkpoints, "unlink", finished)
    with opened(tmp_path):
        monkeypatch.undo()
        assert not names_in(tmp_path)


def test_what_a_lost_worker_has_not_finished(tmp_path: Path) -> None:
    """Nobody needs it; what others write, and what it has finished, stays."""
    for name in (part_name(1, "a"), f"{part_name(2, 'a')}.new", f"{part_name(2, 'b')}.new"):
        (tmp_path / name).write_bytes(b"")
    remove_unfinished(tmp_path, "a")
    assert names_in(tmp_path) == [part_name(1, "a"), f"{part_name(2, 'b')}.new"]

"""Which files are the rotated files of a path, and in which order."""

import os
from pathlib import Path

import pytest

from peerwatch.files.rotated import rotated_files

HOUR = 3600 * 10**9


def write(directory: Path, *names: str) -> None:
    """Make files, each written an hour after the one before."""
    for number, name in enumerate(names):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(name.encode())
        os.utime(directory / name, ns=(number * HOUR, number * HOUR))


def found(path: Path, pattern: str | None = None) -> list[str]:
    """The names of the rotated files, the oldest first."""
    return [file.path.name for file in rotated_files(path, pattern)]


@pytest.mark.parametrize(
    "names",
    [
        ["s.json.10", "s.json.9", "s.json.2", "s.json.1"],
        ["s.json.3.gz", "s.json.2.zst", "s.json.1"],
        ["s.json-20260130", "s.json-20260131", "s.json-20260201.xz"],
        ["s-20260131.json", "s-20260201.json"],
        ["s.2026-01-31.json", "s.2026-02-01.json.gz"],
        ["s-2026-01-31T10-00-00.000.json", "s-2026-01-31T11-00-00.000.json", "s-2026-02-01T00-00-00.000.json.gz"],
        ["s.json.2026-01-31_23", "s.json.2026-02-01_00"],
        ["s.json-2026013109", "s.json-2026013110"],
        ["s.json-20260131-9", "s.json-20260131-10"],
        ["s.2026-01-31.9.json", "s.2026-01-31.10.json", "s.2026-02-01.1.json"],
        ["s.json-202601", "s.json-202602"],
        ["s.json.1769817600", "s.json.1769904000"],
        ["s_2.json", "s_1.json"],
        ["s.2.json", "s.1.json"],
        ["s.json.old"],
        ["s.json.bak"],
        ["s.json~"],
        ["s.json.2026-01-31T10:00:00+01:00", "s.json.2026-01-31T11:00:00+01:00"],
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_rotated_files_are_found_and_ordered_by_their_names(
    tmp_path: Path, names: list[str], *, backwards: bool
) -> None:
    """Under the usual naming schemes, whatever the times of the files."""
    write(tmp_path, *reversed(names)) if backwards else write(tmp_path, *names)
    write(tmp_path, "s.json")
    assert found(tmp_path / "s.json") == names


def test_times_order_what_names_do_not(tmp_path: Path) -> None:
    """Words and dates that begin with their day have no order; several schemes are merged by time."""
    write(tmp_path, "s.json.31-01-2026", "s.json.old", "s.json.3", "s.json.01-02-2026", "s.json.2", "s.json-20260131")
    expected = ["s.json.31-01-2026", "s.json.old", "s.json.3", "s.json.01-02-2026", "s.json.2", "s.json-20260131"]
    assert found(tmp_path / "s.json") == expected


def test_a_file_that_is_still_written_does_not_change_the_order_of_others(tmp_path: Path) -> None:
    """Where several schemes are merged by time, an old file's new time says nothing of those behind it."""
    write(tmp_path, "s.json.3", "s.json.1", "s.json-20260131", "s.json.2", "s.json-2")
    found_names = found(tmp_path / "s.json")
    assert found_names == ["s.json.3", "s.json.2", "s.json-2", "s.json.1", "s.json-20260131"]


def test_other_names_are_none_of_the_log(tmp_path: Path) -> None:
    """Nor is the path itself, a directory, or what is no regular file."""
    write(tmp_path, "s.json", "s.jsonl", "t.json.1", "s.json.1.tmp", "s.json.x1", "s2.json", "as.json.1", "s.json.3/x")
    os.mkfifo(tmp_path / "s.json.4")
    assert found(tmp_path / "s.json") == []


def test_of_a_file_that_is_just_being_compressed_the_plain_one_counts(tmp_path: Path) -> None:
    """Both are there until the compressed one is whole."""
    write(tmp_path, "s.json.2.gz", "s.json.1", "s.json.1.gz")
    assert found(tmp_path / "s.json") == ["s.json.2.gz", "s.json.1"]


def test_a_pattern_adds_files_elsewhere(tmp_path: Path) -> None:
    """Ordered by the last date or number in their names."""
    write(tmp_path, "old/b-20260102-s.gz", "old/a-20260103-s.gz", "old/c-20260101-s.gz", "old/none", "s.json")
    pattern = str(tmp_path / "old" / "*.gz")
    assert found(tmp_path / "s.json", pattern) == ["c-20260101-s.gz", "b-20260102-s.gz", "a-20260103-s.gz"]


@pytest.mark.parametrize("directory", [".", "there"])
def test_a_link_has_the_rotated_files_of_what_it_links_to(tmp_path: Path, directory: str) -> None:
    """Beside that, without the file it links to; their names may have nothing of the link's."""
    names = [f"{directory}/x-2026-01-30.log", f"{directory}/x-2026-01-31.log", f"{directory}/x-2026-02-01.log"]
    write(tmp_path, *names, f"{directory}/y-2026-01-30.log")
    (tmp_path / "current").symlink_to(tmp_path / names[-1])
    assert found(tmp_path / "current") == ["x-2026-01-30.log", "x-2026-01-31.log"]


def test_numbers_count_up_to_a_numbered_file_that_is_linked_to(tmp_path: Path) -> None:
    """There the newest file has a number itself."""
    write(tmp_path, "x.0008", "x.0009", "x.0010", "x.0011")
    (tmp_path / "x").symlink_to("x.0011")
    assert found(tmp_path / "x") == ["x.0008", "x.0009", "x.0010"]


def test_a_directory_that_is_not_there_has_none(tmp_path: Path) -> None:
    """It may come later."""
    assert found(tmp_path / "none" / "s.json") == []

"""Ten thousand bad lines in a stream change nothing but the rejects file."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from peerwatch.cli.main import cli
from peerwatch.network.rejects import decode_reject
from peerwatch.studies.generate import Recipe, generate

BAD_LINES = 10_000
RECIPE = Recipe(users=300, batch_events=6000, stream_events=6000, T=20)


def mangled(rng: np.random.Generator, line: bytes) -> bytes:
    """Random bytes, the line cut short, or the line with a value of the wrong type; never an event, never blank."""
    kind = rng.integers(3)
    if kind == 0:
        return b"\xff" + rng.bytes(int(rng.integers(1, 200))).replace(b"\n", b"\x00")
    if kind == 1:
        return line[: rng.integers(1, len(line) - 1)]
    wrong = [b"null", b"[]", b"{}", b"true", b"-7.5", b'"2017-13-45 99:99:99"', b'""']
    field = [b'"event_type":', b'"timestamp":'][rng.integers(2)]
    begin = line.index(field) + len(field)
    return line[:begin] + wrong[rng.integers(len(wrong))] + line[line.index(b",", begin) :]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A directory with batch, clean and messy stream logs, and the bad lines in order."""
    directory = tmp_path_factory.mktemp("bad")
    batch, stream, _ = generate(RECIPE)
    lines = [line.rstrip("\n").encode() for line in stream]
    rng = np.random.default_rng(3)
    bad = [mangled(rng, lines[rng.integers(len(lines))]) for _ in range(BAD_LINES)]
    places = np.sort(rng.integers(0, len(lines) + 1, BAD_LINES)).tolist()
    messy = []
    for i, line in enumerate([*lines, b""]):
        while places and places[0] == i:
            messy.append(bad[BAD_LINES - len(places)])
            places.pop(0)
        messy.append(line)
    (directory / "batch").write_text("".join(batch))
    (directory / "clean").write_bytes(b"\n".join(lines) + b"\n")
    (directory / "messy").write_bytes(b"\n".join(messy))
    return directory, bad


def run(directory: Path, stream: str, *options: str) -> tuple[int, str, bytes]:
    """Exit code, standard error and output."""
    files = [str(directory / name) for name in ("batch", stream, f"{stream}.out")]
    result = CliRunner().invoke(cli, ["run", *files, "--rejects", f"{directory}/{stream}.rejects", *options])
    return result.exit_code, result.stderr, (directory / f"{stream}.out").read_bytes()


def test_bad_lines_change_no_verdict_and_all_stand_in_the_rejects_file(logs: tuple[Path, list[bytes]]) -> None:
    """Exit code 0, the same bytes as the clean log, and every bad line recovered in order from where it stood."""
    directory, bad = logs
    clean, messy = run(directory, "clean"), run(directory, "messy", "--shards", "3")
    assert (clean[0], messy[0]) == (0, 0)
    assert clean[2] == messy[2] != b""
    assert messy[1].split()[messy[1].split().index("rejected") + 1] == f"{BAD_LINES:,}"
    records = [decode_reject(line) for line in (directory / "messy.rejects").read_bytes().splitlines()]
    assert [record.raw for record in records] == bad
    content = (directory / "messy").read_bytes()
    lines = content.split(b"\n")
    assert all(lines[record.line - 1] == record.raw for record in records)
    assert all(content[record.offset : record.offset + len(record.raw)] == record.raw for record in records)


def test_strict_stops_at_the_first(logs: tuple[Path, list[bytes]]) -> None:
    """Exit code 1; the rejects file holds the first bad line alone; the output is a beginning of the clean one."""
    directory, bad = logs
    clean, strict = run(directory, "clean"), run(directory, "messy", "--strict")
    assert strict[0] == 1
    (record,) = [decode_reject(line) for line in (directory / "messy.rejects").read_bytes().splitlines()]
    assert record.raw == bad[0]
    assert strict[1] == f"peerwatch: {record.file}:{record.line}: {record.reason}\n"
    assert clean[2].startswith(strict[2])

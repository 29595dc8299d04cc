"""The example folder keeps to the contract of the challenge's test harness.

The harness copies the folder, replaces `log_input` with a test's own, runs `run.sh` from the copy, and compares
`log_output/flagged_purchases.json` with what the test expects. The challenge's own is a shell script that is not ours
to hand out; this one keeps to its contract, and compares byte for byte.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from reference import judge
from support import ROOT, befriend, purchase

from peerwatch.studies.generate import Recipe, write_logs

FOLDER = ROOT / "examples" / "challenge"
OUTPUT = Path("log_output") / "flagged_purchases.json"
COMMANDS = str(Path(sys.executable).parent)


def harness(
    scratch: Path, log_input: Path, *, path: str = COMMANDS, where: str = "."
) -> "subprocess.CompletedProcess[str]":
    """Copy the folder, give it another `log_input`, and run `run.sh` as the harness does."""
    shutil.copytree(FOLDER, scratch, symlinks=True)
    (scratch / OUTPUT).unlink()
    shutil.rmtree(scratch / "log_input")
    shutil.copytree(log_input, scratch / "log_input")
    environment = {**os.environ, "PATH": f"{path}:/usr/bin:/bin"}
    return subprocess.run(
        ["bash", os.path.relpath(scratch / "run.sh", scratch / where)], cwd=scratch / where, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_example_of_the_challenge_comes_out(tmp_path: Path) -> None:
    """The folder's own logs give the folder's own output, byte for byte, and nothing is said."""
    result = harness(tmp_path / "copy", FOLDER / "log_input")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (tmp_path / "copy" / OUTPUT).read_bytes() == (FOLDER / OUTPUT).read_bytes()


def test_other_logs_give_what_the_reference_gives(tmp_path: Path) -> None:
    """Generated logs with broken lines in them; a second run overwrites the first; from any current folder."""
    batch, stream, _ = write_logs(
        tmp_path / "log_input", Recipe(users=60, batch_events=900, stream_events=400, mean_degree=4), force=False
    )
    stream.write_bytes(b"no event\n" + stream.read_bytes() + purchase(1, "1e9") + befriend(1, 1))
    expected = judge(batch.read_bytes().partition(b"\n")[2], stream.read_bytes(), 2, 50).flagged
    assert expected
    for number, where in enumerate((".", "log_input")):
        result = harness(tmp_path / f"copy{number}", tmp_path / "log_input", where=where)
        assert (result.returncode, result.stdout) == (0, "")
        assert (tmp_path / f"copy{number}" / OUTPUT).read_bytes() == expected
    copy = tmp_path / "copy0"
    (copy / "log_input" / "stream_log.json").write_bytes(purchase(1, "1"))
    subprocess.run(["./run.sh"], cwd=copy, env={**os.environ, "PATH": f"{COMMANDS}:/usr/bin:/bin"}, check=True)
    assert (copy / OUTPUT).read_bytes() == b""


def test_a_missing_log_is_told(tmp_path: Path) -> None:
    """With peerwatch's own sentence and exit code."""
    shutil.copytree(FOLDER / "log_input", tmp_path / "log_input")
    (tmp_path / "log_input" / "stream_log.json").unlink()
    result = harness(tmp_path / "copy", tmp_path / "log_input")
    assert (result.returncode, "log_input/stream_log.json" in result.stderr) == (2, True)


def test_without_peerwatch_it_says_what_to_do(tmp_path: Path) -> None:
    """One sentence, exit code 2."""
    result = harness(tmp_path / "copy", FOLDER / "log_input", path="/nowhere")
    assert result.returncode == 2
    assert result.stderr.startswith("run.sh: peerwatch is not installed")

"""The real case: SNAP's ego-Facebook friendships and CDNOW's purchases, where the data lie beside the checkout."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from peerwatch.cli.main import cli

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="module")
def real_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the woven logs."""
    if not (SHARED / "real_case.py").exists():
        pytest.skip(f"the real data are not here: no {SHARED / 'real_case.py'}")
    directory = tmp_path_factory.mktemp("real")
    data = [str(SHARED / "data" / name) for name in ("facebook_friendships.txt", "cdnow_purchases.txt")]
    subprocess.run([sys.executable, str(SHARED / "real_case.py"), *data, str(directory), "2", "50", "1"], check=True)
    return directory


@pytest.mark.parametrize(("shards", "walkers"), [("1", "1"), ("1", "2"), ("4", "3"), ("7", "2")])
def test_the_real_case_gives_the_known_bytes(real_case: Path, shards: str, walkers: str) -> None:
    """782 of 27,864 purchases, as two independent integer implementations found them."""
    files = [str(real_case / name) for name in ("batch_log.json", "stream_log.json", "flagged.json")]
    result = CliRunner().invoke(cli, ["run", *files, "--shards", shards, "--walkers", walkers])
    assert result.exit_code == 0
    expected = SHARED / "data" / "real_case_seed1_D2_T50.flagged.json"
    assert (real_case / "flagged.json").read_bytes() == expected.read_bytes()

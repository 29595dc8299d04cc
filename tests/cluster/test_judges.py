"""Every detector decides on a cluster as it does in one process, wherever it judges."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from memory_cluster import (
    BATCH,
    IN_THE_DRIVER,
    ON_WORKERS,
    OTHERS,
    STREAM,
    Fault,
    MemoryEngine,
    layer,
    rule_of,
    run_on,
    run_with,
    written,
)

from peerwatch.cli.main import cli
from peerwatch.cluster import wire
from peerwatch.cluster.connecting import judges_on_workers
from peerwatch.cluster.wire import Hello
from peerwatch.errors import RunError
from peerwatch.runtime.judges_from_settings import judges_of
from peerwatch.settings.model import resolve
from peerwatch.storage.status import Status

SLOW = {"drift", "quarantine and a learned detector", "quarantine and a challenger"}
"""What imports a large library for the first time, and what others show as well."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in (*ON_WORKERS, *IN_THE_DRIVER)]
)
def test_the_same_bytes(name: str, tmp_path: Path) -> None:
    """Each detector, and each of what depends on earlier purchases, with a worker lost on the way."""
    rule = {**ON_WORKERS, **IN_THE_DRIVER}[name]
    settings, origins = resolve(layer(tmp_path, "there", **rule))
    judges = judges_of(settings, origins, print)  # what it imports is imported here, and not while a run goes on
    alone = run_with(layer(tmp_path, "alone", **rule)).totals
    assert alone.decisions >= 300
    there = run_on(MemoryEngine({9: Fault.LOST_AFTER}), layer(tmp_path, "there", **rule)).totals
    assert written(tmp_path, "there") == written(tmp_path, "alone")
    assert there == alone
    assert judges_on_workers(settings, judges) == (name in ON_WORKERS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::peerwatch.errors.TiedScores")
@pytest.mark.parametrize("name", OTHERS)
def test_the_same_bytes_by_every_detector(name: str, tmp_path: Path) -> None:
    """Those that learn do so on the way; a worker is lost behind the first model."""
    rule = rule_of(name)
    settings, origins = resolve(layer(tmp_path, "there", **rule))
    judges_of(settings, origins, print)
    alone = run_with(layer(tmp_path, "alone", **rule)).totals
    there = run_on(MemoryEngine({9: Fault.LOST_AFTER}), layer(tmp_path, "there", **rule)).totals
    assert written(tmp_path, "there") == written(tmp_path, "alone")
    assert there == alone


def test_every_decision_is_logged_and_audited(tmp_path: Path) -> None:
    """Decisions as Parquet, a log of all decisions and an audit get what they get in one process."""
    more = {"audit": 1.0, "logs.level": "info", "logs.format": "json", "logs.decisions": "all"}
    found = {}
    for name, run in (("alone", run_with), ("there", lambda each: run_on(MemoryEngine(), each))):
        files = {"logs.file": str(tmp_path / f"{name}.log"), "output.decisions": str(tmp_path / f"{name}.parquet")}
        report = run(layer(tmp_path, name, **more, **files))
        assert report.totals.recomputed > 300
        assert report.totals.differences == 0
        table = read_table(tmp_path / f"{name}.parquet")
        found[name] = written(tmp_path, name), table, decisions(tmp_path / f"{name}.log")
    assert found["there"] == found["alone"]
    assert len(found["there"][2]) > 300


def test_an_audit_goes_on_although_the_logs_are_gone(tmp_path: Path) -> None:
    """Then it begins with the checkpoint, which holds graph and purchases although this process does not."""
    lines = STREAM.splitlines(keepends=True)
    values = {"input.stream": str(tmp_path / "growing"), "audit": 1.0}
    (tmp_path / "growing").write_bytes(b"".join(lines[:200]))
    run_on(MemoryEngine(), layer(tmp_path, "there", **values))
    (tmp_path / "batch").unlink()
    (tmp_path / "growing").write_bytes(STREAM)
    totals = run_on(MemoryEngine(), layer(tmp_path, "there", **values, **{"input.batch": None})).totals
    assert totals.recomputed > 100
    assert totals.differences == 0


def read_table(path: Path) -> Any:
    """The rows of the decisions."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def decisions(path: Path) -> list[dict[str, Any]]:
    """The logged decisions, without what says how and when a window was found."""
    import orjson

    records = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    how = ("plan", "plan_costs", "network_size", "logged_at")
    return [
        {key: value for key, value in record.items() if key not in how}
        for record in records
        if record["event"] == "decision"
    ]


def test_a_worker_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names both versions, and what is written so far can be gone on from."""
    own = wire.hello()
    monkeypatch.setattr("peerwatch.cluster.worker.hello", lambda: Hello("0.0.9", own.kernels))
    with pytest.raises(RunError, match=rf"memory runs peerwatch 0\.0\.9 .*, this process {own.version}"):
        run_on(MemoryEngine(), layer(tmp_path, "there"))
    monkeypatch.setattr("peerwatch.cluster.worker.hello", lambda: Hello(own.version, "other"))
    with pytest.raises(RunError, match="with kernels other"):
        run_on(MemoryEngine(), layer(tmp_path, "there"))


def test_a_detector_that_fails_ends_the_run_with_its_own_words(tmp_path: Path) -> None:
    """As in one process: it is not taken for a lost worker."""
    engine = MemoryEngine()
    with pytest.raises(RunError, match=r"the detector .* failed: ValueError"):
        run_on(engine, layer(tmp_path, "there", detector__name="memory_cluster:Failing"))
    status = msgspec.json.decode((tmp_path / "there.state" / "status.json").read_bytes(), type=Status)
    assert [worker.restarts for worker in status.workers] == [0, 0]  # the run itself may have been tried again


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cluster", "dask:127.0.0.1:1"], "expected ray:HOST:PORT"),
        (["--cluster", "ray:127.0.0.1"], "expected ray:HOST:PORT"),
        (["--cluster", "ray:127.0.0.1:1"], "a run on a cluster needs a state directory"),
        (["--config", "c.yaml", "--state", "s"], '"cluster.address" is not set'),
        (["--cluster", "ray:127.0.0.1:1", "--workers", "65"], '"cluster.workers" is 65; expected'),
        (
            ["--cluster", "ray:127.0.0.1:1", "--state", "s"],
            "no Ray cluster listens at 127.0.0.1:1 (Connection refused)",
        ),
        (["--cluster", "ray:127.0.0.1:99999", "--state", "s"], "'127.0.0.1:99999' is no address of a cluster"),
        (["--workers", "3"], '--workers: "cluster.workers" is 3, but no cluster is to be used'),
        (
            ["--workers", "3", "--config", "none.yaml"],
            '--workers: "cluster.workers" is 3, but no cluster is to be used',
        ),
        (
            ["--config", "workers.yaml"],
            'workers.yaml:2: "cluster.workers" is 4, but no cluster is to be used; name one',
        ),
        (["--config", "address.yaml"], 'address.yaml:2: "cluster.address" is head:6379, but no cluster is to be used'),
    ],
)
def test_a_cluster_that_cannot_be_used_is_a_mistake(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence; nothing is written. A cluster that is not there may come, which exit code 1 says."""
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("cluster: {engine: ray}\n")
    Path("none.yaml").write_text("cluster: {engine: none, workers: 4, address: 'head:6379'}\n")
    Path("workers.yaml").write_text("cluster:\n  workers: 4\n")
    Path("address.yaml").write_text("cluster:\n  address: 'head:6379'\n  workers: 2\n")
    Path("stream").write_bytes(STREAM)
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(cli, ["run", "--D", "1", "--T", "5", "stream", "out", *options])
    assert result.exit_code == (1 if "no Ray cluster listens" in said else 2)
    assert said in result.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("section", ["{engine: none, address: 'head:6379', workers: 4}", "{deadline: 5, batch: 100}"])
def test_a_config_may_keep_a_cluster_that_is_not_used(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`engine: none` says that one process is wanted, whatever else is there; how to use a cluster says nothing."""
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(f"cluster: {section}\n")
    Path("stream").write_bytes(STREAM)
    result = CliRunner().invoke(cli, ["run", "--D", "1", "--T", "5", "stream", "out", "--config", "c.yaml"])
    assert result.exit_code == 0
    assert result.stderr.startswith("events")


def test_a_check_of_the_config_looks_for_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for all else that the settings name."""
    monkeypatch.chdir(tmp_path)
    Path("stream").write_bytes(STREAM)
    result = CliRunner().invoke(cli, ["config", "check", "stream", "out", "--cluster", "ray:127.0.0.1:1"])
    assert result.exit_code == 1
    assert "cluster.address    127.0.0.1:1  no Ray cluster listens at 127.0.0.1:1" in result.stdout
    result = CliRunner().invoke(cli, ["config", "check", "stream", "out", "--workers", "3"])
    assert result.exit_code == 2
    assert '--workers: "cluster.workers" is 3' in result.stderr


def test_without_a_cluster_nothing_of_it_is_imported(tmp_path: Path) -> None:
    """Neither Ray nor the room is there in a run that names no cluster."""
    for name, content in (("batch", BATCH), ("stream", STREAM)):
        (tmp_path / name).write_bytes(content)
    code = (
        "import sys\nfrom peerwatch.cli.main import cli\n"
        "try:\n    cli(['run', '--D', '1', '--T', '5', 'batch', 'stream', 'out'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "assert not [name for name in sys.modules if name.startswith(('ray', 'psutil', 'peerwatch.cluster'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)

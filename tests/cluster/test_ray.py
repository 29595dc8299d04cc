"""Runs on a real Ray cluster, on loopback."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
import pytest
from memory_cluster import BATCH, IN_THE_DRIVER, ON_WORKERS, OTHERS, made
from served import FLAGGED, LIVE, NORMAL, served, write_logs
from soak_cluster import STORED
from support import running, wait_until
from test_docs import DOCS, fences

from peerwatch.cluster import local
from peerwatch.cluster.environment import LOOPBACK
from peerwatch.cluster.local import Listener
from peerwatch.errors import RunError
from peerwatch.network.decoder import Decoder
from peerwatch.storage.checkpoints import PARTS
from peerwatch.storage.status import Status

pytestmark = pytest.mark.slow
PEERWATCH = [sys.executable, "-m", "peerwatch"]
HEADER = b'{"D":"2", "T":"5"}\n'


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where local clusters keep their files: not where those of the user are, and with a path that is short."""
    assert tmp_path  # which is made where files usually are
    with tempfile.TemporaryDirectory(prefix="pw", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name) / local.folder().name
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(local, "folder", lambda: folder)
        try:
            yield folder
        finally:
            local.stop()
            assert not local.processes()


@pytest.fixture
def cluster(folder: Path) -> str:
    """The address of a cluster of two nodes."""
    port = free_port()
    subprocess.run([*PEERWATCH, "cluster", "start", "--nodes", "2", "--port", str(port)], check=True)
    assert folder.is_dir()
    return f"{LOOPBACK}:{port}"


def listening(*pids: int) -> set[str]:
    """Where processes listen, TCP and UDP, as the system says."""
    found = subprocess.run(["ss", "-Hltunp"], capture_output=True, text=True, check=True).stdout.splitlines()
    return {
        line.split()[4].replace("[::ffff:127.0.0.1]", LOOPBACK)
        for line in found
        if {*map(str, pids)} & set(re.findall(r"pid=(\d+)", line))
    }


def cluster_pids() -> list[int]:
    """The processes of the cluster. Workers come and go."""
    return [process.pid for process in local.processes()]


def hosts(addresses: set[str]) -> set[str]:
    """The addresses without ports."""
    return {address.rpartition(":")[0] for address in addresses}


def test_a_local_cluster_cannot_be_connected_to_from_outside(cluster: str) -> None:
    """Every port that one of its processes listens on is of the loopback address, as the system says."""
    ours = listening(*cluster_pids())
    assert cluster in ours
    assert hosts(ours) <= {LOOPBACK, "[::1]"}
    assert {each.port for each in local.listeners()} >= {int(each.rpartition(":")[2]) for each in ours}


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.2", "::ffff:192.0.2.2"])  # noqa: S104
def test_a_cluster_that_listens_to_others_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says where, and why that matters."""
    found = [Listener("raylet", "127.0.0.1", 1), Listener("gcs_server", address, 6379)]
    monkeypatch.setattr(local, "listeners", lambda: found)
    with pytest.raises(RunError, match=rf"{re.escape(address)}:6379 \(gcs_server\), where others can"):
        local.check_local()


def status_of(state: Path, process: "subprocess.Popen[bytes]", so: Callable[[Status], bool]) -> Status:
    """Look until the status is so, however long it takes; only the end of the run fails the test."""
    while True:
        assert process.poll() is None, f"it ended by itself with {process.returncode}"
        with suppress(FileNotFoundError, msgspec.DecodeError):
            status = msgspec.json.decode((state / "status.json").read_bytes(), type=Status)
            if status.pid == process.pid and so(status):
                return status
        time.sleep(0.02)


def events_in(content: bytes) -> int:
    """How many of the lines are events."""
    return len(Decoder().decode(content, 1).events)


def replicas() -> list[psutil.Process]:
    """The processes with a replica, those that stand ready among them."""
    return [process for process in local.processes() if "_Actor" in " ".join(process.cmdline())]


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_workers_are_lost_while_a_log_is_followed(
    cluster: str, tmp_path: Path, number: signal.Signals, *, stored: bool
) -> None:
    """All of them are killed, or frozen, between two parts of the log; the output is that of one process.

    Workers are sent what they hold, or read and write it themselves, as they do with a large state. All the while the
    run and its workers listen on the loopback address only.
    """
    parts = [made(seed, 300) for seed in range(3)]
    (tmp_path / "batch").write_bytes(HEADER + BATCH)
    (tmp_path / "stream").write_bytes(parts[0])
    (tmp_path / "whole").write_bytes(b"".join(parts))
    options = ["--follow", "--state", "state", "--cluster", f"ray:{cluster}", "--quiet"]
    command = [sys.executable, "-c", STORED] if stored else PEERWATCH
    with running([*command, "run", "batch", "stream", "out", *options], cwd=tmp_path) as run:
        judged = events_in(BATCH)
        for part in range(3):
            judged += events_in(parts[part])
            status_of(tmp_path / "state", run, lambda status, judged=judged: status.through == judged)  # type: ignore[misc]
            assert listening(run.pid)
            assert hosts(listening(run.pid, *cluster_pids())) <= {LOOPBACK, "[::1]"}
            if part < 2:
                for worker in replicas():
                    with suppress(psutil.NoSuchProcess):
                        os.kill(worker.pid, number)
                with (tmp_path / "stream").open("ab") as log:
                    log.write(parts[part + 1])
        status = status_of(
            tmp_path / "state", run, lambda status: all(each.state == "working" for each in status.workers)
        )
        assert sum(each.restarts for each in status.workers) >= 2
        run.send_signal(signal.SIGTERM)
        assert run.wait() == 0
    assert any((tmp_path / "state").glob(PARTS)) == stored
    subprocess.run([*PEERWATCH, "run", "batch", "whole", "expected", "--quiet"], cwd=tmp_path, check=True)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.usefixtures("folder")
def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/cluster.md, as somebody would type it who has installed the extra; at a port that is free."""
    (fence,) = [fence for fence in fences(DOCS / "cluster.md") if fence.not_run is not None]
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    port = free_port()
    text = fence.text.replace("6379", str(port)).replace("--nodes 3", f"--nodes 3 --port {port}")
    lines = [line for line in text.splitlines() if not line.startswith("pip install ")]
    assert sum(line.startswith("peerwatch ") for line in lines) >= 5
    make = "peerwatch generate . --users 300 --batch-events 3000 --stream-events 3000"
    command = ["bash", "-euo", "pipefail", "-c", "\n".join([make, *lines])]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "is working" in result.stdout
    assert f"3 nodes at 127.0.0.1:{port}" in result.stdout


GONE = (
    r"peerwatch: for 10 s no node of the cluster has been left, or its head has not answered; start it and run again.*"
)


@pytest.mark.parametrize(
    ("what", "number", "idle"),
    [
        ("all", signal.SIGKILL, False), ("all", signal.SIGSTOP, True), ("head", signal.SIGKILL, True),
        ("head", signal.SIGSTOP, False),
    ],
)  # fmt: skip
def test_a_run_whose_cluster_is_gone_ends(
    cluster: str, tmp_path: Path, what: str, number: signal.Signals, idle: bool
) -> None:
    """With one sentence and exit code 1, also if there is nothing to ask; on another cluster it goes on, same bytes."""
    parts = [made(seed, 300) for seed in range(2)]
    (tmp_path / "batch").write_bytes(HEADER + BATCH)
    (tmp_path / "stream").write_bytes(parts[0])
    (tmp_path / "whole").write_bytes(b"".join(parts))
    command = [
        *PEERWATCH,
        "run",
        "batch",
        "stream",
        "out",
        "--state",
        "state",
        "--cluster",
        f"ray:{cluster}",
        "--quiet",
    ]
    with running([*command, "--follow", "--log-file", "log"], cwd=tmp_path, stderr=subprocess.PIPE) as run:
        judged = events_in(BATCH) + events_in(parts[0])
        status_of(tmp_path / "state", run, lambda status: status.through == judged)
        processes = local.processes()
        for process in processes:
            if what == "all" or process.name() == "gcs_server":
                os.kill(process.pid, number)
        if not idle:
            with (tmp_path / "stream").open("ab") as log:
                log.write(parts[1])
        _, said = run.communicate()
    assert run.returncode == 1
    assert re.fullmatch(GONE, said.decode().strip())
    local.stop()
    if idle:
        with (tmp_path / "stream").open("ab") as log:
            log.write(parts[1])
    subprocess.run([*PEERWATCH, "cluster", "start", "--port", cluster.rpartition(":")[2]], check=True)
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([*PEERWATCH, "run", "batch", "whole", "expected", "--quiet"], cwd=tmp_path, check=True)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "expected").read_bytes()


def test_every_detector(cluster: str) -> None:
    """Each detector of the registry, and each of what depends on earlier purchases, with a worker lost on the way."""
    script = Path(__file__).parents[1] / "ray_detectors.py"
    result = subprocess.run([sys.executable, script, cluster], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(": the same bytes") == len([*ON_WORKERS, *IN_THE_DRIVER, *OTHERS])


def test_quarantine_with_any_number_of_workers(cluster: str, tmp_path: Path) -> None:
    """All of them are killed between two parts of the log; the output is that of one process."""
    parts = [made(seed, 300) for seed in range(2)]
    (tmp_path / "c.yaml").write_text("detector: {k: 2, quarantine: true}\n")
    (tmp_path / "batch").write_bytes(HEADER + BATCH)
    (tmp_path / "whole").write_bytes(b"".join(parts))
    command = [*PEERWATCH, "run", "--config", "c.yaml", "--quiet", "batch"]
    subprocess.run([*command, "whole", "expected"], cwd=tmp_path, check=True)
    subprocess.run([*PEERWATCH, "run", "--k", "2", "--quiet", "batch", "whole", "other"], cwd=tmp_path, check=True)
    expected = (tmp_path / "expected").read_bytes()
    assert expected != (tmp_path / "other").read_bytes()
    for workers in (1, 2, 4):
        (tmp_path / "stream").write_bytes(parts[0])
        state = tmp_path / f"state-{workers}"
        options = ["--follow", "--state", state.name, "--cluster", f"ray:{cluster}", "--workers", str(workers)]
        with running([*command, "stream", f"out-{workers}", *options], cwd=tmp_path) as run:
            judged = events_in(BATCH) + events_in(parts[0])
            status = status_of(state, run, lambda status, judged=judged: status.through == judged)  # type: ignore[misc]
            assert len(status.workers) == workers
            for worker in replicas():
                with suppress(psutil.NoSuchProcess):
                    os.kill(worker.pid, signal.SIGKILL)
            with (tmp_path / "stream").open("ab") as log:
                log.write(parts[1])
            judged += events_in(parts[1])
            status = status_of(state, run, lambda status, judged=judged: status.through == judged)  # type: ignore[misc]
            assert sum(each.restarts for each in status.workers) >= 1
            run.send_signal(signal.SIGTERM)
            assert run.wait() == 0
        assert (tmp_path / f"out-{workers}").read_bytes() == expected


SITE = """import sys
if any("default_worker" in each for each in sys.orig_argv):
    {}
"""
"""Is run by every Python process; those of workers are told by their script."""
OTHER_VERSION = "import peerwatch; peerwatch.__version__ = '0.0.9'"
NOT_INSTALLED = "sys.modules['peerwatch'] = None"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            OTHER_VERSION,
            r"the worker on 127\.0\.0\.1:\d+ runs peerwatch 0\.0\.9 with .*install the same version",
        ),
        (NOT_INSTALLED, r"no worker can begin on 127\.0\.0\.1:\d+: ModuleNotFoundError: .*peerwatch.*install the same"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_nodes_that_differ_are_refused(change: str, said: str, tmp_path: Path) -> None:
    """Before anything is written, in one sentence that says on which node."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE.format(change))
    port = free_port()
    start = [*PEERWATCH, "cluster", "start", "--port", str(port)]
    subprocess.run(start, check=True, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")})
    (tmp_path / "stream").write_bytes(HEADER + BATCH)
    before = sorted(tmp_path.iterdir())
    command = [*PEERWATCH, "run", "stream", "out", "--state", "state", "--cluster", f"ray:{LOOPBACK}:{port}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert re.fullmatch(f"peerwatch: {said}.*\n", result.stderr)
    assert sorted(tmp_path.iterdir()) == before


def test_a_signal_while_a_run_connects_ends_it(cluster: str, tmp_path: Path) -> None:
    """As before and after that, and without the stack that Ray would print."""
    port = int(cluster.rpartition(":")[2])
    (tmp_path / "stream").write_bytes(HEADER + BATCH)
    command = [*PEERWATCH, "run", "stream", "out", "--follow", "--quiet", "--state", "state", "--cluster"]
    with running([*command, f"ray:{cluster}"], cwd=tmp_path, stderr=subprocess.PIPE) as run:
        known = psutil.Process(run.pid)
        wait_until(lambda: any(each.raddr and each.raddr.port == port for each in known.net_connections()), run)
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate()
    assert run.returncode in {-signal.SIGTERM, 0}, said  # 0 if it has got so far that it stops in order
    assert said == b""


def test_a_service_beside_the_run(cluster: str, tmp_path: Path) -> None:
    """What it has imported makes the run no other version than its workers; the output is that of one process."""
    (tmp_path / "batch").write_bytes(HEADER + BATCH)
    (tmp_path / "stream").write_bytes(made(1, 300))
    for name, options in (
        ("out", ["--state", "state", "--cluster", f"ray:{cluster}", "--serve", f"{LOOPBACK}:{free_port()}"]),
        ("expected", []),
    ):
        subprocess.run([*PEERWATCH, "run", "batch", "stream", name, "--quiet", *options], cwd=tmp_path, check=True)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "expected").read_bytes()


def test_quarantine_is_served(cluster: str, tmp_path: Path) -> None:
    """Decisions, explanations and users are those of one process, also after a label has released a purchase."""
    found = []
    for name, options in (("alone", []), ("cluster", ["--cluster", f"ray:{cluster}", "--workers", "2"])):
        directory = tmp_path / name
        directory.mkdir()
        write_logs(directory)
        (directory / "c.yaml").write_text("detector: {quarantine: true}\n")
        with served(directory, *LIVE, "--config", "c.yaml", *options) as service:
            service.until_ready()
            flagged = [each["seq"] for each in service.decisions(flagged="true")]
            assert flagged
            answer = service.http.post("/feedback", json={"seq": flagged[0], "label": "normal"})
            assert answer.status_code == 202
            after = [service.submit(line).json() for line in (NORMAL, FLAGGED, NORMAL)]
            status = service.get("/status")
            assert (status["quarantine"], len(status["workers"])) == (True, 2 * (name == "cluster"))
            decisions = service.decisions()
            explained = [service.get(f"/explain/{each['seq']}") for each in decisions[-30:]]
            users = [service.get(f"/users/{user}", at=at) for user in (1, 2) for at in (20, decisions[-1]["seq"])]
            found.append((after, decisions, explained, users))
            assert service.stop() == 0
    assert found[0] == found[1]

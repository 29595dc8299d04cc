"""`peerwatch serve` as a command: what it refuses, how it ends, and what a run without it does not import."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from served import FLAGGED, LIVE, NORMAL, Listener, peerwatch, served, write_logs
from support import ROOT, befriend, purchase

from peerwatch.settings.model import ServeSettings

BLOCKED = (
    "import sys; sys.modules['fastapi'] = None; from peerwatch.__main__ import main; sys.argv = sys.argv[1:]; main()"
)
"""Runs the command as where the extra is not installed."""


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A directory with both logs."""
    write_logs(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("here", "serve.listen is 'here'; expected HOST:PORT, such as 127.0.0.1:8000"),
        ("127.0.0.1:99999", "expected HOST:PORT"),
        ("192.0.2.1:8000", "cannot listen at 192.0.2.1:8000: Cannot assign requested address; name another address"),
        pytest.param("a..b:8000", "cannot listen at a..b:8000", marks=pytest.mark.slow),
    ],
)
def test_an_address_that_cannot_be_had_is_refused(logs: Path, address: str, says: str) -> None:
    """With one sentence and exit code 2; nothing has been written."""
    before = {path.name for path in logs.iterdir()}
    for command in ("serve", "run"):
        refused = peerwatch(logs, command, *LIVE, "--serve", address)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
        assert says in refused.stderr
    assert {path.name for path in logs.iterdir()} == before


@pytest.mark.slow
def test_a_second_copy_is_refused(logs: Path) -> None:
    """On the same port, and on the same state directory; the first one goes on."""
    with served(logs) as service:
        service.until_ready()
        address = service.url.removeprefix("http://")
        refused = peerwatch(logs, "serve", *LIVE, "--serve", address)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1), refused.stderr  # it may pass
        assert f"cannot listen at {address}: Address already in use; name another port" in refused.stderr
        refused = peerwatch(logs, "serve", *LIVE, "--serve", "127.0.0.1:0")
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
        assert "state" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert service.submit(FLAGGED).status_code == 200
        assert service.stop() == 0


def test_a_log_that_is_missing_is_the_only_thing_said(logs: Path) -> None:
    """No address is announced that is gone at once."""
    refused = peerwatch(logs, "serve", "missing.json", *LIVE[1:], "--serve", "127.0.0.1:0")
    assert (refused.returncode, refused.stderr) == (
        2, "peerwatch: cannot read the log missing.json: No such file or directory\n",
    )  # fmt: skip


def test_without_the_extra_it_says_what_to_install(logs: Path) -> None:
    """In one sentence, for `serve` with logs and without, and for `run --serve`."""
    for line in (["serve", *LIVE], ["serve"], ["run", *LIVE, "--serve", "127.0.0.1:0"]):
        command = [sys.executable, "-c", BLOCKED, "peerwatch", *line]
        refused = subprocess.run(command, cwd=logs, capture_output=True, text=True, check=False)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
        assert "a service needs fastapi; install it: pip install 'peerwatch[serve]'" in refused.stderr
    assert not (logs / "out").exists()


@pytest.mark.slow
def test_a_state_directory_is_made_as_a_run_makes_it(logs: Path) -> None:
    """If it is not there; where it cannot be, the sentence is that of a run, also where a token is needed."""
    with served(logs, *LIVE[:-1], "new") as service:
        service.until_ready()
        assert (logs / "new" / "decisions.db").exists()
        assert service.stop() == 0
    (logs / "file").touch()
    said = [
        peerwatch(logs, command, *LIVE[:-1], "file", *serving)
        for command, *serving in (["run"], ["serve", "--serve", "127.0.0.1:0"], ["serve", "--serve", "0.0.0.0:0"])
    ]
    assert [one.returncode for one in said] == [2, 2, 2], [one.stderr for one in said]
    assert all("Traceback" not in one.stderr for one in said)
    assert said[1].stderr.splitlines()[-1] == said[0].stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_ends_it_with_clients_connected(logs: Path, number: signal.Signals) -> None:
    """With exit code 0, as a run that can be continued; the clients see the end of their streams."""
    with served(logs) as service:
        service.until_ready()
        listeners = [Listener(service.url) for _ in range(5)]
        service.until(lambda: all(one.named("status") for one in listeners))
        assert service.stop(number) == 0
        for one in listeners:
            one.join()
        assert "Traceback" not in service.said()


@pytest.mark.slow
def test_a_service_stays_after_the_logs_have_ended(logs: Path) -> None:
    """`serve` shows what was judged until a signal; `run --serve` ends with the logs."""
    with served(logs, "batch", "stream", "out") as service:
        service.until_ready()
        assert service.get("/status")["state"] == "finished"
        assert len(service.decisions()) == 60
        assert service.get("/health")["status"] == "ok"
        assert service.stop() == 0
    with served(logs, "batch", "stream", "out", command="run") as service:
        assert service.process.wait(60) == 0
    assert not list(logs.glob("*.db*"))


def test_a_failure_of_the_run_is_its_exit_code(logs: Path) -> None:
    """The service ends with the run, which says why."""
    with (logs / "stream").open("ab") as log:
        log.write(b"junk\n")
    with served(logs, *LIVE, "--strict") as service:
        assert service.process.wait(60) == 1
        assert "stream:61" in service.said()
        assert "Traceback" not in service.said()


def test_every_listener_is_on_loopback(logs: Path) -> None:
    """By default, and also of the demo: no socket of the process listens anywhere else."""
    assert ServeSettings().listen is None
    with served(logs, *LIVE, "--serve", ":0") as service:
        service.until_ready()
        assert {address for address, _ in listening(service.process.pid)} == {"0100007F"}
        assert service.stop() == 0


def listening(pid: int) -> set[tuple[str, int]]:
    """The addresses, as the kernel writes them, and ports at which a process and its children listen."""
    inodes = set()
    for each in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        for descriptor in Path(f"/proc/{each}/fd").iterdir():
            try:
                found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))  # noqa: PTH115 (it is no path)
            except FileNotFoundError:
                continue
            if found is not None:
                inodes.add(found[1])
    places = set()
    for table in ("tcp", "tcp6"):
        if not Path(f"/proc/{pid}/net/{table}").exists():
            continue
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                places.add((address, int(port, 16)))
    return places


@pytest.mark.slow
def test_without_arguments_it_shows_a_demo_that_grows(tmp_path: Path) -> None:
    """On loopback, with nothing to set up; at the end nothing is left behind."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {**os.environ, "TMPDIR": str(scratch)}
    with served(tmp_path, "--serve", "127.0.0.1:0", env=env) as service:
        service.until(lambda: service.http.get("/status").status_code == 200)
        judged = service.get("/status")["totals"]["judged"]
        service.until(lambda: service.get("/status")["totals"]["judged"] > max(judged, 1000))
        service.until(lambda: bool(service.get("/decisions", flagged="true")["decisions"]))
        assert {address for address, _ in listening(service.process.pid)} == {"0100007F"}
        assert service.stop() == 0
        assert "Traceback" not in service.said()
    assert not [*scratch.iterdir()]


def test_labels_reach_the_run(tmp_path: Path) -> None:
    """With adapt.precision the threshold follows the labels that were posted, and a notice says so."""
    write_logs(tmp_path, 0)
    (tmp_path / "c.yaml").write_text("detector: {name: zscore, adapt: {precision: 0.9}}\n")
    with served(tmp_path, "-c", "c.yaml", *LIVE) as service, (tmp_path / "stream").open("ab", buffering=0) as log:
        service.until_ready()
        lines = [purchase(1 + i % 2, str(9 + i % 3) if i % 6 != 5 else "500") for i in range(240)]
        log.write(b"".join(lines))
        service.until(lambda: service.get("/status")["totals"]["judged"] == 240)
        before = service.decisions(flagged="true")
        assert len(before) >= 10
        for one in before:
            assert service.http.post("/feedback", json={"seq": one["seq"], "label": "normal"}).status_code == 202

        def told() -> bool:
            log.write(purchase(1, "10"))
            return any(one["notice"] == "labels" for one in service.get("/notices")["notices"])

        service.until(told)
        thresholds = {one["threshold"] for one in service.decisions() if one["threshold"] is not None}
        assert len(thresholds) > 1
        assert service.stop() == 0


def test_a_run_without_a_service_imports_nothing_of_it(logs: Path) -> None:
    """No module of it, of its server or its framework; also not for `--help`."""
    code = (
        "import sys; sys.argv = sys.argv[1:]\n"
        "from peerwatch.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "names = {name.partition('.')[0] for name in sys.modules} | set(sys.modules)\n"
        "found = names & {'peerwatch.service', 'fastapi', 'starlette', 'uvicorn', 'pydantic', 'h11', 'sqlite3',"
        " 'prometheus_client', 'peerwatch.connectors.buffered'}\n"
        "assert not found, found\n"
    )
    for line in (["run", "batch", "stream", "out"], ["run", *LIVE, "--idle-exit", "0"], ["serve", "--help"]):
        command = [sys.executable, "-c", code, "peerwatch", *line]
        done = subprocess.run(command, cwd=logs, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_examples_of_the_docs_run(logs: Path) -> None:
    """Each `curl` line of docs/service.md, as it stands there but for the port, is answered with success."""
    text = (ROOT / "docs" / "service.md").read_text()
    lines = re.findall("^curl .*$", text, re.MULTILINE)
    with served(logs) as service:
        service.until_ready()
        service.submit(FLAGGED * 10)
        for line in lines:
            command = shlex.split(line.replace("http://127.0.0.1:8000", service.url))
            done = subprocess.run([*command, "--silent", "--fail"], capture_output=True, text=True, check=True)
            assert json.loads(done.stdout)
        assert service.stop() == 0
    assert len(lines) >= 3


@pytest.mark.slow
def test_the_batch_log_and_directed_friendships_are_served(tmp_path: Path) -> None:
    """Decisions on both logs, explained; the event in the batch log's line of a submitted one is another."""
    header = b'{"D":1, "T":5, "friendships":"directed"}\n'
    usual = b"".join(purchase(2, str(9 + i % 3)) for i in range(6))
    (tmp_path / "batch").write_bytes(header + befriend(1, 2) + usual + FLAGGED)
    (tmp_path / "stream").write_bytes(purchase(2, "500") + NORMAL)
    with served(tmp_path, *LIVE, "--judge-batch") as service:
        service.until_ready()
        found = [(one["file"], one["line"], one["flagged"]) for one in service.decisions()]
        in_batch = [("batch", line, line == 9) for line in range(3, 10)]
        assert found == [*in_batch, ("stream", 1, False), ("stream", 2, False)]
        why = service.get("/explain/8")
        assert (why["file"], why["verdict"], [one["user"] for one in why["network"]]) == ("batch", "flagged", ["2"])
        assert service.get("/explain/9")["network"] == []
        status = service.get("/status")
        assert (status["friendships"], status["judge_batch"], status["quarantine"]) == ("directed", True, False)
        listed = json.loads(peerwatch(tmp_path, "radius", "batch", "stream", "--json", "--at", "10").stdout)
        assert listed["bridges"]
        assert service.get("/bridges", at="10") == listed
        assert service.http.get("/bridges", params={"at": "999"}).status_code == 409
        assert "1 directed friendships" in peerwatch(tmp_path, "status", "state").stdout
        answer = service.submit(NORMAL).json()["events"][0]
        assert (answer["line"], answer["seq"], answer["flagged"]) == (3, 11, False)
        assert service.http.post("/feedback", json={"seq": 8, "label": "anomaly"}).status_code == 202
        assert [one["label"] for one in service.decisions()] == [None] * 6 + ["anomaly"] + [None] * 3
        assert service.stop() == 0
        assert "Traceback" not in service.said()

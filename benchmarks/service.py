"""What the service costs a followed log: how late verdicts are with and without it, and how long a submission takes.

`python benchmarks/service.py` prints it. Beside a log at 1,000 events a second there are 50 clients of the stream,
one that never reads, 20 requests a second for the explanation of a flagged purchase, and one request after the other
for that of another purchase, which makes a replay.
"""

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import numpy as np
from latency import Output

from peerwatch.studies.generate import Recipe, write_logs

RATE: Final = 1000
SECONDS: Final = 15
ROUNDS: Final = 4
"""Each flags some hundreds of purchases, which are too few for a percentile of their own."""
CLIENTS: Final = 50
EXPLAIN_RATE: Final = 20
SUBMISSIONS: Final = 500
LOOK_SECONDS: Final = 0.0005
PURCHASE: Final = '{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "1", "amount": "16.83"}'


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        alone = _together([one_round(directory / f"alone{n}", serves=False) for n in range(ROUNDS)])
        rounds = [one_round(directory / f"served{n}", serves=True) for n in range(ROUNDS)]
        served = _together(rounds)
        print(f"verdict, p50 / p99 in ms, without a service: {alone[0]:.1f} / {alone[1]:.1f}")
        print(f"verdict, p50 / p99 in ms, with it:           {served[0]:.1f} / {served[1]:.1f}")
        for kind, what in (("flagged", "a flagged one"), ("others", "another, by replay")):
            explained = np.median([each["explained"][kind] for each in rounds], axis=0)
            print(f"GET /explain of {what}, p50 / p99 in ms: {explained[0]:.1f} / {explained[1]:.1f}")
        grown = max(each["grown"] for each in rounds)
        print(f"resident memory grew by {grown / 1e6:.0f} MB while a client read nothing")
        posted = submissions(directory / "posted")
        print(f"POST /events with one purchase, p50 / p99 in ms: {posted[0]:.1f} / {posted[1]:.1f}")


class Run:
    """A run that follows a log, with or without a service."""

    def __init__(self, directory: Path, stack: ExitStack, events: int, *, serves: bool) -> None:
        batch, self.stream, _ = write_logs(directory, Recipe(batch_events=100_000, stream_events=events), force=True)
        self.lines = self.stream.read_bytes().splitlines(keepends=True)
        self.stream.write_bytes(b"")
        self.flagged = directory / "flagged"
        self.flagged.touch()
        command = [sys.executable, "-m", "peerwatch", "run", "--follow", "--walkers", "1", "--k", "3"]
        command += ["--state", str(directory / "state"), str(batch), str(self.stream), str(self.flagged)]
        said = directory / "said"
        with said.open("wb") as errors:
            self.process = stack.enter_context(
                subprocess.Popen([*command, *["--serve", "127.0.0.1:0"] * serves], stderr=errors)
            )
        stack.callback(self.process.send_signal, signal.SIGTERM)
        self.port = 0
        status = directory / "state" / "status.json"
        while serves and not self.port:
            found = re.search(r"serving at http://127.0.0.1:(\d+)", said.read_text())
            self.port = int(found[1]) if found else 0
        while not status.exists() or json.loads(status.read_bytes())["totals"]["events"] < 100_000:
            time.sleep(0.1)

    def memory(self) -> int:
        """Its resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def one_round(directory: Path, *, serves: bool) -> dict[str, Any]:
    """How many seconds late each flagged line is, and what was measured beside."""
    with ExitStack() as stack:
        run = Run(directory, stack, RATE * SECONDS, serves=serves)
        before, explained = run.memory(), {}
        if serves:
            _listen(stack, run.port)  # this one never reads
            command = [sys.executable, __file__]  # what clients do is not to be in what is measured
            reading = stack.enter_context(subprocess.Popen([*command, "--read", str(run.port)], stdout=subprocess.PIPE))
            stack.callback(reading.kill)
            if reading.stdout is not None:
                reading.stdout.readline()  # all of them are connected
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            asking = stack.enter_context(subprocess.Popen([*command, "--explain", str(run.port)], **pipes))
            stack.callback(asking.kill)
        output = Output(run.flagged)
        written = _write(run.stream, run.lines, output)
        grown = run.memory() - before
        if serves:
            explained = json.loads(asking.communicate()[0])
    place = {line: number for number, line in enumerate(run.lines)}
    numbers = [place[line.rpartition(b', "mean"')[0] + b"}\n"] for line in output.lines]
    late = [moment - written[n] for n, moment in zip(numbers, output.moments, strict=True) if n >= RATE]
    return {
        "late": late,
        "grown": grown,
        "explained": {kind: _percentiles(taken) for kind, taken in explained.items()},
    }


def submissions(directory: Path) -> list[float]:
    """How long a submission of one purchase takes, one after the other, as percentiles in milliseconds."""
    with ExitStack() as stack:
        run = Run(directory, stack, 1, serves=True)
        connection, taken = HTTPConnection("127.0.0.1", run.port), []
        for _ in range(SUBMISSIONS):
            begin = time.perf_counter()
            connection.request("POST", "/events", PURCHASE, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            taken.append(time.perf_counter() - begin)
            if answer.status != 200:
                raise SystemExit(content.decode())
        connection.close()
    return _percentiles(taken)


def _together(rounds: list[dict[str, Any]]) -> list[float]:
    return _percentiles([late for each in rounds for late in each["late"]])


def _percentiles(seconds: list[float]) -> list[float]:
    found: list[float] = (1000 * np.percentile(seconds, [50, 99])).tolist()
    return found


def _listen(stack: ExitStack, port: int) -> socket.socket:
    """A client of the event stream."""
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    client.sendall(f"GET /events HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
    client.recv(1000)
    return client


def read(port: int) -> None:
    """Be all clients that read, until the service ends."""
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(CLIENTS):
            selector.register(_listen(stack, port), selectors.EVENT_READ)
        print("connected", flush=True)
        left = CLIENTS
        while left:
            for key, _ in selector.select():
                client = key.fileobj
                if isinstance(client, socket.socket) and not client.recv(1 << 16):
                    selector.unregister(client)
                    left -= 1


def explain(port: int) -> None:
    """Ask for the explanations of the newest flagged purchases, so many a second, until standard input is closed.

    Beside it, for those of others, which are found by replay, one after the other. Prints how many seconds each took.
    """
    over = threading.Event()
    flagged: list[float] = []
    others: list[float] = []
    for taken, is_flagged, pause in ((flagged, "true", 1 / EXPLAIN_RATE), (others, "false", 0.001)):
        threading.Thread(target=_ask, args=(port, taken, is_flagged, pause, over), daemon=True).start()
    sys.stdin.read()
    over.set()
    print(json.dumps({"flagged": flagged, "others": others}))


def _ask(port: int, taken: list[float], is_flagged: str, pause: float, over: threading.Event) -> None:
    """Ask for explanations of the newest decisions, with a pause before each."""
    while not over.wait(pause):
        found = _get(port, f"/decisions?flagged={is_flagged}&order=desc&limit=1")
        if found and found["decisions"]:
            begin = time.perf_counter()
            if _get(port, f"/explain/{found['decisions'][0]['seq']}") is not None:
                taken.append(time.perf_counter() - begin)


def _get(port: int, path: str) -> Any:
    """What the service answers; None if it is an error."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return json.loads(content) if answer.status == 200 else None


def _write(log: Path, lines: list[bytes], output: Output) -> list[float]:
    """Append each line when it is due; returns the moment just before each was written."""
    written: list[float] = []
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    begin = time.perf_counter()
    while len(written) < len(lines) or time.perf_counter() < written[-1] + 1:
        due = min(len(lines), int((time.perf_counter() - begin) * RATE) + 1)
        if due > len(written):
            content = b"".join(lines[len(written) : due])
            written += [time.perf_counter()] * (due - len(written))
            os.write(file, content)
        output.look()
        time.sleep(LOOK_SECONDS)
    os.close(file)
    return written


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read(int(sys.argv[2]))
    elif sys.argv[1:2] == ["--explain"]:
        explain(int(sys.argv[2]))
    else:
        main()

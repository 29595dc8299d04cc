"""Kafka in, Kafka and PostgreSQL out, beside files: how fast whole runs are, and how soon a verdict can be read.

Run it by itself, `python benchmarks/kafka.py [DIRECTORY]`: it starts servers of its own. DIRECTORY has the logs of the
real case; without it a synthetic case is measured.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from throughput import COMMAND, Cost, cost_of, median

from peerwatch.studies.generate import Recipe, write_logs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import Kafka, Postgres
from soak_connectors import flagged_through
from system_kafka import make_topic, put, records, settings
from system_postgresql import query

NAME: Final = "kafka"
RATE: Final = 1000
SECONDS: Final = 10
PERCENTILES: Final = (50.0, 99.0)
FILES: Final = "file to file"


def measure(root: Path, directory: Path | None, runs: int) -> dict[str, Any]:
    """All figures; what is missing, if a server is not installed. Without a directory a synthetic case is taken."""
    missing = Kafka.missing() or Postgres.missing()
    if missing is not None:
        return {"missing": missing}
    scratch = root / NAME
    scratch.mkdir()
    if directory is None:
        directory = scratch / "case"
        write_logs(directory, Recipe(), force=True)
    with Kafka() as kafka, Postgres() as postgres:
        found = throughput(kafka, postgres, directory, scratch, runs)
        rounds = []
        for number in range(runs):
            (scratch / f"{number}").mkdir()
            rounds.append(latency(kafka, scratch / f"{number}"))
    found["latency"] = [statistics.median(column) for column in zip(*rounds, strict=True)]
    return found


def throughput(kafka: Kafka, postgres: Postgres, directory: Path, scratch: Path, runs: int) -> dict[str, Any]:
    """The costs of whole runs, start-up included; each kind in turn, so that all meet the machine alike."""
    address = kafka.url.removeprefix("kafka://")
    logs = {name: directory / f"{name}_log.json" for name in ("batch", "stream")}
    content = {name: path.read_bytes().splitlines() for name, path in logs.items()}
    D, T = header_of(content["batch"])
    for name, lines in content.items():
        make_topic(address, name)
        put(address, name, lines)
    topics = [f"{kafka.url}/{name}" for name in logs]
    config = scratch / "sinks.yaml"
    costs: dict[str, list[Cost]] = {}
    for number in range(runs):
        schema, output = f"run{number}", scratch / "flagged.json"
        query(postgres, f"CREATE SCHEMA {schema}")
        config.write_text(f"sinks: [{{to: '{postgres.url}?schema={schema}', records: [flagged]}}]\n")
        outs = [f"out{number}{kind}" for kind in "abc"]
        for kind, places in {
            FILES: [*map(str, logs.values()), str(output)],
            "topic to topic, the batch log from a file": [str(logs["batch"]), topics[1], f"{kafka.url}/{outs[0]}"],
            "topics to topic": [*topics, f"{kafka.url}/{outs[1]}"],
            "topics to topic and PostgreSQL": [*topics, f"{kafka.url}/{outs[2]}", "--config", str(config)],
        }.items():
            place = scratch / f"{number}-{kind.replace(' ', '-')}"
            options = ["--D", D, "--T", T, "--rejects", f"{place}-rejects.json", "--state", f"{place}-state"]
            costs.setdefault(kind, []).append(cost_of([*COMMAND, *options, *places]))
        expected = output.read_bytes()
        rows = query(postgres, "SELECT line FROM peerwatch_flagged ORDER BY seq", schema=schema)
        found = {topic: b"".join(map(line_of, records(address, topic))) for topic in outs}
        found["PostgreSQL"] = "".join(f"{row['line']}\n" for row in rows).encode()
        for name, lines_there in found.items():
            if lines_there != expected:
                raise SystemExit(f"{name} holds other bytes than the file")
    return {
        "events": sum(map(len, content.values())), "D": D, "T": T, "runs": runs,
        "costs": {kind: median(each)._asdict() for kind, each in costs.items()},
    }  # fmt: skip


def header_of(lines: list[bytes]) -> tuple[str, str]:
    """D and T, which a topic's first message cannot set."""
    header = msgspec.json.decode(lines.pop(0))
    return str(header["D"]), str(header["T"])


def line_of(message: Message) -> bytes:
    """The flagged line in a verdict."""
    line: str = msgspec.json.decode(message.value() or b"")["line"]
    return line.encode() + b"\n"


class Verdicts:
    """Reads the verdicts of a topic as they come, on a thread, and notes when each could be read."""

    def __init__(self, address: str, topic: str, expected: list[bytes]) -> None:
        self.read: list[float] = []
        self._expected = expected
        self._consumer = Consumer(
            settings(address, group_id="bench", isolation_level="read_committed", fetch_wait_max_ms=50)
        )
        self._consumer.assign([TopicPartition(topic, 0, 0)])
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        for line in self._expected:
            while (message := self._consumer.poll()) is None or message.error() is not None:
                pass
            now = time.perf_counter()
            if line_of(message) != line:
                raise SystemExit("a verdict is another one than the file's")
            self.read.append(now)
        self._consumer.close()

    def wait(self, count: int, process: "subprocess.Popen[bytes]") -> None:
        """Wait until so many have been read."""
        while len(self.read) < count:
            if process.poll() is not None:
                raise SystemExit(f"the run ended with {process.returncode}")
            time.sleep(0.01)


def latency(kafka: Kafka, scratch: Path) -> list[float]:
    """Milliseconds from the moment before a message is produced until its verdict has been read, as percentiles.

    k is 0, so that many are flagged. The clock starts when the verdicts of the first second's messages have been read;
    from then on messages are written at `RATE` a second.
    """
    address = kafka.url.removeprefix("kafka://")
    source, sink = f"source-{scratch.name}", f"sink-{scratch.name}"
    batch, stream, _ = write_logs(
        scratch / "logs", Recipe(batch_events=100_000, stream_events=RATE * (SECONDS + 1)), force=True
    )
    options = ["--k", "0", "--walkers", "1", "--rejects", str(scratch / "rejects.json")]
    subprocess.run([*COMMAND, *options, str(batch), str(stream), str(scratch / "expected.json")], check=True)
    lines, expected = stream.read_bytes().splitlines(), (scratch / "expected.json").read_bytes().splitlines()
    through = flagged_through(lines, expected)
    make_topic(address, source)
    make_topic(address, sink)
    command = [*COMMAND, "--follow", *options, "--state", str(scratch / "state"), str(batch)]
    written = [0.0] * len(lines)
    with subprocess.Popen([*command, f"{kafka.url}/{source}", f"{kafka.url}/{sink}"]) as peerwatch:
        verdicts = Verdicts(address, sink, [line + b"\n" for line in expected])
        put(address, source, lines[:RATE])
        verdicts.wait(through[RATE], peerwatch)
        producer = Producer(settings(address, linger_ms=0))
        producer.list_topics(source)
        began = time.perf_counter()
        for number, line in enumerate(lines[RATE:]):
            while time.perf_counter() < began + number / RATE:
                producer.poll(0.0002)
            written[RATE + number] = time.perf_counter()
            producer.produce(source, line, partition=0)
        producer.flush()
        verdicts.wait(len(expected), peerwatch)
        peerwatch.send_signal(signal.SIGTERM)
    flagged = [number for number in range(RATE, len(lines)) if through[number + 1] > through[number]]
    took = [1000 * (verdicts.read[through[number]] - written[number]) for number in flagged]
    return [float(value) for value in np.percentile(took, PERCENTILES)] + [float(len(took))]


def lines(found: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    if not found:
        return []
    if "missing" in found:
        return [f"Kafka and PostgreSQL beside files were not measured: {found['missing']}."]
    events, costs = found["events"], found["costs"]
    files = costs[FILES]["wall"]
    rows = []
    for kind, cost in costs.items():
        wall = cost["wall"]
        rows.append(f"| {kind} | {wall:.2f} | {cost['cpu']:.2f} | {events / wall:,.0f} | {files / wall:.2f} |")
    p50, p99, count = found["latency"]
    return [
        (
            f"Kafka in, Kafka and PostgreSQL out, beside files: {events:,} events, D={found['D']}, T={found['T']}, with"
            f" a state directory, exactly once; medians of {found['runs']} runs, the same bytes in each place:"
        ),
        "\n".join(["| run | wall s | CPU s | events/s | to file to file |", "|---|--:|--:|--:|--:|", *rows]),
        (
            f"From the moment before a message is produced to its readable verdict, topic to topic at {RATE:,} events a"
            f" second: p50 {p50:.1f} ms, p99 {p99:.1f} ms ({count:,.0f} verdicts a round)."
        ),
    ]


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="peerwatch-bench-") as name:
        print("\n\n".join(lines(measure(Path(name), arguments.directory, arguments.runs))))


if __name__ == "__main__":
    main()

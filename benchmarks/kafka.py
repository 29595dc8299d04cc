"""Kafka in, Kafka out, beside files: how fast whole runs are, and how long after a message its verdict can be read.

Run it by itself, `python benchmarks/kafka.py [DIRECTORY]`: it starts a broker of its own. DIRECTORY has the logs of the
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

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from throughput import COMMAND, Cost, cost_of, median

from peerwatch.studies.generate import Recipe, write_logs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import Kafka
from system_kafka import make_topic, put, records, settings

RATE = 1000
SECONDS = 10
PERCENTILES = (50.0, 99.0)


def throughput(kafka: Kafka, directory: Path, scratch: Path, runs: int) -> None:
    """Print the costs of whole runs, start-up included; each kind in turn, so that all meet the machine alike."""
    address = kafka.url.removeprefix("kafka://")
    logs = {name: directory / f"{name}_log.json" for name in ("batch", "stream")}
    content = {name: path.read_bytes().splitlines() for name, path in logs.items()}
    D, T = header_of(content["batch"])
    events = sum(map(len, content.values()))
    for name, lines in content.items():
        make_topic(address, name)
        put(address, name, lines)
    costs: dict[str, list[Cost]] = {}
    for number in range(runs):
        files = [str(logs["batch"]), str(logs["stream"])]
        topics = [f"{kafka.url}/batch", f"{kafka.url}/stream"]
        out = f"out-{number}"
        for kind, places in {
            "file to file": [*files, str(scratch / "flagged.json")],
            "topic to topic, batch log from a file": [files[0], topics[1], f"{kafka.url}/{out}-stream"],
            "topics to topic": [*topics, f"{kafka.url}/{out}"],
        }.items():
            state = ["--state", str(scratch / f"state-{number}-{len(places[0])}-{len(places[1])}")]
            options = ["--D", D, "--T", T, "--rejects", str(scratch / f"rejects-{number}-{kind.split()[0]}.json")]
            costs.setdefault(kind, []).append(cost_of([*COMMAND, *options, *state, "--reset", *places]))
        expected = (scratch / "flagged.json").read_bytes()
        for topic in (out, f"{out}-stream"):
            found = b"".join(line_of(message) for message in records(address, topic))
            if found != expected:
                raise SystemExit(f"{topic} holds other bytes than the file")
    print(f"{events:,} events, D={D}, T={T}; with a state directory, exactly once; medians of {runs} runs; same bytes")
    print("| run | wall s | CPU s | events/s |\n|---|--:|--:|--:|")
    for kind, all_costs in costs.items():
        cost = median(all_costs)
        print(f"| {kind} | {cost.wall:.2f} | {cost.cpu:.2f} | {events / cost.wall:,.0f} |")


def header_of(lines: list[bytes]) -> tuple[str, str]:
    """D and T, which a topic's first message cannot set."""
    header = msgspec.json.decode(lines.pop(0))
    return str(header["D"]), str(header["T"])


def line_of(message: Message) -> bytes:
    """The flagged line in a verdict."""
    line: str = msgspec.json.decode(message.value() or b"")["line"]
    return line.encode() + b"\n"


def latency(kafka: Kafka, scratch: Path) -> list[float]:
    """Milliseconds from the moment before a message is produced until its verdict has been read, as percentiles.

    Messages are written at `RATE` a second. k is 0, so that many are flagged. The first second is not counted.
    """
    address = kafka.url.removeprefix("kafka://")
    source, sink = f"source-{scratch.name}", f"sink-{scratch.name}"
    batch, stream, _ = write_logs(
        scratch / "logs", Recipe(batch_events=100_000, stream_events=RATE * (SECONDS + 1)), force=True
    )
    lines = stream.read_bytes().splitlines()
    make_topic(address, source)
    make_topic(address, sink)
    run = [*COMMAND, "--follow", "--k", "0", "--walkers", "1", "--state", str(scratch / "state")]
    place = {line: number for number, line in enumerate(lines)}
    written, late = [0.0] * len(lines), []
    is_over = threading.Event()

    def read() -> None:
        consumer = Consumer(settings(address, group_id="bench", isolation_level="read_committed", fetch_wait_max_ms=50))
        consumer.assign([TopicPartition(sink, 0, 0)])
        while not is_over.is_set():
            message = consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            now = time.perf_counter()
            number = place[line_of(message).rpartition(b', "mean"')[0] + b"}"]
            if number >= RATE:
                late.append(1000 * (now - written[number]))
        consumer.close()

    reader = threading.Thread(target=read)
    command = [*run, str(batch), f"{kafka.url}/{source}", f"{kafka.url}/{sink}"]
    with subprocess.Popen([*command, "--rejects", str(scratch / "rejects.json")]) as peerwatch:
        while not list((scratch / "state").glob("checkpoint-*")):  # then it has begun
            time.sleep(0.1)
        time.sleep(1)  # for the batch log
        reader.start()
        producer = Producer(settings(address, linger_ms=0))
        began = time.perf_counter()
        for number, line in enumerate(lines):
            while time.perf_counter() < began + number / RATE:
                producer.poll(0.0002)
            written[number] = time.perf_counter()
            producer.produce(source, line, partition=0)
        producer.flush()
        time.sleep(2)  # for the last verdicts
        is_over.set()
        reader.join()
        peerwatch.send_signal(signal.SIGTERM)
    return [float(value) for value in np.percentile(late, PERCENTILES)] + [float(len(late))]


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="peerwatch-bench-") as name, Kafka() as kafka:
        scratch = Path(name)
        directory = arguments.directory
        if directory is None:
            directory = scratch / "case"
            write_logs(directory, Recipe(), force=True)
        throughput(kafka, directory, scratch, arguments.runs)
        rounds = []
        for number in range(arguments.runs):
            (scratch / f"{number}").mkdir()
            rounds.append(latency(kafka, scratch / f"{number}"))
        p50, p99, count = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"from produce to readable verdict at {RATE:,} events a second: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        print(f"({count:,.0f} verdicts a round, medians of {arguments.runs} rounds)")


if __name__ == "__main__":
    main()

"""The soak of the connectors: the judge is killed again and again while it writes to a system, and its server as well.

`python tests/soak_connectors.py SYSTEM` does it for one of the systems of tests/connectors/test_stores.py; the suite
runs a short form. At the end the system must hold what an uninterrupted run writes to a file, byte for byte.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from receiver import Receiver
from servers import SERVERS, Server
from support import running, wait_until
from systems import SinkSystem

from peerwatch.settings.model import InputSettings
from peerwatch.storage.checkpoints import envelopes
from peerwatch.studies.generate import Recipe, generate

COMMAND = [sys.executable, "-m", "peerwatch", "run", "--quiet"]
CONFIG = """
follow: true
idle_exit: {idle_exit}
input: {{batch: batch_log.json, stream: live.json}}
output: {{flagged: "{url}", rejects: rejects.json}}
state: {{directory: state, seconds: 0.05, events: 500}}
"""


def soak(system: SinkSystem, directory: Path, logs: tuple[bytes, bytes], *, kills: int, outages: int, seed: int) -> str:
    """Run the soak in an empty directory; returns what has happened.

    The stream log is written piece by piece, and in each piece the judge is killed once some of its records have
    arrived. In some of them the server is killed before.

    Raises:
        AssertionError: the system does not hold what an uninterrupted run writes.
    """
    batch, stream = logs
    rng = random.Random(seed)
    (directory / "batch_log.json").write_bytes(batch)
    for name, idle_exit in (("live.yaml", "1.0e+6"), ("last.yaml", "0.01")):
        (directory / name).write_text(CONFIG.format(idle_exit=idle_exit, url=system.url))
    expected = judged(logs)
    lines = stream.splitlines(keepends=True)
    through = flagged_through(lines, expected.splitlines())
    live = (directory / "live.json").open("ab", buffering=0)
    without_server = set(rng.sample(range(kills), outages)) if system.server is not None else set()
    killed = failed = 0
    for attempt in range(kills):
        begin, end = (len(lines) * place // (kills + 1) for place in (attempt, attempt + 1))
        live.write(b"".join(lines[begin:end]))
        first, behind = through[begin] + 1, through[end]  # once the first is there, this process has written it
        assert first <= behind, f"no purchase is flagged in lines {begin + 1} to {end}; take a longer log"
        wanted = rng.randint(first, behind)
        command = [*COMMAND, "--config", "live.yaml", "--shards", str(1 + attempt % 3)]
        with (directory / "messages").open("ab") as said, running(command, cwd=directory, stderr=said) as process:
            if attempt == 0:
                wait_until(lambda: any(envelopes(directory / "state", InputSettings())), process)
                system.run = next(envelopes(directory / "state", InputSettings()))[1].identity.run
            if attempt in without_server and system.server is not None:
                wait_until(partial(has, system, rng.randint(first, wanted)), process)
                system.server.kill()
                system.server.start()
                failed += 1
            wait_until(partial(has, system, wanted), process)
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    live.write(b"".join(lines[len(lines) * kills // (kills + 1) :]))
    live.close()
    subprocess.run([*COMMAND, "--config", "last.yaml"], cwd=directory, check=True)
    found = system.flagged()
    assert found == expected, f"{len(found)} bytes, expected {len(expected)}; kept in {directory}"
    return f"{len(expected.splitlines())} flagged purchases, {killed} kills of the judge and {failed} of the server"


@cache
def judged(logs: tuple[bytes, bytes]) -> bytes:
    """What an uninterrupted run writes to a file."""
    with tempfile.TemporaryDirectory() as name:
        for log, content in zip(("batch", "stream"), logs, strict=True):
            (Path(name) / log).write_bytes(content)
        subprocess.run([*COMMAND, "batch", "stream", "expected"], cwd=name, check=True)
        return (Path(name) / "expected").read_bytes()


def flagged_through(lines: list[bytes], flagged: list[bytes]) -> list[int]:
    """For each number of lines of the stream log, how many of the first lines are flagged."""
    through = [0]
    for line in lines:
        count = through[-1]
        is_next = count < len(flagged) and flagged[count].startswith(line.rstrip()[:-1])
        through.append(count + is_next)
    assert through[-1] == len(flagged)
    return through


def has(system: SinkSystem, count: int) -> bool:
    """Whether so many flagged purchases of the run are there; not if the system does not know of any yet."""
    time.sleep(0.04)  # who asks all the time takes it from the run that is watched
    try:
        return system.flagged().count(b"\n") >= count
    except Exception:  # noqa: BLE001 (each client has its own error for a place that is not made yet)
        return count == 0


def import_path(name: str, path: Path) -> ModuleType:
    """The module in a file."""
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """The long form."""
    systems = import_path("test_stores", Path(__file__).parent / "connectors" / "test_stores.py").SYSTEMS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=sorted(systems))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--outages", type=int, default=10, help="how often the server is killed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="a directory with batch_log.json and stream_log.json of a real case")
    arguments = parser.parse_args()
    if arguments.logs is not None:
        batch, stream = ((arguments.logs / name).read_bytes() for name in ("batch_log.json", "stream_log.json"))
    else:
        print("no --logs given: a synthetic case is used")
        lines = generate(Recipe(users=2000, batch_events=40_000, stream_events=200_000, seed=arguments.seed))
        batch, stream = ("".join(part).encode() for part in lines[:2])
    kind, fixture = systems[arguments.system]
    directory = Path(tempfile.mkdtemp(prefix="peerwatch-soak-"))
    began = time.monotonic()
    with ExitStack() as stack:
        system = kind(directory)
        if fixture is not None:
            kinds: list[type[Server]] = [*SERVERS, Receiver]
            servers = {server.name: server for server in kinds}
            system.server = stack.enter_context(servers[fixture.removesuffix("_server")]())
        system.make()
        happened = soak(
            system,
            directory,
            (batch, stream),
            kills=arguments.kills,
            outages=arguments.outages,
            seed=arguments.seed,
        )
    shutil.rmtree(directory)
    print(f"byte-equal after {happened}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

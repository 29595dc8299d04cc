"""A Ray cluster on this machine alone, for trying things out and for tests: `peerwatch cluster start` and `stop`.

It listens on the loopback address only, because whoever can connect to Ray can run code.
"""

import ipaddress
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import psutil

from peerwatch.cluster.environment import ENVIRONMENT, LOOPBACK
from peerwatch.errors import RunError, UsageError
from peerwatch.readable import shown

MARK: Final = "PEERWATCH_CLUSTER"
"""The environment variable by which the processes of a cluster are recognised."""
STORE_BYTES: Final = 80 << 20
"""Shared memory of each node, which a run hardly uses; /dev/shm is small in many containers."""
STOP_SECONDS: Final = 2.0


class LocalCluster(msgspec.Struct, frozen=True):
    """What is written down of a cluster: its address, and how many nodes it began with."""

    address: str
    nodes: int


class Listener(msgspec.Struct, frozen=True):
    """A port of a process that others can connect to."""

    process: str
    address: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        address = ipaddress.ip_address(self.address.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return address.ipv4_mapped.is_loopback
        return address.is_loopback


def folder() -> Path:
    """Where a cluster of this user keeps its files. The path is short: it becomes part of the names of sockets."""
    return Path(tempfile.gettempdir()) / f"peerwatch-{os.getuid()}"


def start(nodes: int, port: int) -> LocalCluster:
    """Start a cluster.

    Raises:
        UsageError: one is running, or this one cannot be started.
        RunError: others could connect to it, so it has been stopped again.
    """
    running = known()
    if running is not None and processes():
        raise UsageError(f"a local cluster is running at {running.address}; stop it: peerwatch cluster stop")
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        raise UsageError(
            f"no cluster can listen at {LOOPBACK}:{port} ({error.strerror}); name another: --port"
        ) from None
    directory = folder()
    directory.mkdir(mode=0o700, exist_ok=True)
    cluster = LocalCluster(f"{LOOPBACK}:{port}", nodes)
    (directory / "cluster.json").write_bytes(msgspec.json.encode(cluster))
    try:
        for number in range(nodes):
            start_node(cluster, is_head=number == 0)
        check_local()
    except BaseException:
        stop()
        raise
    return cluster


def check_local() -> None:
    """Check that only this machine can connect to the cluster.

    Raises:
        RunError: others can.
    """
    if public := [each for each in listeners() if not each.is_local]:
        where = ", ".join(f"{each.address}:{each.port} ({each.process})" for each in public)
        raise RunError(f"Ray listens at {where}, where others can connect and run code")


def start_node(cluster: LocalCluster, *, is_head: bool) -> None:
    """Start one node.

    Raises:
        UsageError: it does not start.
    """
    directory, port = folder(), cluster.address.rpartition(":")[2]
    where = (
        ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={directory / 'ray'}"]
        if is_head
        else [f"--address={cluster.address}"]
    )
    options = [
        f"--node-ip-address={LOOPBACK}", "--disable-usage-stats", f"--object-store-memory={STORE_BYTES}",
        "--min-worker-port=0", "--max-worker-port=0",
    ]  # fmt: skip
    log = directory / "start.log"
    with log.open("ab") as output:
        code = subprocess.run(  # noqa: S603 (our own module)
            [sys.executable, "-m", "peerwatch.cluster.ray", "start", *where, *options],
            env=os.environ | ENVIRONMENT | {MARK: str(directory)},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, check=False,
        ).returncode  # fmt: skip
    if code != 0:
        raise UsageError(f"the cluster does not start at {cluster.address}; {shown(log)} says why")


def stop() -> int:
    """End all processes of the cluster; returns how many there were."""
    found = processes()
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in found:
            with suppress(psutil.NoSuchProcess):
                end(process)
        _, alive = psutil.wait_procs(found, STOP_SECONDS)
        if not alive:
            break
    (folder() / "cluster.json").unlink(missing_ok=True)
    return len(found)


def known() -> LocalCluster | None:
    """The cluster that was started and not stopped, None if there is none."""
    with suppress(FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return msgspec.json.decode((folder() / "cluster.json").read_bytes(), type=LocalCluster)
    return None


def processes() -> list[psutil.Process]:
    """The processes of the cluster: those with its mark, and what they have started."""
    mark, found = str(folder()), {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.pid != os.getpid():
                for each in (process, *process.children(recursive=True)):
                    found[each.pid] = each
    return [*found.values()]


def listeners() -> Iterator[Listener]:
    """Where the processes of the cluster can be connected to."""
    for process in processes():
        with suppress(psutil.Error):
            for each in process.net_connections(kind="inet"):
                if each.status == psutil.CONN_LISTEN:
                    yield Listener(process.name(), each.laddr.ip, each.laddr.port)

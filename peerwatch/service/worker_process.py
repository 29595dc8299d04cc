"""One worker process, as the service sees it: JSON objects, one a line, into its standard input and out of its output.

A worker ends when its standard input is closed, so it never outlives the service.
"""

import os
import sys
from pathlib import Path
from typing import Final, Self

import anyio
import msgspec
from anyio.abc import Process

from peerwatch.errors import RunError, WorkerDied
from peerwatch.service.worker_messages import Answer, Begun, Request

COMMAND: Final = (sys.executable, "-P", "-m", "peerwatch.service.worker")
"""With -P the working directory is not searched for modules, unless this process does so as well."""


class WorkerProcess:
    """A process that answers one request after the other."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._held = bytearray()
        self._decoder: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)

    @classmethod
    async def start(cls) -> Self:
        """Start a process, which finds the same modules as this one.

        Raises:
            WorkerDied: it could not be started.
        """
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
        try:
            return cls(await anyio.open_process(COMMAND, stderr=None, env=environment))
        except OSError as error:
            raise WorkerDied(f"no worker process could be started: {error.strerror}") from None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def begin(self, request: Request) -> None:
        """Send a request, and wait until the process has taken it.

        Raises:
            WorkerDied: the process ended before that.
        """
        await self.send(request)
        if not isinstance(await self.receive(), Begun):
            raise RunError("the worker said something else")

    async def send(self, request: Request) -> None:
        """Send a request, or what belongs to one.

        Raises:
            WorkerDied: the process has ended.
        """
        assert self._process.stdin is not None  # noqa: S101 (it was opened as a pipe)
        try:
            await self._process.stdin.send(msgspec.json.encode(request) + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise await self._died() from None

    async def receive(self) -> Answer:
        """Return the next answer.

        Raises:
            WorkerDied: the process has ended.
        """
        assert self._process.stdout is not None  # noqa: S101 (likewise)
        looked = 0
        while (end := self._held.find(b"\n", looked)) < 0:
            looked = len(self._held)
            try:
                self._held += await self._process.stdout.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                raise await self._died() from None
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return self._decoder.decode(line)

    async def _died(self) -> WorkerDied:
        with anyio.CancelScope(shield=True):
            code = await self._process.wait()
        why = f"by signal {-code}" if code < 0 else f"with {code}"
        return WorkerDied(f"the worker process that did this has ended {why}; perhaps it needed too much memory")

    async def kill(self) -> None:
        """End the process at once, and wait until it is gone."""
        with anyio.CancelScope(shield=True):
            if self._process.returncode is None:
                self._process.kill()
            await self._process.aclose()

"""Serialises results in order and hands them to the sinks."""

from typing import Protocol

from peerwatch.actors.mailbox import Receive
from peerwatch.actors.messages import Flagged, OutputMessage
from peerwatch.actors.snapshot import Snapshot
from peerwatch.network.rejects import encode_reject


class Sink(Protocol):
    """Where bytes go."""

    async def write(self, data: bytes) -> None:
        """Append.

        Raises:
            SinkError: it could not be written.
        """

    async def sync(self) -> int:
        """Make everything written so far survive a power failure; returns the file's length in bytes.

        Raises:
            SinkError: it could not be done.
        """


class OutputActor:
    """Writes one batch's results in one piece."""

    def __init__(
        self, inbox: Receive[OutputMessage], flagged: Sink, rejects: Sink, *, written: int = 0, through: int = 0
    ) -> None:
        self._inbox = inbox
        self._flagged = flagged
        self._rejects = rejects
        self.written = written
        """Flagged purchases handed to the sink so far."""
        self.through = through
        """All events up to this sequence number are judged, and what they gave is written."""

    async def run(self) -> None:
        """Write until the mailbox ends."""
        with self._inbox:
            async for results in self._inbox:
                if isinstance(results, Snapshot):
                    lengths = [await sink.sync() for sink in (self._flagged, self._rejects)]
                    results.put({}, flagged_bytes=lengths[0], rejects_bytes=lengths[1], flagged=self.written)
                    continue
                if results.flagged:
                    await self._flagged.write(b"".join(map(flagged_line, results.flagged)))
                    self.written += len(results.flagged)
                if results.rejected:
                    await self._rejects.write(b"".join(map(encode_reject, results.rejected)))
                self.through = results.through


def flagged_line(flagged: Flagged) -> bytes:
    """The line's own text, byte for byte, with `mean` and `sd` before its closing brace."""
    text = flagged.line.removesuffix(b"\r")
    brace = text.rindex(b"}")
    fields = f', "mean": "{flagged.statistics.mean()}", "sd": "{flagged.statistics.sd()}"'
    return text[:brace] + fields.encode() + text[brace:] + b"\n"

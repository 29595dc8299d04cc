"""Serialises results in order and hands them to the sinks."""

from typing import Protocol

from peerwatch.actors.mailbox import Receive
from peerwatch.actors.messages import Flagged, Results
from peerwatch.network.rejects import encode_reject


class Sink(Protocol):
    """Where bytes go."""

    async def write(self, data: bytes) -> None:
        """Append.

        Raises:
            SinkError: it could not be written.
        """


class OutputActor:
    """Writes one batch's results in one piece."""

    def __init__(self, inbox: Receive[Results], flagged: Sink, rejects: Sink) -> None:
        self._inbox = inbox
        self._flagged = flagged
        self._rejects = rejects
        self.written = 0
        """Flagged purchases handed to the sink so far."""
        self.through = 0
        """All events up to this sequence number are judged, and what they gave is written."""

    async def run(self) -> None:
        """Write until the mailbox ends."""
        async with self._inbox:
            async for results in self._inbox:
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

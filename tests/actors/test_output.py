"""The output actor's contract: whole lines, in order, to the right sink."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support import MemorySink, outlets

from peerwatch.actors.mailbox import Mailbox
from peerwatch.actors.messages import Flagged, OutputMessage, Results
from peerwatch.actors.output import Outlet, OutputActor, flagged_line
from peerwatch.connectors.records import REJECT, Record, Rejection
from peerwatch.connectors.server import ServerStatus
from peerwatch.errors import SinkError
from peerwatch.network.rejects import RejectedLine, decode_reject
from peerwatch.network.statistics import Statistics

STATISTICS = Statistics.of([29_100_000, 29_100_000])


@pytest.mark.parametrize(
    ("line", "written"),
    [
        (b'{"id": "2"}', b'{"id": "2", "mean": "29.10", "sd": "0.00"}\n'),
        (b'  {"id": "2" } \t\r', b'  {"id": "2" , "mean": "29.10", "sd": "0.00"} \t\n'),
        (b'{"id": "}", "n": {"a": {}}}', b'{"id": "}", "n": {"a": {}}, "mean": "29.10", "sd": "0.00"}\n'),
    ],
)
def test_a_flagged_line_keeps_its_own_text(line: bytes, written: bytes) -> None:
    """The two fields stand before the object's closing brace; nothing else changes but the line end."""
    assert flagged_line(line, "29.10", "0.00") == written


async def run_actor(results: list[Results], flagged: Any, rejects: Any) -> OutputActor:
    """Run the actor over these results."""
    inbox = Mailbox[OutputMessage]("output", 100)
    with inbox.sender as coordinator:
        for message in results:
            await coordinator.send(message)
    actor = OutputActor(inbox.receiver, outlets(flagged, rejects))
    await actor.run()
    return actor


async def test_results_are_written_in_order() -> None:
    """Flagged purchases and rejects go to their own sinks."""
    flagged, rejects = MemorySink(), MemorySink()
    bad = [RejectedLine("log", i, i, "why", b"\xff") for i in range(2)]
    lines = [Flagged(seq, seq, f'{{"id": {seq}}}'.encode(), STATISTICS) for seq in (3, 5, 8)]
    actor = await run_actor(
        [
            Results(np.array([3, 5]), lines[:2], [], 5),
            Results(np.zeros(0, np.int64), [], bad, 7),
            Results(np.array([8, 9]), lines[2:], [], 9),
        ],
        flagged,
        rejects,
    )
    assert flagged.data == b"".join(flagged_line(one.text, "29.10", "0.00") for one in lines)
    assert [decode_reject(line) for line in rejects.data.splitlines()] == bad
    assert (actor.written, actor.through) == (3, 9)


async def test_a_failing_sink_fails_the_actor() -> None:
    """What cannot be written is an error, never lost in silence."""

    class Full(MemorySink):
        async def write(self, records: Sequence[Record]) -> None:
            raise SinkError(f"cannot write out: No space left on device for {len(records)} records")

    with pytest.raises(SinkError, match="No space left"):
        await run_actor([Results(np.array([1]), [Flagged(1, 1, b"{}", STATISTICS)], [], 1)], Full(), MemorySink())


async def test_an_outlet_counts_what_its_sink_took() -> None:
    """Records, writes with their durations, and failures; a server's own figures where there is one."""

    class Full(MemorySink):
        full = False

        async def write(self, records: Sequence[Record]) -> None:
            if self.full:
                raise SinkError("no space left")
            await super().write(records)

    class Server(Full):
        is_waiting = False

        def server(self) -> ServerStatus:
            return ServerStatus("server", None, records=7, retries=4)

    rejections: list[Record] = [Rejection(n, RejectedLine("log", n, n, "why", b"")) for n in range(3)]
    for sink, sent, errors, retries in ((Full(), 6, 1, 0), (Server(), 7, 5, 4)):
        outlet = Outlet("rejects", sink, frozenset({REJECT}))
        await outlet.write(rejections)
        await outlet.write(rejections)
        sink.full = True
        with pytest.raises(SinkError):
            await outlet.write(rejections)
        found = outlet.status()
        assert (found.name, found.sent, found.errors, found.retries) == ("rejects", sent, errors, retries)
        assert sum(found.writes.counts) == 2
        assert found.writes.seconds > 0

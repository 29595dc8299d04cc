"""The coordinator's contract: ask every shard, judge what they reply, keep the order."""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import anyio
import numpy as np
from support import SilentLog, purchase

from peerwatch.actors.coordinator import Coordinator, Judges
from peerwatch.actors.judges import LiveJudge
from peerwatch.actors.mailbox import CAPACITY, Mailbox
from peerwatch.actors.messages import (
    CoordinatorMessage,
    OutputMessage,
    Results,
    ShardMessage,
    WindowQueries,
    WindowReply,
    WindowRequest,
)
from peerwatch.amounts import Amounts
from peerwatch.judging.judge import Mask, Reasons
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.network.decoder import Decoder
from peerwatch.network.networks import Networks, Plan
from peerwatch.network.windows import Windows


def queries(amounts: list[str], seq: int) -> WindowQueries:
    """Purchases of user 0 for these amounts; each network is user 1."""
    content = b"".join(purchase(0, amount) for amount in amounts)
    events = Decoder().decode(content, 1).events
    count = len(amounts)
    networks = Networks(
        np.arange(count + 1), np.ones(count, np.int32), np.full(count, Plan.PARTITION, np.int8),
        np.ones(count, np.int64), np.full((count, 4), -1), Windows.empty(count),
    )  # fmt: skip
    return WindowQueries(seq + np.arange(count), events, networks, content, "log", [], seq + count - 1, next=True)


def windows(*amounts_and_request: Any) -> Windows:
    """The same window for each decision asked for: these amounts, bought in this order."""
    *amounts, request = amounts_and_request
    n, q = len(amounts), len(request.seq)
    return Windows(
        np.arange(q + 1) * n,
        np.tile(np.arange(1, n + 1), q),
        np.tile(np.arange(n), q),
        Amounts.of(amounts * q),
    )


class Recorder(SilentLog):
    """Wants decisions with even sequence numbers."""

    def __init__(self) -> None:
        self.written: list[tuple[int, bool]] = []

    def wanted(self, queries: WindowQueries) -> Mask:
        """Even ones."""
        return np.equal(queries.seq % 2, 0)

    def write(self, queries: WindowQueries, decisions: Sequence[Reasons]) -> None:
        """Remember."""
        self.written += [(int(queries.seq[d.place]), d.flagged) for d in decisions]


async def coordinate(asked: list[WindowQueries], shards: list[Any], log: Any = None) -> list[Results]:
    """Run the coordinator against shards that are functions from a request to windows; every other one answers late.

    Those answer nothing before everything has been asked, and the last request first.
    """
    inbox, outbox = Mailbox[CoordinatorMessage]("coordinator", 100), Mailbox[OutputMessage]("output", 100)
    boxes = [Mailbox[ShardMessage]("shard", 100) for _ in shards]
    replies = Mailbox[WindowReply]("replies", 1)
    replying = [replies.sender, *(replies.sender.clone() for _ in shards[1:])]

    async def serve(number: int) -> None:
        late: list[WindowReply] = []
        with boxes[number].receiver as requests, replying[number] as sender:
            async for request in requests:
                assert isinstance(request, WindowRequest)
                late.append(WindowReply(request.id, number, shards[number](request)))
                if number % 2 == 0:
                    await sender.send(late.pop())
            for reply in reversed(late):
                await sender.send(reply)

    with inbox.sender as graph:
        for message in asked:
            await graph.send(message)
    coordinator = Coordinator(
        Judges(LiveJudge(SigmaJudge(Sigma(Fraction(3))))),
        2,
        log or SilentLog(),
        [inbox.receiver],
        [box.sender for box in boxes],
        replies.receiver,
        outbox.sender,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(coordinator.run)
        for number in range(len(shards)):
            tasks.start_soon(serve, number)
    with outbox.receiver as results:
        return [message async for message in results if isinstance(message, Results)]


async def test_verdicts_come_from_the_merged_windows_in_order() -> None:
    """With T = 2 the two latest of both shards' purchases decide; results keep the order of the questions."""
    older = partial(windows, 9, 9)
    newer = partial(windows, 0, 0, 50_000_000, 50_000_000)
    found = await coordinate([queries(["1", "60"], 1), queries(["70"], 3)], [older, newer])
    assert [[flagged.text + b"\n" for flagged in results.flagged] for results in found] == [
        [purchase(0, "60")], [purchase(0, "70")],
    ]  # fmt: skip
    assert found[0].flagged[0].statistics.mean() == "50.00"


async def test_wanted_decisions_are_logged_with_their_verdicts() -> None:
    """The log gets what it wants, flagged or not, and nothing else."""
    log = Recorder()
    found = await coordinate([queries(["1", "2", "9", "9"], 1)], [partial(windows, 5_000_000, 5_000_000)], log)
    assert log.written == [(2, False), (4, True)]
    assert len(found[0].flagged) == 2


async def test_amounts_of_any_size_are_judged_by_what_the_shards_reply() -> None:
    """What is too large for a column comes with the window, from whichever shard."""
    older, newer = partial(windows, 10**39, 7), partial(windows, 0, 0, 10**40, 10**41)
    (found,) = await coordinate([queries(["5", "1e36"], 1)], [older, newer])
    assert [flagged.statistics.S for flagged in found.flagged] == [10**40 + 10**41]


async def test_replies_are_taken_while_the_output_waits() -> None:
    """With an output that takes nothing, no shard is kept from answering, and asking stops as well."""
    inbox, outbox = Mailbox[CoordinatorMessage]("coordinator", 100), Mailbox[OutputMessage]("output", 1)
    shard, replies = Mailbox[ShardMessage]("shard", 100), Mailbox[WindowReply]("replies", 1)
    answered = 0

    async def serve() -> None:
        nonlocal answered
        with shard.receiver as requests, replies.sender as sender:
            async for request in requests:
                assert isinstance(request, WindowRequest)
                await sender.send(WindowReply(request.id, 0, windows(7, request)))
                answered += 1

    with inbox.sender as graph:
        for seq in range(1, 51):
            await graph.send(queries(["1"], seq))
    judges = Judges(LiveJudge(SigmaJudge(Sigma(Fraction(3)))))
    coordinator = Coordinator(
        judges, 2, SilentLog(), [inbox.receiver], [shard.sender], replies.receiver, outbox.sender
    )  # fmt: skip
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(coordinator.run)
        tasks.start_soon(serve)
        await anyio.wait_all_tasks_blocked()
        assert shard.sender.depth().now == replies.sender.depth().now == 0
        assert CAPACITY < answered < 2 * CAPACITY + 1
        with outbox.receiver as results:
            assert [message.through async for message in results if isinstance(message, Results)] == [*range(1, 51)]
    assert answered == 50

"""The dispatcher's contract: order, numbers, bounds, rejects."""

from functools import partial
from typing import Any

import anyio
import numpy as np
from support import MemoryLog, befriend, purchase

from peerwatch.actors.dispatcher import Dispatcher, Recovery
from peerwatch.actors.mailbox import Mailbox
from peerwatch.actors.messages import Batch, GraphMessage, PurchaseBatch, ShardMessage
from peerwatch.judging.state import Counts
from peerwatch.network.decoder import Decoder
from peerwatch.network.events import Kind


async def dispatched(
    *logs: MemoryLog, shards: int = 2, batch_cap: int = 100, strict: bool = False
) -> tuple[Dispatcher, list[Batch], list[list[PurchaseBatch]]]:
    """Everything the dispatcher sends for these logs."""
    graph, boxes = (
        Mailbox[GraphMessage]("graph", 1000),
        [Mailbox[ShardMessage]("shard", 1000) for _ in range(shards)],
    )
    dispatcher = Dispatcher(Decoder(), [graph.sender], [box.sender for box in boxes], lambda: batch_cap, strict=strict)
    await dispatcher.run(logs)
    received = []
    with graph.receiver as messages:
        batches = [message async for message in messages if isinstance(message, Batch)]
    for box in boxes:
        with box.receiver as messages:  # ends only if the dispatcher has closed
            received.append([message async for message in messages if isinstance(message, PurchaseBatch)])
    return dispatcher, batches, received


async def test_events_are_numbered_from_one_across_logs_and_batches() -> None:
    """Sequence numbers count events alone, through both logs, whatever the batch cap."""
    batch = MemoryLog(purchase(1, "1") + b"\nbad\n" + befriend(1, 2), judged=False, name="batch")
    stream = MemoryLog(purchase(2, "2") + purchase(3, "3"), b"\r\n" + purchase(1, "4"))
    _, batches, _ = await dispatched(batch, stream, batch_cap=2)
    assert [(b.seq, len(b.events), b.judged, b.file) for b in batches] == [
        (1, 2, False, "batch"), (3, 2, True, "stream"), (5, 1, True, "stream"),
    ]  # fmt: skip
    assert [b.events.line.tolist() for b in batches] == [[1, 4], [1, 2], [4]]


async def test_each_shard_gets_its_users_purchases_and_every_watermark() -> None:
    """User u's purchases go to shard u % S; all shards learn how far the events have come."""
    users = [5, 6, 7, 5, 8]
    log = MemoryLog(b"".join(purchase(user, str(i)) for i, user in enumerate(users)) + befriend(5, 6))
    _, (batch,), shards = await dispatched(log)
    for number, (purchases,) in enumerate(shards):
        assert purchases.through == 6
        assert set(purchases.user % 2) <= {number}
        assert (purchases.amount.held == (purchases.seq - 1) * 10**6).all()
    taken = np.sort(np.concatenate([purchases.seq for (purchases,) in shards]))
    assert taken.tolist() == [1, 2, 3, 4, 5]
    assert batch.events.kind.tolist() == [Kind.PURCHASE] * 5 + [Kind.BEFRIEND]


async def test_a_bad_line_goes_along_with_its_place() -> None:
    """Offsets count from the file's start, over blocks."""
    first, second = purchase(1, "1") + b"\xff\xfe\n", b"\n" + purchase(1, "-1") + purchase(1, "1")
    dispatcher, batches, _ = await dispatched(MemoryLog(first, second))
    rejected = [bad for batch in batches for bad in batch.rejected]
    assert [(bad.file, bad.line, bad.offset, bad.raw) for bad in rejected] == [
        ("stream", 2, len(first) - 3, b"\xff\xfe"), ("stream", 4, len(first) + 1, purchase(1, "-1").rstrip(b"\n")),
    ]  # fmt: skip
    assert sum(len(b.events) for b in batches) == 2
    assert dispatcher.statistics() == (len(first + second), 2, 2, 2, 1)


async def test_strict_stops_at_the_first_bad_line_and_keeps_what_came_before() -> None:
    """Events before the bad line are dealt out, none behind it, in later logs neither."""
    log = MemoryLog(purchase(1, "1") + purchase(2, "2") + b"bad\n" + purchase(3, "3") + b"worse\n", purchase(4, "4"))
    dispatcher, batches, _ = await dispatched(log, MemoryLog(purchase(5, "5")), strict=True)
    assert [len(b.events) for b in batches] == [2]
    assert [bad.line for batch in batches for bad in batch.rejected] == [3]
    assert str(dispatcher.stopped_by) == "stream:3: not valid JSON: invalid character (byte 0)"


async def said(*logs: MemoryLog, recovery: Recovery | None = None, **options: Any) -> tuple[list[str], list[str]]:
    """What the dispatcher warns of, and what it complains of."""
    warnings, complaints = list[str](), list[str]()
    graph, shard = Mailbox[GraphMessage]("graph", 1000), Mailbox[ShardMessage]("shard", 1000)
    told = {"warn": warnings.append, "complain": complaints.append, "recovery": recovery}
    await Dispatcher(
        Decoder(), [graph.sender], [shard.sender], lambda: 100, **({"strict": False} | told | options)
    ).run(logs)
    for box in (graph, shard):
        box.close()
    return warnings, complaints


class Holes(MemoryLog):
    """A log of which each block comes behind a hole of 5000 bytes."""

    async def blocks(self) -> Any:
        """The blocks."""
        async for block in super().blocks():
            yield block._replace(hole=5000)


async def test_a_hole_is_told_once() -> None:
    """Wherever it was skipped, in whichever log, in whichever attempt; its bytes count as read."""
    event, text = purchase(1, "1"), "a truncation has left {} before the line; such holes are skipped"
    inside = MemoryLog(event + b"\0" * 7 + event + b"\0" * 9 + event, b"\0" + event)
    assert await said(inside) == ([f"stream:2: {text.format('7 NUL bytes')}"], [])
    assert await said(MemoryLog(b"\0" + event)) == ([f"stream:1: {text.format('1 NUL byte')}"], [])
    recovery = Recovery()
    for expected in ([f"stream:1: {text.format('5,000 NUL bytes')}"], []):
        assert await said(Holes(event, event), inside, recovery=recovery) == (expected, [])
    dispatcher, _, _ = await dispatched(Holes(event, event))
    assert dispatcher.statistics().bytes == 2 * (5000 + len(event))
    assert await said(MemoryLog(b"\0junk\n" + b"\0\0\0junk\n" + event)) == ([], [])  # as in UTF-16 and UTF-32
    assert (await said(MemoryLog(b"\0" * 4 + b"junk\n" + event)))[0] != []


async def test_a_log_without_events_is_complained_of_once() -> None:
    """Each log by itself, when enough of it has come or at its end; not one of which only the rest is read."""
    junk = MemoryLog(*[b"[1]\n"] * 150, name="junk")
    text = "of the {} lines read from junk is an event; the first bad line: not a JSON object"
    assert (await said(junk))[1] == [f"none {text.format(100)}"]
    assert (await said(MemoryLog(*[b"[1]\n"] * 30, name="junk", judged=False), MemoryLog(purchase(1, "1"))))[1] == [
        f"none {text.format(30)}"
    ]
    assert (await said(MemoryLog(purchase(1, "1") + b"[1]\n" * 8)))[1] == []
    assert (await said(MemoryLog(purchase(1, "1"), *[b"[1]\n"] * 9, name="junk")))[1] == [f"only 1 {text.format(10)}"]
    recovery = Recovery()
    assert len((await said(junk, recovery=recovery))[1]) == 1
    assert (await said(junk, recovery=recovery))[1] == []
    assert (await said(Rest(*[b"[1]\n"] * 150), done=Counts(events=5, rejected=1)))[1] == []
    assert len((await said(Rest(*[b"[1]\n"] * 150)))[1]) == 1  # behind a header


class Rest(MemoryLog):
    """A log that begins with its tenth line."""

    async def blocks(self) -> Any:
        """The blocks."""
        async for block in super().blocks():
            yield block._replace(line=block.line + 9)


async def test_a_strict_run_says_only_what_a_log_looks_like() -> None:
    """The line it ends with, and why, is said anyway."""
    assert (await said(MemoryLog(b"junk\n"), strict=True))[1] == []
    (complaint,) = (await said(MemoryLog(b"[{}]\n"), strict=True))[1]
    assert "it looks like a JSON array" in complaint


async def test_amounts_of_any_size_travel_with_their_purchases() -> None:
    """However a block is cut into batches, each holds the amounts that were paid."""
    _, batches, _ = await dispatched(
        MemoryLog(purchase(1, "1") + purchase(1, "1e30") + purchase(1, "2e30")), batch_cap=1
    )
    assert [b.events.amount.tolist() for b in batches] == [[10**6], [10**36], [2 * 10**36]]


async def test_events_are_new_behind_the_first_place_at_which_the_log_has_caught_up() -> None:
    """An empty block that only shows that the log is alive is no such place."""

    class Alive(MemoryLog):
        async def blocks(self) -> Any:
            blocks = [block async for block in super().blocks()]
            for block, caught_up in zip(blocks, (False, False, False, True, False, True), strict=True):
                yield block._replace(caught_up=caught_up)

    lines = purchase(1, "1"), b"", purchase(2, "2"), b"", purchase(3, "3"), b""
    _, batches, _ = await dispatched(Alive(*lines))
    assert [(batch.seq, batch.new) for batch in batches] == [(1, False), (2, False), (3, True)]


async def test_a_full_mailbox_holds_the_reading_back() -> None:
    """With nobody receiving, the dispatcher reads no further than its mailboxes hold."""
    taken = 0

    class Endless(MemoryLog):
        async def blocks(self) -> Any:
            nonlocal taken
            async for block in MemoryLog(*[purchase(1, "1")] * 50).blocks():
                taken += 1
                yield block

    graph, shard = Mailbox[GraphMessage]("graph", 2), Mailbox[ShardMessage]("shard", 100)
    dispatcher = Dispatcher(Decoder(), [graph.sender], [shard.sender], lambda: 100, strict=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(dispatcher.run, [Endless()]))
        await anyio.wait_all_tasks_blocked()
        assert taken == 3
        tasks.cancel_scope.cancel()
    for box in (graph, shard):
        box.close()


async def test_stop_ends_a_read_that_waits() -> None:
    """A log that has nothing to say yet does not keep a stopped dispatcher."""

    class Silent(MemoryLog):
        async def blocks(self) -> Any:
            await anyio.sleep_forever()
            yield

    graph, shard = Mailbox[GraphMessage]("graph", 1), Mailbox[ShardMessage]("shard", 1)
    dispatcher = Dispatcher(Decoder(), [graph.sender], [shard.sender], lambda: 100, strict=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dispatcher.run, [Silent()])
        await anyio.wait_all_tasks_blocked()
        dispatcher.stop()
    for box in (graph, shard):
        box.close()


async def test_strict_stops_a_cautious_run_too() -> None:
    """After a failure lines go one by one; a bad one still ends the run there."""
    graph, shard = Mailbox[GraphMessage]("graph", 100), Mailbox[ShardMessage]("shard", 100)
    recovery = Recovery(after=0, until=10**6)
    dispatcher = Dispatcher(Decoder(), [graph.sender], [shard.sender], lambda: 100, strict=True, recovery=recovery)
    await dispatcher.run([MemoryLog(purchase(1, "1") + b"bad\n" + purchase(2, "2"))])
    with graph.receiver as messages, shard.receiver:
        assert sum([len(batch.events) async for batch in messages if isinstance(batch, Batch)]) == 1

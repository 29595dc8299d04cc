"""The graph actor's contract: one or more bounded answers a batch, in order."""

import anyio
import numpy as np
import pytest
from support import befriend, purchase

from peerwatch.actors.graph import GraphActor
from peerwatch.actors.mailbox import Mailbox
from peerwatch.actors.messages import Batch, CoordinatorMessage, GraphCopy, GraphMessage, Share, WindowQueries
from peerwatch.judging import engine
from peerwatch.network.decoder import Decoder
from peerwatch.network.graph import FriendGraph


async def answers(*batches: Batch, D: int = 2, most: int = 100, number: int = 0, count: int = 1) -> list[WindowQueries]:
    """What the actor sends to the coordinator."""
    inbox, outbox = Mailbox[GraphMessage]("graph", 100), Mailbox[CoordinatorMessage]("coordinator", 100)
    copies = [Mailbox[GraphCopy]("graph copy", 1)] if number else []
    with inbox.sender as dispatcher:
        await dispatcher.send(Share())
        for batch in batches:
            await dispatcher.send(batch)
    for copy in copies:
        with copy.sender as first:
            await first.send(GraphCopy(FriendGraph(D, 50).contents()))
    actor = GraphActor(
        FriendGraph(D, 50, costs=(0, 9, 9, 0)), inbox.receiver, outbox.sender, most, number, count,
        copy=copies[0].receiver if copies else None,
    )  # fmt: skip
    await actor.run()
    with outbox.receiver as answered:
        return [message async for message in answered if isinstance(message, WindowQueries)]


def batch_of(content: bytes, seq: int = 1, *, judged: bool = True) -> Batch:
    """A batch of these lines, decoded anew: users count from 0 in order of appearance."""
    decoder = Decoder()
    return Batch(decoder.decode(content, 1).events, seq, content, "log", judged, len(decoder.interner), [])


LOG = (
    befriend(0, 1) + befriend(1, 2) + purchase(0, "1") + befriend(2, 3) + purchase(0, "2") + purchase(2, "3")
    + befriend(0, 1, "unfriend") + purchase(0, "4") + purchase(1, "5")
)  # fmt: skip
NETWORKS = [[1, 2], [1, 2], [0, 1, 3], [], [2, 3]]


@pytest.mark.parametrize(("most", "members"), [(100, 1 << 20), (1, 1 << 20), (100, 2), (2, 3)])
async def test_each_purchase_gets_its_network_as_of_its_moment(
    most: int, members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the answers, together they hold every purchase once, in order, with its network."""
    monkeypatch.setattr(engine, "MOST_PLACES", members)
    found = await answers(batch_of(LOG, seq=11), most=most)
    networks = [
        sorted(part.networks.members[a:b].tolist())
        for part in found
        for a, b in zip(part.networks.offsets, part.networks.offsets[1:], strict=False)
    ]
    assert networks == NETWORKS
    assert np.concatenate([part.seq for part in found]).tolist() == [13, 15, 16, 18, 19]
    assert [paid for part in found for paid in part.events.amount.tolist()] == [i * 10**6 for i in (1, 2, 3, 4, 5)]
    assert all(len(part.seq) <= most for part in found)
    assert [part.through for part in found] == [10] * (len(found) - 1) + [19]


async def test_a_batch_that_is_not_judged_only_changes_the_graph() -> None:
    """The batch log's purchases are no questions, but the batch is still announced."""
    first, second = await answers(batch_of(LOG, judged=False), batch_of(purchase(0, "1") + purchase(1, "1"), seq=10))
    assert (len(first.seq), first.through) == (0, 9)
    assert second.networks.members[second.networks.offsets[1] :].tolist() == [2, 3]


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_several_answer_in_turn_what_one_would(count: int) -> None:
    """Each graph actor sees every change and answers every count-th batch; together they give the same answers."""
    batches = [batch_of(LOG, seq=1 + 9 * i) for i in range(5)]
    expected = await answers(*batches)
    parts = [await answers(*batches, number=number, count=count) for number in range(count)]
    found = [parts[i % count].pop(0) for i in range(5)]
    assert not any(parts)
    for one, other in zip(found, expected, strict=True):
        assert (one.seq.tolist(), one.next) == (other.seq.tolist(), True)
        assert one.networks.size.tolist() == other.networks.size.tolist()


async def test_an_actor_takes_no_batch_before_its_copy_is_there() -> None:
    """The first one's graph as of its `Share` is copied; what comes behind that changes each one's own."""
    begun = batch_of(befriend(0, 1) + befriend(1, 2) + befriend(2, 3) + befriend(0, 3), judged=False)
    judged = [batch_of(LOG, seq=5), batch_of(LOG, seq=14)]
    _, *expected = await answers(begun, *judged)
    boxes = [Mailbox[GraphMessage](f"graph {number}", 100) for number in range(2)]
    answered = [Mailbox[CoordinatorMessage](f"coordinator {number}", 100) for number in range(2)]
    copy = Mailbox[GraphCopy]("graph copy 1", 1)
    first, second = (FriendGraph(2, 50, costs=(0, 9, 9, 0)) for _ in range(2))
    actors = [
        GraphActor(first, boxes[0].receiver, answered[0].sender, 100, 0, 2, copies=[copy.sender]),
        GraphActor(second, boxes[1].receiver, answered[1].sender, 100, 1, 2, copy=copy.receiver),
    ]
    with boxes[1].sender as dispatcher:
        await dispatcher.send(Share())
        for batch in judged:
            await dispatcher.send(batch)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(actors[1].run)
        await anyio.wait_all_tasks_blocked()
        assert boxes[1].sender.depth().now == len(judged)
        with boxes[0].sender as dispatcher:
            await dispatcher.send(begun)
            await dispatcher.send(Share())
            for batch in judged:
                await dispatcher.send(batch)
        tasks.start_soon(actors[0].run)
    found = []
    for box in answered:
        with box.receiver as messages:
            found.append([message async for message in messages if isinstance(message, WindowQueries)])
    assert [found[0][1].networks.members.tolist(), found[1][0].networks.members.tolist()] == [
        each.networks.members.tolist() for each in expected
    ]
    assert [found[0][1].through, found[1][0].through] == [13, 22]

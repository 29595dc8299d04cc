"""A purchase shard's contract: replies as of the event asked about, never before its watermark."""

import numpy as np
from msgspec.structs import replace

from peerwatch.actors.mailbox import Mailbox
from peerwatch.actors.messages import PurchaseBatch, ShardMessage, WindowReply, WindowRequest
from peerwatch.actors.purchases import PurchaseShard
from peerwatch.amounts import Amounts
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.networks import Networks, Plan
from peerwatch.network.stretches import LINKED
from peerwatch.network.windows import Windows


def bought(first: int, last: int) -> PurchaseBatch:
    """User seq % 3 buys for seq millionths at second seq, for each sequence number from first to last."""
    seq = np.arange(first, last + 1)
    return PurchaseBatch(seq, (seq % 3).astype(np.int32), seq, Amounts(seq), last, 3, 0)


def asked(seq: int, members: list[int]) -> WindowRequest:
    """A request about one event."""
    plan, size = np.array([Plan.PARTITION], np.int8), np.array([len(members)])
    networks = Networks(
        np.array([0, len(members)]),
        np.array(members, np.int32),
        plan,
        size,
        np.zeros((1, 4), np.int64),
        Windows.empty(1),
    )
    return WindowRequest(seq, np.array([seq]), networks, 0)


async def replies(messages: list[ShardMessage], requests: list[WindowRequest], T: int = 2) -> list[list[int]]:
    """The shard's replies to these requests, sent among these messages: the amounts in each window."""
    outbox = Mailbox[WindowReply]("replies", 100)
    inbox = Mailbox[ShardMessage]("shard", 100)
    with inbox.sender as sender:
        for message in messages:
            await sender.send(message)
    await PurchaseShard(0, PurchaseHistory(T), inbox.receiver, outbox.sender).run()
    with outbox.receiver as replied:
        windows = {reply.id: reply.windows async for reply in replied}
    return [sorted(windows[request.id].amount.tolist()) for request in requests]


async def test_a_reply_sees_what_came_before_and_nothing_later() -> None:
    """The shard may already hold later purchases; the reply is as of the event."""
    requests = [asked(seq, [0, 1]) for seq in (5, 9, 2)]
    assert await replies([bought(1, 10), *requests], requests) == [[3, 4], [6, 7], [1]]


async def test_a_request_ahead_of_the_purchases_waits_for_the_watermark() -> None:
    """Requests and purchases may overtake each other, as between machines; the replies are the same."""
    late, later, early = asked(9, [0, 1]), asked(11, [2]), asked(4, [0, 1, 2])
    messages: list[ShardMessage] = [later, late, bought(1, 3), early, bought(4, 8), bought(9, 10)]
    assert await replies(messages, [late, later, early]) == [[6, 7], [5, 8], [2, 3]]


async def test_a_request_exactly_at_the_watermark_is_answered() -> None:
    """For event s everything before s must be there, not s itself."""
    request = asked(4, [0, 1, 2])
    assert await replies([bought(1, 3), request], [request]) == [[2, 3]]


async def test_purchases_nobody_will_ask_about_join_their_histories_at_once() -> None:
    """The batch log is settled as it comes, so that nothing waits for the first question."""
    history, inbox = PurchaseHistory(2), Mailbox[ShardMessage]("shard", 100)
    with inbox.sender as dispatcher:
        await dispatcher.send(replace(bought(1, 9), low=10))
        await dispatcher.send(bought(10, 12))
    replies = Mailbox[WindowReply]("replies")
    await PurchaseShard(0, history, inbox.receiver, replies.sender).run()
    replies.close()
    assert (history.low, history.applied, history.tally[LINKED]) == (10, 12, 9)

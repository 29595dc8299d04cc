"""A buyer's place in the friend graph at the moment of a decision, and whether it is unusual."""

from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final

import msgspec
import numpy as np
from anyio.to_thread import run_sync

from peerwatch.errors import UsageError
from peerwatch.network.communities import communities
from peerwatch.network.decoder import Decoder, Events
from peerwatch.network.egonets import egonets
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph
from peerwatch.replay.replay import Past, open_replay, parts
from peerwatch.settings.model import Layer

UNUSUAL: Final = 0.01
"""The share of users whose egonets are unusual, if their scores are above 0."""
DAY: Final = 86_400_000_000
"""Microseconds in which friends are new."""
SUDDEN: Final = 10
"""The fewest new friends of a sudden hub. They must be half of all its friends, too."""


class Community(msgspec.Struct, frozen=True):
    """The buyer's community: its number (0 is the largest), its users, and the buyer's friends in it."""

    number: int
    users: int
    friends: int


class GraphPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A buyer's place in the friend graph before the purchase.

    `friendships` are those with and among the friends, `expected` as many as a user with so many friends usually has,
    `score` OddBall's, `rank` its place among the scores of all `users`. `new_friends` were made within a day before
    the purchase and are still friends. `unusual` holds the verdicts: `dense ring`, `star`, `sudden hub`.
    """

    users: int
    friends: int
    friendships: int
    expected: float
    score: float
    rank: int
    new_friends: int
    community: Community
    unusual: list[str]


async def graph_position(layers: Sequence[Layer], then: Past) -> GraphPosition:
    """Return the place of the buyer at the target of `then`. Reads the logs from their beginning.

    Raises:
        BadInput: igraph is not installed.
        UsageError: friendships are directed, or a log cannot be read again.
        SourceError: a log could not be read any further.
    """
    if then.state.graph.directed:
        raise UsageError("--graph compares circles of mutual friends; these friendships are directed")
    events, place = then.found.events, then.place
    user, timestamp = int(events.user[place]), int(events.timestamp[place])
    new = await _new_friends(layers, then.name(user), then.seq, timestamp)
    return await run_sync(_position, then.state.graph, user, new)


async def _new_friends(layers: Sequence[Layer], user: bytes, before: int, timestamp: int) -> int:
    """The number of friends made within a day before an event, and not lost since."""
    decoder, new = Decoder([user]), set[int]()
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, lambda _: False, stack)
        async with aclosing(parts(opened.logs, decoder, 0, opened.bookmarks)) as found:
            async for part in found:
                _follow(part.events[: max(before - part.seq, 0)], int(decoder.named[0]), timestamp - DAY, new)
                if part.seq + len(part.events) > before:
                    break
    return len(new)


def _follow(events: Events, user: int, since: int, new: set[int]) -> None:
    """Keep the set of new friends up to date."""
    own = np.flatnonzero((events.kind != Kind.PURCHASE) & ((events.user == user) | (events.friend == user)))
    for place in own.tolist():
        friend = int(events.user[place]) + int(events.friend[place]) - user
        if events.kind[place] == Kind.UNFRIEND:
            new.discard(friend)
        elif events.timestamp[place] >= since:
            new.add(friend)


def _position(graph: FriendGraph, user: int, new_friends: int) -> GraphPosition:
    graph.reserve(user + 1)  # a buyer may be new
    every, member = egonets(graph), communities(graph)
    friends, friendships, score = int(every.friends[user]), int(every.friendships[user]), float(every.score[user])
    expected, unusual = float(every.expected[user]), []
    rank = 1 + int(np.count_nonzero(every.score > score))
    if score > 0 and rank <= UNUSUAL * graph.users:
        unusual.append("dense ring" if friendships > expected else "star")
    if new_friends >= SUDDEN and 2 * new_friends >= friends:
        unusual.append("sudden hub")
    number = int(member[user])
    return GraphPosition(
        users=graph.users,
        friends=friends,
        friendships=friendships,
        expected=round(expected, 1),
        score=round(score, 3),
        rank=rank,
        new_friends=new_friends,
        community=Community(
            number,
            int(np.count_nonzero(member == number)),
            int(np.count_nonzero(member[graph.friends(user)] == number)),
        ),
        unusual=unusual,
    )


def graph_lines(position: GraphPosition) -> list[tuple[str, str]]:
    """A buyer's place as lines of text."""
    own, verdict = position.community, ", ".join(position.unusual).upper() or "nothing unusual"
    shape = f"{position.friendships:,} friendships with and among them, where {position.expected:,} are usual"
    rank = f"score {position.score:.6g}, rank {position.rank:,} of {position.users:,} users"
    return [
        ("graph", f"{verdict}: {position.friends:,} friends, {shape}"),
        ("", f"{rank}; {position.new_friends:,} friends made within a day"),
        ("", f"community {own.number:,}: {own.users:,} users, {own.friends:,} of the friends"),
    ]

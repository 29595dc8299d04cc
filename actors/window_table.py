"""Puts together what the shards reply to a request."""

import anyio
import msgspec

from peerwatch.actors.messages import WindowReply
from peerwatch.network.windows import Windows


class PendingReplies(msgspec.Struct):
    """Replies to one request: the windows by shard, and whether all of them are there."""

    windows: dict[int, Windows]
    complete: anyio.Event


class WindowTable:
    """Holds the replies to each request until all shards have answered and somebody has taken them."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._pending: dict[int, PendingReplies] = {}

    def expect(self, request: int) -> None:
        """Make room for the replies to a request; to be called before it is sent."""
        self._pending[request] = PendingReplies({}, anyio.Event())

    def put(self, reply: WindowReply) -> None:
        """Add one shard's reply; whoever waits goes on once it is the last one."""
        pending = self._pending[reply.id]
        pending.windows[reply.shard] = reply.windows
        if len(pending.windows) == self._shards:
            pending.complete.set()

    async def take(self, request: int) -> list[Windows]:
        """The windows that all shards have replied with, in the order of the shards, once they are there."""
        pending = self._pending[request]
        await pending.complete.wait()
        del self._pending[request]
        return [pending.windows[shard] for shard in range(self._shards)]

"""Collects the shards' replies to each window request."""

import anyio
import msgspec

from peerwatch.actors.mailbox import waiting
from peerwatch.actors.messages import WindowReply
from peerwatch.network.windows import Windows


class PendingReplies(msgspec.Struct):
    """The replies to one request, by shard, and an event that is set when all of them have arrived."""

    windows: dict[int, Windows]
    complete: anyio.Event


class WindowTable:
    """Holds the replies to each request until all shards have answered and they are taken."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._pending: dict[int, PendingReplies] = {}

    def expect(self, request: int) -> None:
        """Prepare for the replies to a request. Call it before sending the request."""
        self._pending[request] = PendingReplies({}, anyio.Event())

    def put(self, reply: WindowReply) -> None:
        """Add a shard's reply, and wake the waiting `take` if it was the last one."""
        pending = self._pending[reply.id]
        pending.windows[reply.shard] = reply.windows
        if len(pending.windows) == self._shards:
            pending.complete.set()

    async def take(self, request: int) -> list[Windows]:
        """Wait for all replies to a request, remove them, and return their windows in the order of the shards."""
        pending = self._pending[request]
        with waiting():
            await pending.complete.wait()
        del self._pending[request]
        return [pending.windows[shard] for shard in range(self._shards)]

"""The purchase shard: owns the purchase histories of its users."""

from typing import Final

from anyio.to_thread import run_sync

from peerwatch.actors.mailbox import Receive, Send, run_kernel
from peerwatch.actors.messages import PurchaseBatch, PurchaseRelease, ShardMessage, WindowReply, WindowRequest
from peerwatch.actors.snapshot import ShardPart, SnapshotPart, SnapshotRequest
from peerwatch.network.history import PurchaseHistory

LINK_WORK: Final = 64
MEMBER_WORK: Final = 8
COPY_WORK: Final = 2
"""Estimated nanoseconds to link a purchase, to visit a member, and to copy a purchase that a scan has found."""


class PurchaseShard:
    """Appends purchases, and answers each window request as of its event, even if the two arrive out of order."""

    def __init__(
        self,
        number: int,
        history: PurchaseHistory,
        inbox: Receive[ShardMessage],
        replies: Send[WindowReply],
        parts: Send[SnapshotPart] | None = None,
    ) -> None:
        self.part = f"shard {number}"
        """The name of its part of a snapshot."""
        self._number = number
        self._history = history
        self._inbox = inbox
        self._replies = replies
        self._parts = parts
        self._parked: list[WindowRequest] = []

    async def run(self) -> None:
        """Serve until the mailbox is closed."""
        with self._inbox, self._replies:
            async for message in self._inbox:
                if isinstance(message, PurchaseBatch):
                    await self._append(message)
                elif isinstance(message, WindowRequest):
                    self._history.reserve(message.users)
                    self._parked.append(message)
                elif isinstance(message, PurchaseRelease):
                    released = message.seq, message.user, message.timestamp, message.amount
                    await run_sync(self._history.insert, *released)
                else:
                    await self._send_part(message)
                await self._answer_parked()

    async def _send_part(self, request: SnapshotRequest) -> None:
        if self._parts is not None:
            columns = await run_kernel(self._history.bought, self._history.columns)
            await self._parts.send(ShardPart(request.id, self.part, self._number, columns))

    async def _append(self, new: PurchaseBatch) -> None:
        history = self._history
        history.reserve(new.users)
        history.append(new.seq, new.user, new.timestamp, new.amount, new.through)
        history.raise_low(new.low)
        if new.low > new.through:  # no request is about these events
            await run_kernel(LINK_WORK * len(new.seq), history.settle)

    async def _answer_parked(self) -> None:
        """Answer requests that need no more purchases: one for event s waits until all events before s are applied."""
        waiting, self._parked = self._parked, []
        for request in waiting:
            if self._history.applied < request.seq[-1] - 1:
                self._parked.append(request)
                continue
            self._history.raise_low(request.low)
            networks = request.networks
            work = (
                MEMBER_WORK * len(networks.members) + LINK_WORK * len(request.seq) + COPY_WORK * len(networks.found.seq)
            )
            windows = await run_kernel(work, self._history.windows, request.seq, request.networks)
            await self._replies.send(WindowReply(request.id, self._number, windows))

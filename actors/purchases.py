"""Owns the purchase histories of the users of one shard."""

from typing import Final

from peerwatch.actors.mailbox import Receive, Send, run_kernel
from peerwatch.actors.messages import PurchaseBatch, ShardMessage, WindowReply, WindowRequest
from peerwatch.actors.snapshot import ShardPart, SnapshotPart, SnapshotRequest
from peerwatch.network.history import PurchaseHistory

LINK_WORK: Final = 64
MEMBER_WORK: Final = 8
COPY_WORK: Final = 2
"""Nanoseconds it takes to link a purchase, to look at a member, and to take over a purchase that a scan has found."""


class PurchaseShard:
    """Appends purchases and answers window requests as of their event, in whatever order the two arrive."""

    def __init__(
        self,
        number: int,
        history: PurchaseHistory,
        inbox: Receive[ShardMessage],
        replies: Send[WindowReply],
        parts: Send[SnapshotPart] | None = None,
    ) -> None:
        self.part = f"shard {number}"
        """What its part of a snapshot is called."""
        self._number = number
        self._history = history
        self._inbox = inbox
        self._replies = replies
        self._parts = parts
        self._parked: list[WindowRequest] = []

    async def run(self) -> None:
        """Serve until the mailbox ends."""
        with self._inbox, self._replies:
            async for message in self._inbox:
                if isinstance(message, PurchaseBatch):
                    await self._append(message)
                elif isinstance(message, WindowRequest):
                    self._parked.append(message)
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
        if new.low > new.through:  # nobody will ask about these events
            await run_kernel(LINK_WORK * len(new.seq), history.settle)

    async def _answer_parked(self) -> None:
        """Answer the requests whose every purchase is there: a request for event s waits for the watermark s - 1."""
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

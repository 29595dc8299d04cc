"""Owns the purchase histories of the users of one shard."""

from typing import Final

from peerwatch.actors.mailbox import Receive, run_kernel
from peerwatch.actors.messages import Purchases, ShardMessage, WindowRequest
from peerwatch.network.history import PurchaseHistory

COLUMNS: Final = ("seq", "user", "timestamp", "amount")
"""The columns of a history, as a snapshot names them, each followed by the shard's number."""


class PurchaseShard:
    """Appends purchases and answers window requests as of their event, in whatever order the two arrive."""

    def __init__(self, number: int, history: PurchaseHistory, inbox: Receive[ShardMessage]) -> None:
        self._names = [f"{name}{number}" for name in COLUMNS]
        self._history = history
        self._inbox = inbox
        self._parked: list[WindowRequest] = []

    async def run(self) -> None:
        """Serve until the mailbox ends."""
        with self._inbox:
            async for message in self._inbox:
                if isinstance(message, Purchases):
                    await self._append(message)
                elif isinstance(message, WindowRequest):
                    self._parked.append(message)
                else:
                    message.put(dict(zip(self._names, self._history.columns(), strict=True)))
                await self._answer_parked()

    async def _append(self, new: Purchases) -> None:
        self._history.reserve(new.users)
        await run_kernel(
            8 * len(new.seq), self._history.append, new.seq, new.user, new.timestamp, new.amount, new.through
        )

    async def _answer_parked(self) -> None:
        """Answer the requests whose every purchase is there: a request for event s waits for the watermark s - 1."""
        waiting, self._parked = self._parked, []
        for request in waiting:
            if self._history.applied < request.seq[-1] - 1:
                self._parked.append(request)
                continue
            work = 16 * len(request.networks.members) + self._history.rows - self._history.linked
            windows = await run_kernel(work, self._history.windows, request.seq, *request.networks)
            request.reply.put(windows)

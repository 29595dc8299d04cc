"""A snapshot of all actors at one moment of the log."""

from typing import Any

import anyio
from numpy.typing import NDArray

from peerwatch.judging.state import Arrays


class Snapshot:
    """Travels behind the last event that belongs to it; each actor it passes puts its own part in.

    As it keeps its place in every mailbox, the parts belong together and nothing has to stop for it: the aligned
    barrier of Carbone et al., "Lightweight Asynchronous Snapshots for Distributed Dataflows" (2015).
    """

    def __init__(self, parts: int) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.facts: dict[str, Any] = {}
        self._missing = parts
        self._complete = anyio.Event()

    def put(self, arrays: Arrays, **facts: Any) -> None:
        """Add one actor's part. The arrays are the snapshot's own: nobody changes them any more."""
        self.arrays.update(arrays)
        self.facts.update(facts)
        self._missing -= 1
        if self._missing == 0:
            self._complete.set()

    async def wait_complete(self) -> None:
        """Until every actor has put its part in."""
        await self._complete.wait()

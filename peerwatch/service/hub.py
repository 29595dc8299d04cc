"""The event stream's hub: what was published last, and a bounded buffer for each client."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio

RECENT: Final = 10_000
"""Numbered items that are kept for clients that come back."""
BUFFERED: Final = 1000
"""Items that wait for one client; of more the oldest are dropped, and the client is told how many."""


class Item:
    """One server-sent event, as it is sent, and its number, 0 for one that has none."""

    __slots__ = ("encoded", "event", "id")

    def __init__(self, event: str, data: bytes, number: int = 0) -> None:
        """`data` is JSON without line ends."""
        head = b"id: %d\n" % number if number else b""
        self.encoded = head + b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"
        self.event = event
        self.id = number


class Client:
    """What waits to be sent to one client."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._changed = anyio.Event()
        self._missed = 0
        self._closed = False

    def put(self, item: Item) -> None:
        """Add an item; the oldest is dropped if there are too many."""
        if len(self._items) >= BUFFERED:
            self._items.popleft()
            self._missed += 1
        self._items.append(item)
        self._changed.set()

    def close(self) -> None:
        """Have nothing more be sent."""
        self._closed = True
        self._changed.set()

    async def take(self) -> list[Item] | None:
        """All that waits, once something does; None after the end."""
        await self._changed.wait()
        if self._closed:
            return None
        self._changed = anyio.Event()
        items = [Item("dropped", b'{"missed":%d}' % self._missed)] * bool(self._missed) + list(self._items)
        self._items.clear()
        self._missed = 0
        return items


class Hub:
    """Hands what is published to all clients."""

    def __init__(self) -> None:
        self.recent: deque[Item] = deque(maxlen=RECENT)
        """The newest numbered items."""
        self._clients: set[Client] = set()
        self._last: dict[str, Item] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._clients)

    def publish(self, item: Item) -> None:
        """Send an item to all clients. One with a number that is not above the last one's has been sent before."""
        if item.id:
            if self.recent and item.id <= self.recent[-1].id:
                return
            self.recent.append(item)
        else:
            self._last[item.event] = item
        for client in self._clients:
            client.put(item)

    def reaches_back_to(self, number: int) -> bool:
        """Whether `recent` has every item behind a number, as far as it has been published by this process."""
        return len(self.recent) < RECENT or self.recent[0].id <= number

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client that gets what is published from now on, and first the last of each kind without a number."""
        client = Client()
        for item in self._last.values():
            client.put(item)
        if self._closed:
            client.close()
        self._clients.add(client)
        try:
            yield client
        finally:
            self._clients.discard(client)

    def close(self) -> None:
        """End the streams of all clients."""
        self._closed = True
        for client in self._clients:
            client.close()

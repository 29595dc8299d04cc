"""Redis, as the tests see it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import redis
from anyio.to_thread import run_sync
from servers import Server
from systems import SinkSystem, SourceSystem


class RedisClient:
    """What a user of Redis' own client does."""

    server: Server | None

    def client(self) -> "redis.Redis":
        """The client."""
        assert self.server is not None
        return redis.Redis.from_url(self.server.url)

    async def ask(self, *command: Any) -> Any:
        """The answer to a command."""
        return await run_sync(self._ask, command)

    def _ask(self, command: Sequence[Any]) -> Any:
        with self.client() as client:
            return client.execute_command(*command)


class RedisSystem(RedisClient, SinkSystem):
    """A key of its own in Redis."""

    @property
    def url(self) -> str:
        """The key."""
        assert self.server is not None
        return f"{self.server.url}/{self.place}"

    def messages(self) -> list[dict[str, Any]]:
        """All that a reader of the stream gets."""
        entries = self._ask(("XRANGE", self.place, "-", "+"))
        return [msgspec.json.decode(fields[b"record"]) for _, fields in entries]

    def flagged(self) -> bytes:
        """The lines of the run's entries, in the order of the stream."""
        return "".join(f"{message['line']}\n" for message in self.messages() if message["run"] == self.run).encode()

    def wipe(self) -> None:
        """Delete the stream."""
        self._ask(("DEL", self.place))


class RedisSource(RedisClient, SourceSystem):
    """A stream of its own in Redis."""

    @property
    def url(self) -> str:
        """The key."""
        assert self.server is not None
        return f"{self.server.url}/{self.place}"

    def make(self) -> None:
        """A stream without entries, as a consumer group makes it."""
        self._ask(("XGROUP", "CREATE", self.place, "readers", "$", "MKSTREAM"))

    def put(self, lines: Sequence[bytes]) -> None:
        """Each line is an entry of one field."""
        with self.client() as client, client.pipeline(transaction=False) as pipeline:
            for line in lines:
                pipeline.xadd(self.place, {"event": line})
            pipeline.execute()

    def trim(self, count: int) -> None:
        """Keep all but the first entries."""
        self._ask(("XTRIM", self.place, "MAXLEN", self._ask(("XLEN", self.place)) - count))

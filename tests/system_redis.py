"""Redis, as the tests see it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import redis
from systems import SinkSystem, SourceSystem


class RedisSystem(SinkSystem):
    """A key of its own in Redis."""

    @property
    def url(self) -> str:
        """The key."""
        assert self.server is not None
        return f"{self.server.url}/{self.place}"

    def client(self) -> "redis.Redis":
        """Redis' own client."""
        assert self.server is not None
        return redis.Redis.from_url(self.server.url)

    def messages(self) -> list[dict[str, Any]]:
        """All that a reader of the stream gets."""
        with self.client() as client:
            entries: Any = client.xrange(self.place)
        return [msgspec.json.decode(fields[b"record"]) for _, fields in entries]

    def flagged(self) -> bytes:
        """The lines of the run's entries, in the order of the stream."""
        return "".join(f"{message['line']}\n" for message in self.messages() if message["run"] == self.run).encode()

    def wipe(self) -> None:
        """Delete the stream."""
        with self.client() as client:
            client.delete(self.place)


class RedisSource(SourceSystem):
    """A stream of its own in Redis."""

    @property
    def url(self) -> str:
        """The key."""
        assert self.server is not None
        return f"{self.server.url}/{self.place}"

    def client(self) -> "redis.Redis":
        """Redis' own client."""
        assert self.server is not None
        return redis.Redis.from_url(self.server.url)

    def make(self) -> None:
        """A stream without entries, as a consumer group makes it."""
        with self.client() as client:
            client.xgroup_create(self.place, "readers", mkstream=True)

    def put(self, lines: Sequence[bytes]) -> None:
        """Each line is an entry of one field."""
        with self.client() as client, client.pipeline(transaction=False) as pipeline:
            for line in lines:
                pipeline.xadd(self.place, {"event": line})
            pipeline.execute()

    def trim(self, count: int) -> None:
        """Keep all but the first entries."""
        with self.client() as client:
            length: Any = client.xlen(self.place)
            client.xtrim(self.place, maxlen=length - count, approximate=False)

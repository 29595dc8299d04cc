"""NATS JetStream, as the tests see it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import nats
from nats.js import JetStreamContext
from servers import Server
from systems import SinkSystem, SourceSystem

Result = TypeVar("Result")


class NatsClient:
    """What a user of NATS' own client does."""

    server: Server | None
    place: str

    def ask(self, action: Callable[[JetStreamContext], Awaitable[Result]]) -> Result:
        """Do something with JetStream; not on an event loop."""
        assert self.server is not None
        url = self.server.url

        async def asked() -> Result:
            async with await nats.connect(url) as client:
                return await action(client.jetstream())

        return asyncio.run(asked())

    def contents(self, subject: str) -> list[bytes]:
        """The messages of a subject, in the order of the stream; none if no stream keeps it."""

        async def read(stream: JetStreamContext) -> list[bytes]:
            try:
                name = await stream.find_stream_name_by_subject(subject)
            except nats.js.errors.NotFoundError:
                return []
            state = (await stream.stream_info(name)).state
            found = []
            for place in range(state.first_seq, state.last_seq + 1):
                message = await stream.get_msg(name, seq=place)
                if message.subject == subject:
                    found.append(message.data or b"")
            return found

        return self.ask(read)


class NatsSystem(NatsClient, SinkSystem):
    """A subject of its own in NATS."""

    @property
    def url(self) -> str:
        """The subject."""
        assert self.server is not None
        return f"{self.server.url}/{self.place}"

    def messages(self) -> list[dict[str, Any]]:
        """All that a reader of the subject gets."""
        return [msgspec.json.decode(content) for content in self.contents(self.place)]

    def flagged(self) -> bytes:
        """The lines of the run's messages, in the order of the stream."""
        return "".join(f"{message['line']}\n" for message in self.messages() if message["run"] == self.run).encode()

    def wipe(self) -> None:
        """Purge the stream."""
        self.ask(lambda stream: stream.purge_stream(self.place))


class NatsSource(NatsClient, SourceSystem):
    """A stream of its own in NATS."""

    @property
    def url(self) -> str:
        """The subject."""
        assert self.server is not None
        return f"{self.server.url}/{self.place}.events"

    def make(self) -> None:
        """A stream that keeps the subject."""
        self.ask(lambda stream: stream.add_stream(name=self.place, subjects=[f"{self.place}.events"]))

    def put(self, lines: Sequence[bytes]) -> None:
        """Each line is a message."""

        async def publish(stream: JetStreamContext) -> None:
            for line in lines:
                await stream.publish_async(f"{self.place}.events", line)
            await stream.publish_async_completed()

        self.ask(publish)

    def trim(self, count: int) -> None:
        """Remove the first messages."""

        async def purge(stream: JetStreamContext) -> None:
            first = (await stream.stream_info(self.place)).state.first_seq
            await stream.purge_stream(self.place, seq=first + count)

        self.ask(purge)

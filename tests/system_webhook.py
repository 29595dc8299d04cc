"""A webhook, as the tests of sinks see it."""

import sqlite3
from contextlib import closing
from typing import ClassVar

from receiver import SECRET, Receiver
from systems import SinkSystem


class WebhookSystem(SinkSystem):
    """A path of a receiver; one record a request."""

    has_marks: ClassVar[bool] = False
    options: ClassVar[str] = ""

    @property
    def receiver(self) -> Receiver:
        """The server."""
        assert isinstance(self.server, Receiver)
        return self.server

    @property
    def url(self) -> str:
        """The path."""
        return f"{self.receiver.url}/{self.place}?secret={SECRET}{self.options}"

    def flagged(self) -> bytes:
        """The lines of the run's records, in the order in which they came."""
        return self.receiver.lines(f"/{self.place}", self.run)

    def wipe(self) -> None:
        """Forget all records."""
        with closing(sqlite3.connect(self.receiver.file, isolation_level=None)) as database:
            database.execute("DELETE FROM received")


class BatchedWebhookSystem(WebhookSystem):
    """Several records a request."""

    options: ClassVar[str] = "&batch=3"

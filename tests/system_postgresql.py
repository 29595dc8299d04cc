"""PostgreSQL, as the tests see it: each test has a schema of its own in the server's database."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import asyncpg
from anyio.to_thread import run_sync
from servers import Server
from systems import SinkSystem

from peerwatch.connectors.store import StoreSink


def query(server: Server, statement: str, *values: Any, schema: str = "public") -> list[Any]:
    """The rows that a statement gives to the server's administrator, in a schema."""

    async def asked() -> list[Any]:
        connection = await asyncpg.connect(
            server.url,
            password="none",  # noqa: S106 (nobody is asked for it)
            ssl=False,
            server_settings={"search_path": schema},
        )
        try:
            rows: list[Any] = await connection.fetch(statement, *values)
        finally:
            await connection.close()
        return rows

    return asyncio.run(asked())


class PostgresSystem(SinkSystem):
    """A schema."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.made = False

    @property
    def url(self) -> str:
        """The server's database, and the schema."""
        assert self.server is not None
        return f"{self.server.url}?schema={self.place}"

    async def open(self, stack: AsyncExitStack) -> StoreSink:
        """Open it, in a schema that is made when it is first opened."""
        if not self.made:
            with suppress(OSError):  # a server that is down is what is opened then
                await run_sync(self.query, f"CREATE SCHEMA {self.place}")
                self.made = True
        return await super().open(stack)

    def query(self, statement: str, *values: Any) -> list[Any]:
        """The rows that a statement gives in the schema."""
        assert self.server is not None
        return query(self.server, statement, *values, schema=self.place)

    def flagged(self) -> bytes:
        """The table's rows."""
        rows = self.query("SELECT line FROM peerwatch_flagged WHERE run = $1 ORDER BY seq", self.run)
        return "".join(f"{row['line']}\n" for row in rows).encode()

    def wipe(self) -> None:
        """Delete all rows."""
        self.query("DELETE FROM peerwatch_flagged")
        self.query("DELETE FROM peerwatch_marks")

"""PostgreSQL, as the tests see it: each test has a schema of its own in the server's database."""

import asyncio
from typing import Any

import asyncpg
from servers import Server
from systems import SinkSystem


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

    @property
    def url(self) -> str:
        """The server's database, and the schema."""
        assert self.server is not None
        return f"{self.server.url}?schema={self.place}"

    def make(self) -> None:
        """Make the schema."""
        self.query(f"CREATE SCHEMA {self.place}")

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

"""Tables in a PostgreSQL database: a table or view by its name, or what a query gives."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio

from peerwatch.connectors.postgres_connection import OPTIONS, PostgresClient, quoted
from peerwatch.connectors.table import ROWS, Row
from peerwatch.errors import PeerwatchError, SourceError, Unavailable, Unreachable, UsageError
from peerwatch.urls import ConnectorUrl

SESSION: Final = "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET extra_float_digits = 1"
"""Times are written as lines have them, and floating-point numbers with all their digits."""


class PostgresInputTable:
    """`postgresql://user@host/database?table=NAME` or `?query=SELECT ...`, read in one read-only transaction."""

    def __init__(self, url: ConnectorUrl, timeout: float, give_up: float) -> None:
        """The server has `timeout` seconds for an answer, and `give_up` for the next rows.

        Raises:
            UsageError: the URL names neither a table nor a query, or the library is missing.
        """
        url.check_options(*OPTIONS, "table", "query")
        table, query = url.option("table"), url.option("query")
        if (not table) == (not query):
            raise UsageError(f"{url}: name what to read: a table with ?table=NAME, or a query with ?query=SELECT ...")
        names = ".".join(quoted(name) for name in (table or "").split("."))
        self._query = (query or f"SELECT * FROM {names}").strip().rstrip(";")
        self._client = PostgresClient(url, timeout)
        self._url = url
        self._longest = max(timeout, give_up)
        self._connection: Any = None

    async def open(self, stack: AsyncExitStack) -> list[str]:
        """Connect, and have the server look at the query; returns the names of its columns.

        Raises:
            UsageError: the server does not answer, or refuses.
        """
        try:
            self._connection = await self._client.connect()
            stack.push_async_callback(self._client.close, self._connection)
            await self._connection.execute(SESSION)
            await self._connection.transaction(isolation="repeatable_read", readonly=True).start()
            statement = await self._connection.prepare(f"SELECT * FROM ({self._query}\n) AS rows")
        except self._client.errors as error:
            raise self._usage_error(self._client.meaning(error, "read", UsageError)) from None
        except Unavailable as error:
            raise self._usage_error(error) from None
        return [attribute.name for attribute in statement.get_attributes()]

    async def rows(self, columns: Sequence[str]) -> AsyncGenerator[list[Row], None]:
        """The values in these columns, as the server writes them as text. At the end the connection is closed.

        Raises:
            SourceError: the server does not answer any more, or refuses.
        """
        values = ", ".join(f"{quoted(name)}::text" for name in columns)
        try:
            cursor = await self._connection.cursor(f"SELECT {values} FROM ({self._query}\n) AS rows")
            while found := await cursor.fetch(ROWS, timeout=self._longest):
                yield [tuple(row) for row in found]
        except self._client.errors as error:
            meaning = self._client.meaning(error, "read", SourceError)
            if isinstance(meaning, Unavailable):
                meaning = SourceError(f"cannot read {self._url} any further: {meaning}; run again to begin it anew")
            raise meaning from None
        finally:  # a run may go on for weeks, and the server keeps for a transaction what others delete
            with anyio.CancelScope(shield=True):
                await self._client.close(self._connection)

    def _usage_error(self, error: PeerwatchError) -> PeerwatchError:
        if isinstance(error, Unavailable):
            return Unreachable.server(self._url, error)
        return error

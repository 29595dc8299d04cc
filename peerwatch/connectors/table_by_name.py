"""Which names of the batch log name tables, and the table of each."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from peerwatch.urls import is_url, parsed

if TYPE_CHECKING:
    from peerwatch.connectors.table import InputTable

FILES: Final = (".csv", ".parquet")
DATABASES: Final = ("postgresql", "postgres")


def is_table(name: str) -> bool:
    """Whether a name of the batch log names a table."""
    return parsed(name).scheme in DATABASES if is_url(name) else name.lower().endswith(FILES)


def table_of(name: str, timeout: float, give_up: float, warn: Callable[[str], None]) -> "InputTable":
    """The table of a name for which `is_table` is true; nothing is opened yet.

    A server has `timeout` seconds for an answer, and `give_up` for the next rows.

    Raises:
        UsageError: a library is missing, or the URL lacks something.
    """
    if is_url(name):
        from peerwatch.connectors.postgres_table import PostgresInputTable  # noqa: PLC0415 (as all connectors: only if named)

        url = parsed(name)
        if url.has_literal_password:
            warn(f"{url}: its password is in the URL; keep it in the environment, as ${{NAME}} in its place")
        return PostgresInputTable(url, timeout, give_up)
    from peerwatch.connectors.table_files import CsvInputTable, ParquetInputTable  # noqa: PLC0415

    return CsvInputTable(name) if name.lower().endswith(".csv") else ParquetInputTable(name)

"""Tables in files: CSV and Parquet."""

import csv
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final

from anyio.to_thread import run_sync

from peerwatch.connectors.table import ROWS, BadRow, Row
from peerwatch.errors import SourceError, UsageError
from peerwatch.readable import shown

LONGEST_FIELD: Final = 2**31 - 1
"""Python's own limit, 131,072 characters, is less than a line of a log may have."""


class CsvInputTable:
    """A CSV file (RFC 4180) in UTF-8, whose first line names the columns."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._name = shown(path)
        self._width = 0
        self._columns: list[str] = []
        self._taken: list[str] = []
        """The lines of the row that is being read."""
        self._line = 0

    async def open(self, stack: AsyncExitStack) -> list[str]:
        """Open it and read the names of its columns.

        Raises:
            UsageError: it cannot be read.
        """
        return await run_sync(self._open, stack)

    def _open(self, stack: AsyncExitStack) -> list[str]:
        csv.field_size_limit(LONGEST_FIELD)
        try:
            file = Path(self._path).open(encoding="utf-8-sig", errors="surrogateescape", newline="")  # noqa: SIM115
            self._close = file.close
            stack.callback(self._close)
            self._reader = csv.reader(self._lines(file), strict=True)
            self._columns = next((row for row in self._reader if row), [])
        except OSError as error:
            raise UsageError(f"cannot read the table {self._name}: {error.strerror}") from None
        except csv.Error as error:
            raise UsageError(f"{self._name}:{self._line}: {error}; expected the names of the columns") from None
        return [name.strip() for name in self._columns]

    async def rows(self, columns: Sequence[str]) -> AsyncGenerator[list[Row], None]:
        """The values in these columns. A row with more or fewer fields than there are columns is a bad one.

        Raises:
            SourceError: it cannot be read any further, or a quote is never closed.
        """
        places = [[name.strip() for name in self._columns].index(name) for name in columns]
        every = self._every(places)
        while rows := await run_sync(self._next, every):
            yield rows
        self._close()

    def _next(self, every: Iterator[Row]) -> list[Row]:
        try:
            return [*islice(every, ROWS)]
        except OSError as error:
            raise SourceError(f"cannot read the table {self._name} any further: {error.strerror}") from None

    def _every(self, places: Sequence[int]) -> Iterator[Row]:
        while True:
            self._taken.clear()
            begun = self._line + 1
            try:
                fields = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end" in str(error):
                    raise SourceError(
                        f"{self._name}:{begun}: a quote is not closed up to the end of the file"
                    ) from None
                yield BadRow(["".join(self._taken).rstrip("\r\n")])
                continue
            if len(fields) == len(self._columns):
                yield [fields[place] for place in places]
            elif fields:  # a blank line has none
                yield BadRow(fields)

    def _lines(self, file: Iterator[str]) -> Iterator[str]:
        for line in file:
            self._taken.append(line)
            self._line += 1
            yield line


class ParquetInputTable:
    """A Parquet file. Numbers and times are read exactly, as text."""

    def __init__(self, path: str) -> None:
        """Nothing is opened.

        Raises:
            UsageError: pyarrow is not installed.
        """
        try:
            import pyarrow as pa  # noqa: PLC0415 (large, and only whoever names a Parquet file needs it)
            from pyarrow import compute, parquet  # noqa: PLC0415
        except ImportError:
            raise UsageError("Parquet needs pyarrow; install it: pip install 'peerwatch[parquet]'") from None
        self._arrow, self._compute, self._parquet = pa, compute, parquet
        self._path = path
        self._name = shown(path)
        self._file: Any = None

    async def open(self, stack: AsyncExitStack) -> list[str]:
        """Open it.

        Raises:
            UsageError: it cannot be read.
        """
        return await run_sync(self._open, stack)

    def _open(self, stack: AsyncExitStack) -> list[str]:
        try:
            self._file = stack.enter_context(self._parquet.ParquetFile(self._path))
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else _first_line(error)
            raise UsageError(f"cannot read the table {self._name}: {why}") from None
        except self._arrow.ArrowException as error:
            raise UsageError(f"cannot read the table {self._name}: {_first_line(error)}") from None
        names: list[str] = self._file.schema_arrow.names
        return names

    async def rows(self, columns: Sequence[str]) -> AsyncGenerator[list[Row], None]:
        """The values in these columns.

        Raises:
            SourceError: it cannot be read any further, or a column's values are no texts, numbers or times.
        """
        every = self._file.iter_batches(batch_size=ROWS, columns=list(columns))
        while rows := await run_sync(self._next, every, columns):
            yield rows
        self._file.close()

    def _next(self, every: Iterator[Any], columns: Sequence[str]) -> list[Row]:
        try:
            for batch in every:
                if batch.num_rows:
                    return [*zip(*(self._texts(batch.column(name)) for name in columns), strict=True)]
        except (OSError, self._arrow.ArrowException) as error:
            raise SourceError(f"cannot read the table {self._name} any further: {_first_line(error)}") from None
        return []

    def _texts(self, column: Any) -> list[str | None]:
        """A column as texts that a line may have as values."""
        pa, type_ = self._arrow, column.type
        if pa.types.is_timestamp(type_) and type_.tz is not None:
            column = column.cast(pa.timestamp(type_.unit, "UTC"))
        texts = column.cast(pa.string())
        if pa.types.is_timestamp(type_) and type_.unit == "ns":  # lines have microseconds: drop zeros, and nothing else
            texts = self._compute.replace_substring_regex(texts, r"(\.\d{6})000(Z?)$", r"\1\2")
        found: list[str | None] = texts.to_pylist()
        return found


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

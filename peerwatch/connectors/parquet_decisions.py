"""Every decision as Parquet: one file, or a folder of parts that each end at a checkpoint."""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from anyio.to_thread import run_sync

from peerwatch.connectors.records import DecisionRow, Record
from peerwatch.durable import put_in_place, unlink
from peerwatch.errors import SinkError, UsageError
from peerwatch.readable import shown

ROWS: Final = 1 << 16
"""Decisions that are held until they are written as one row group."""
PART: Final = "part-{:06d}.parquet"


class DecisionsFile:
    """Writes decisions to `path`. With `parts` that is a folder, in which each `sync` completes one file.

    What is not complete is never seen under its name: a run that dies leaves whole files, and the next one that begins
    behind `written` parts removes those that are newer, so that no decision is there twice.
    """

    def __init__(self, path: str, *, parts: bool) -> None:
        """Nothing is touched before `start`.

        Raises:
            UsageError: pyarrow is not installed.
        """
        try:
            import pyarrow as pa  # noqa: PLC0415 (large, and only whoever wants Parquet needs it)
            from pyarrow import parquet  # noqa: PLC0415
        except ImportError:
            raise UsageError("Parquet needs pyarrow; install it: pip install 'peerwatch[parquet]'") from None
        self.name = shown(path)
        self._path = Path(path)
        self._parts = parts
        self._complete = 0
        self._rows: list[DecisionRow] = []
        self._writer: Any = None
        self._arrow, self._parquet = pa, parquet
        whole, real, text = pa.int64(), pa.float64(), pa.string()
        types = [
            whole, text, whole, text, pa.timestamp("us", tz="UTC"), real, pa.bool_(), whole, real, real, whole,
            real, real, whole, text,
        ]  # fmt: skip
        self._schema = pa.schema([*zip(DecisionRow.__struct_fields__, types, strict=True)])

    async def open(self, stack: AsyncExitStack) -> None:
        """Nothing is opened yet; what is not complete when the stack closes is removed.

        Raises:
            UsageError: a folder is needed and the path is a file, or the other way round.
        """
        await run_sync(self._check_path)
        stack.push_async_callback(run_sync, self._discard)

    def _check_path(self) -> None:
        if self._parts and self._path.exists() and not self._path.is_dir():
            raise UsageError(f"{self.name} is a file, and here decisions are written in parts; name a folder")
        if not self._parts and self._path.is_dir():
            raise UsageError(f"{self.name} is a directory; name a file in it")

    async def check_new(self) -> None:
        """See that nothing is there that a run which begins anew would remove.

        Raises:
            UsageError: something is.
        """
        await run_sync(self._check_new)

    def _check_new(self) -> None:
        there = [*self._path.glob("part-*.parquet")] if self._parts else [self._path][: self._path.exists()]
        if there:
            raise UsageError(f"{shown(there[0])} is there already; name another --decisions-file, or add --force")

    async def has_more(self, mark: Any) -> bool:
        """Whether there are newer parts."""
        return self._parts and await run_sync(self._part(mark + 1).exists)

    async def start(self, mark: Any = None, *, force: bool = False) -> None:  # noqa: ARG002
        """Go on behind so many parts, or begin anew.

        Raises:
            UsageError: the folder cannot be made, or parts are missing.
        """
        await run_sync(self._start, mark or 0)

    def _start(self, complete: int) -> None:
        self._discard()
        self._complete = complete
        try:
            if self._parts:
                self._path.mkdir(parents=True, exist_ok=True)
                for path in sorted(self._path.glob("part-*.parquet*")):
                    if path.suffix != ".parquet" or path.name > PART.format(self._complete):
                        unlink(path)
            missing = [number for number in range(1, self._complete + 1) if not self._part(number).exists()]
        except OSError as error:
            raise UsageError(f"cannot write the decisions {self.name}: {error.strerror}") from None
        if missing:
            raise UsageError(f"{shown(self._part(missing[0]))} is gone; bring it back, or begin anew with --reset")

    async def write(self, records: Sequence[Record]) -> None:
        """Take decisions, in order.

        Raises:
            SinkError: they could not be written.
        """
        self._rows += [record for record in records if isinstance(record, DecisionRow)]
        if len(self._rows) >= ROWS:
            await run_sync(self._write_rows)

    async def sync(self) -> int:
        """Complete a part, if there is anything for it; returns how many there are.

        Raises:
            SinkError: it could not be written.
        """
        return await run_sync(self._sync)

    async def look(self) -> None:
        """Parts are looked at when a run begins."""

    async def finish(self) -> None:
        """Complete all.

        Raises:
            SinkError: it could not be written.
        """
        if self._parts:
            await self.sync()
        else:
            await run_sync(self._complete_file, self._path)

    def _sync(self) -> int:
        if self._parts and (self._rows or self._writer is not None):
            self._complete_file(self._part(self._complete + 1))
            self._complete += 1
        return self._complete

    def _discard(self) -> None:
        self._rows.clear()
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
            with suppress(OSError):
                unlink(self._new)
            self._writer = None

    @property
    def _new(self) -> Path:
        """What is being written."""
        path = self._part(self._complete + 1) if self._parts else self._path
        return path.with_name(f"{path.name}.new")

    def _part(self, number: int) -> Path:
        return self._path / PART.format(number)

    def _write_rows(self) -> None:
        with self._failing():
            self._write_group()

    def _write_group(self) -> None:
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(str(self._new), self._schema)
        rows = map(_row, self._rows)
        columns = [[*column] for column in zip(*rows, strict=True)] or [[] for _ in self._schema]
        arrays = [self._arrow.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows.clear()

    def _complete_file(self, path: Path) -> None:
        with self._failing():
            if self._rows or self._writer is None:
                self._write_group()
            new = self._new
            self._writer.close()
            self._writer = None
            put_in_place(new, path)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or str(error).partition("\n")[0]
            raise SinkError(f"cannot write the decisions {self.name}: {why}; fix that and run again") from None


def _row(decision: DecisionRow) -> tuple[Any, ...]:
    """A row of the table: amounts in units, as near as floats come."""
    real = {
        name: None if value is None else float(value)
        for name, value in (("amount", decision.amount), ("mean", decision.mean), ("sd", decision.sd))
    }
    return tuple({**msgspec.structs.asdict(decision), **real}.values())

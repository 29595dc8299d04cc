"""The labels of a run's purchases, as its feedback file has them."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import anyio
import msgspec
from anyio.to_thread import run_sync

from peerwatch.service.decisions import StoredDecision
from peerwatch.storage.feedback import FEEDBACK, FeedbackEntry, append_feedback, read_feedback

LabelName: TypeAlias = Literal["anomaly", "normal"]


class PurchaseLabels:
    """The newest label of each purchase; what others append to the file is read too."""

    def __init__(self, directory: Path, warn: Callable[[str], None], batch: str | None = None) -> None:
        """Read the labels in a state directory. Those that name a line do not refer to the log `batch`."""
        self._directory = directory
        self._batch = batch
        self._warn = warn
        self._turn = anyio.Lock()
        self._offset = 0
        self._by_seq: dict[int, LabelName] = {}
        self._by_line: dict[int, LabelName] = {}

    async def add(self, seq: int, label: LabelName, judged: int) -> None:
        """Append a label; `judged` is the number of the last event that has been judged.

        Raises:
            UsageError: the purchase has not been judged yet.
            SinkError: the file cannot be written.
        """
        await run_sync(append_feedback, self._directory, [FeedbackEntry(seq=seq, label=label)], judged)

    async def put_on(self, decisions: list[StoredDecision]) -> list[StoredDecision]:
        """The decisions with their labels."""
        async with self._turn:
            await run_sync(self._read)
        return [
            msgspec.structs.replace(each, label=label)
            if (label := self._by_seq.get(each.seq) or self._label_of_line(each)) is not None
            else each
            for each in decisions
        ]

    def _label_of_line(self, decision: StoredDecision) -> LabelName | None:
        return self._by_line.get(decision.line) if decision.file != self._batch else None

    def _read(self) -> None:
        found, self._offset = read_feedback(self._directory / FEEDBACK, self._offset, self._warn)
        for label in found:
            name: LabelName = "anomaly" if label.anomaly else "normal"
            if label.seq is not None:
                self._by_seq[label.seq] = name
            elif label.line is not None:
                self._by_line[label.line] = name

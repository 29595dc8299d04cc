"""A judge within a run, and the models and labels that reach it there."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, Protocol

import anyio
import numpy as np
from anyio.to_thread import run_sync
from numpy.typing import NDArray

from peerwatch.actors.mailbox import Send, waiting
from peerwatch.actors.messages import TrainedModel, TrainingRequest
from peerwatch.detectors.base import Detector
from peerwatch.judging.adaptation import Adaptation, Notice, ReleaseNotice
from peerwatch.judging.judge import BatchVerdicts, Case, Judge, joined
from peerwatch.judging.labels import Label
from peerwatch.judging.quarantine import Purchases, Quarantine
from peerwatch.judging.training import Learner
from peerwatch.kernels import Int64s


class Models(Protocol):
    """Stores a judge's models, and the event from which each has been active."""

    def since(self, version: int) -> int | None:
        """The event from which a model is active, None if no event has been recorded."""

    def load(self, version: int, like: Detector) -> Detector:
        """Load a saved model; `like` is a detector of its type.

        Raises:
            RunError: the model is missing or damaged.
        """

    def keep(self, version: int, model: Detector) -> None:
        """Save a model before it is activated.

        Raises:
            SinkError: the model could not be written.
        """

    def speaks(self, version: int, seq: int) -> None:
        """Record that a model is active from event `seq` on. Called before it judges.

        Raises:
            SinkError: the record could not be written.
        """


class NoModels:
    """The `Models` of a run without a state directory: keeps nothing."""

    def since(self, version: int) -> None:
        """Return None: no event has been recorded."""

    def load(self, version: int, like: Detector) -> Detector:
        """Raise LookupError. Never called, because `since` always returns None."""
        raise LookupError(version, like)

    def keep(self, version: int, model: Detector) -> None:
        """Do nothing."""

    def speaks(self, version: int, seq: int) -> None:
        """Do nothing."""


class Labels(Protocol):
    """The labels that analysts add during a run. `heard` is an opaque position up to which they have been read."""

    def look(self) -> None:
        """Check whether labels have been added."""

    def since(self, heard: int) -> int | None:
        """The event before which the labels after `heard` were read, None if no event has been recorded."""

    def has_more(self, heard: int) -> bool:
        """Whether the last `look` found labels after `heard`."""

    def hear(self, seq: int, heard: int) -> tuple[list[Label], int]:
        """Read the labels after `heard`, and record that they were read before event `seq`.

        Returns the labels and the new position.

        Raises:
            RunError: the labels cannot be read any more.
            SinkError: the record could not be written.
        """


class ModelActivated(NamedTuple):
    """Model number `version` is active from event `seq` on."""

    seq: int
    version: int


class PendingModel:
    """A model that the trainer has been asked for."""

    def __init__(self) -> None:
        self._trained = anyio.Event()

    def put(self, model: Detector) -> None:
        """Store the trained model and wake `wait_ready`."""
        self._model = model
        self._trained.set()

    @property
    def ready(self) -> bool:
        """Whether the model has been trained."""
        return self._trained.is_set()

    async def wait_ready(self) -> Detector:
        """Wait until the model has been trained, and return it."""
        with waiting():
            await self._trained.wait()
        return self._model


class LiveJudge:
    """A judge in a run. Splits a batch where a model may be activated or labels may be read.

    With `waits` judging waits for a model at the purchase where it is expected, so that it is activated at the same
    purchase in every run. Otherwise a model is activated as soon as it is ready. If the event has been recorded by an
    earlier run, it is activated there in either case.

    With `holds` an earlier run died after it had written verdicts on the next events, and somebody may have read them.
    Then models and labels take effect only where that has been recorded, until events come that the earlier run cannot
    have judged.
    """

    def __init__(
        self,
        judge: Judge,
        models: Models | None = None,
        labels: Labels | None = None,
        *,
        waits: bool = True,
        holds: bool = False,
    ) -> None:
        self.judge = judge
        self._holds = holds
        self.models = models or NoModels()
        """The store of its models."""
        self._labels = labels
        self._waits = waits
        self._ordered: dict[int, PendingModel] = {}
        """The models that the trainer has been asked for, by version."""
        self._told: list[ModelActivated | ReleaseNotice] = []
        """Notices that have not been fetched yet."""

    @property
    def learns(self) -> bool:
        """Whether models are trained for it."""
        return self.judge.learner is not None

    @property
    def stepwise(self) -> bool:
        """Whether it may change within a batch."""
        return self.judge.stepwise

    @property
    def wants_context(self) -> bool:
        """Whether it needs the buyers' own purchases besides the windows."""
        return self.judge.wants_context

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state that the judge's `arrays` returned, and load the model that was active then.

        Raises:
            RunError: the model is missing or damaged.
        """
        self.judge.restore(arrays, self.models.load)

    def look(self) -> None:
        """Check whether labels have been added."""
        if self._labels is not None:
            self._labels.look()

    def notices(self) -> list[Notice | ModelActivated]:
        """Return the notices since the last call."""
        notices: list[Notice | ModelActivated] = [*self._told]
        self._told.clear()
        if self.judge.adaptation is not None:
            notices += self.judge.adaptation.take_notices()
        return notices

    def take(self, trained: TrainedModel) -> None:
        """Accept a trained model. It judges once it is activated."""
        self._ordered[trained.version].put(trained.model)

    async def verdicts(
        self, case: Case, who: str, trainer: Send[TrainingRequest] | None, *, new: bool
    ) -> BatchVerdicts:
        """Judge the purchases of `case`. Must be called with every purchase of a run, in order and once.

        `who` is this judge's name in requests to the trainer. `new` purchases cannot have been judged by an earlier
        run.
        """
        judge, may_change = self.judge, new or not self._holds
        if not judge.stepwise:
            return await run_sync(judge.verdicts, case)
        parts: list[BatchVerdicts] = []
        begin, q = 0, len(case.seq)
        while begin < q:
            seq = int(case.seq[begin])
            if judge.learner is not None and trainer is not None:
                await self._attend(judge, judge.learner, seq, who, trainer, may_change=may_change)
            if judge.adaptation is not None and judge.adaptation.precision is not None:
                await self._listen(judge.adaptation, seq, may_change=may_change)
            rest = case.part(begin, q)
            end = begin + min(judge.until(rest), self._until_written_down(judge, rest.seq))
            parts.append(await run_sync(judge.verdicts, case.part(begin, end)))
            begin = end
        return joined(parts)

    async def _attend(
        self, judge: Judge, learner: Learner, seq: int, who: str, trainer: Send[TrainingRequest], *, may_change: bool
    ) -> None:
        """Request a model for the current training set, and activate it if it is due before event `seq`."""
        training_set = learner.training_set
        if training_set is None:
            return
        since = self.models.since(training_set.version)
        if since is not None:
            if seq < since:
                return
            model = await run_sync(self.models.load, training_set.version, judge.detector)
        else:
            if training_set.version not in self._ordered:
                self._ordered[training_set.version] = PendingModel()
                await trainer.send(TrainingRequest(who, training_set))
            pending = self._ordered[training_set.version]
            if not (learner.due if self._waits else pending.ready and may_change):
                return
            model = await pending.wait_ready()
            await run_sync(self.models.speaks, training_set.version, seq)
            del self._ordered[training_set.version]
        judge.activate(model)
        self._told.append(ModelActivated(seq, training_set.version))

    async def _listen(self, adaptation: Adaptation, seq: int, *, may_change: bool) -> None:
        """Read the labels that are due before event `seq`."""
        async for labels, through in self._due_labels(seq, adaptation.heard, may_change=may_change):
            adaptation.hear(seq, labels, through)

    async def hear(self, quarantine: Quarantine, seq: int, *, new: bool) -> AsyncIterator[Purchases]:
        """Read the labels that are due before event `seq`, and yield the purchases that they release.

        A `new` event cannot have been judged by an earlier run.
        """
        async for labels, through in self._due_labels(seq, quarantine.heard, may_change=new or not self._holds):
            released = quarantine.hear(labels, through)
            self._told.append(ReleaseNotice(seq, len(labels), released.seq.tolist()))
            yield released

    def hears_next(self, quarantine: Quarantine) -> int | None:
        """The event before which labels are to be read next, None if no event has been recorded."""
        return self._labels.since(quarantine.heard) if self._labels is not None else None

    async def _due_labels(self, seq: int, heard: int, *, may_change: bool) -> AsyncIterator[tuple[list[Label], int]]:
        """Read the labels after `heard` that are due before event `seq`; yield them with the position behind them."""
        if self._labels is None:
            return
        since = self._labels.since(heard)
        while (seq >= since) if since is not None else (self._labels.has_more(heard) and may_change):
            labels, through = await run_sync(self._labels.hear, seq, heard)
            if through == heard:
                break
            heard = through
            yield labels, through
            since = self._labels.since(heard)

    def _until_written_down(self, judge: Judge, seq: Int64s) -> int:
        """How many of the events `seq` come before the next recorded activation or reading of labels."""
        known = []
        if judge.learner is not None and judge.learner.training_set is not None:
            known.append(self.models.since(judge.learner.training_set.version))
        if judge.adaptation is not None and self._labels is not None:
            known.append(self._labels.since(judge.adaptation.heard))
        next_ = min((since for since in known if since is not None and since > seq[0]), default=None)
        return len(seq) if next_ is None else int(np.searchsorted(seq, next_))

"""One who judges, and the models that come to it while it does."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import anyio
import numpy as np
from anyio.to_thread import run_sync
from numpy.typing import NDArray

from peerwatch.actors.mailbox import Send
from peerwatch.actors.messages import TrainedModel, TrainingRequest
from peerwatch.detectors.base import Detector
from peerwatch.judging.adaptation import Adaptation, Notice
from peerwatch.judging.judge import BatchVerdicts, Case, Judge, joined
from peerwatch.judging.labels import Label
from peerwatch.judging.training import Learner
from peerwatch.kernels import Int64s


class Models(Protocol):
    """Where models are kept, and since which event each speaks."""

    def since(self, version: int) -> int | None:
        """The event from which on a model speaks; None if nobody has written that down."""

    def load(self, version: int, like: Detector) -> Detector:
        """A model that has been kept.

        Raises:
            RunError: it is not there, or damaged.
        """

    def keep(self, version: int, model: Detector) -> None:
        """Keep a model that does not speak yet.

        Raises:
            SinkError: it could not be written.
        """

    def speaks(self, version: int, seq: int) -> None:
        """Write down that a model speaks from event `seq` on, before it does.

        Raises:
            SinkError: it could not be written.
        """


class NoModels:
    """Where a run without a state directory keeps its models: nowhere."""

    def since(self, version: int) -> None:
        """Nothing is written down."""

    def load(self, version: int, like: Detector) -> Detector:
        """Never called: nothing is written down."""
        raise LookupError(version, like)

    def keep(self, version: int, model: Detector) -> None:
        """Nothing is kept."""

    def speaks(self, version: int, seq: int) -> None:
        """Nothing is written down."""


class Labels(Protocol):
    """What analysts say of purchases while a run goes on. `heard` is how far it has been heard, in its own words."""

    def look(self) -> None:
        """See whether there is more by now."""

    def since(self, heard: int) -> int | None:
        """The event before which what comes next was heard, None if nobody has written that down."""

    def has_more(self, heard: int) -> bool:
        """Whether there is more to be heard, as far as is known."""

    def hear(self, seq: int, heard: int) -> tuple[list[Label], int]:
        """What is behind `heard`, and how far it goes; it is written down that it was heard before event `seq`.

        Raises:
            SinkError: it could not be written down.
        """


class ModelActivated(NamedTuple):
    """A model speaks from event `seq` on."""

    seq: int
    version: int


class PendingModel:
    """A model that has been ordered from the trainer."""

    def __init__(self) -> None:
        self._trained = anyio.Event()

    def put(self, model: Detector) -> None:
        """It has been trained; whoever waits goes on."""
        self._model = model
        self._trained.set()

    @property
    def ready(self) -> bool:
        """Whether it has been trained."""
        return self._trained.is_set()

    async def wait_ready(self) -> Detector:
        """The model, once it has been trained."""
        await self._trained.wait()
        return self._model


class LiveJudge:
    """A judge, asked part by part if models or labels may come in between.

    With `waits` the flow of events waits for a model at the count at which it is expected, so that every run has it
    there; otherwise the model speaks from whatever event it is ready for. What has been written down holds either way.

    With `holds` verdicts on the next events may have been read before, in a run that died: until events are new, which
    cannot have been judged then, nothing changes at a moment of its own that is not written down.
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
        """Where its models are kept."""
        self._labels = labels
        self._waits = waits
        self._ordered: dict[int, PendingModel] = {}
        """What the trainer has been asked for, by version."""
        self._spoke: list[ModelActivated] = []

    @property
    def learns(self) -> bool:
        """Whether models come to it."""
        return self.judge.learner is not None

    @property
    def stepwise(self) -> bool:
        """Whether it has to be asked part by part."""
        return self.judge.stepwise

    @property
    def wants_context(self) -> bool:
        """Whether it is to be told more than windows."""
        return self.judge.wants_context

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Remember what the judge's `arrays` held, and let the model speak that spoke then.

        Raises:
            RunError: that model is not there any more, or damaged.
        """
        self.judge.restore(arrays, self.models.load)

    def look(self) -> None:
        """See whether analysts have said more by now."""
        if self._labels is not None:
            self._labels.look()

    def notices(self) -> list[Notice | ModelActivated]:
        """What has happened since it was last asked."""
        notices: list[Notice | ModelActivated] = [*self._spoke]
        self._spoke.clear()
        if self.judge.adaptation is not None:
            notices += self.judge.adaptation.take_notices()
        return notices

    def take(self, trained: TrainedModel) -> None:
        """Take a model that was ordered; it judges from when it is activated."""
        self._ordered[trained.version].put(trained.model)

    async def verdicts(
        self, case: Case, who: str, trainer: Send[TrainingRequest] | None, *, new: bool
    ) -> BatchVerdicts:
        """Judge purchases; those of a run come in order, each once. `trainer` knows who learns as `who`.

        `new` ones cannot have been judged before.
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
        """See that the lesson is being learned, and that its model is taken up, if it is to speak from event `seq`."""
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
        self._spoke.append(ModelActivated(seq, training_set.version))

    async def _listen(self, adaptation: Adaptation, seq: int, *, may_change: bool) -> None:
        """Hear what analysts have said, if it is to be heard before event `seq`."""
        if self._labels is None:
            return
        since = self._labels.since(adaptation.heard)
        while (seq >= since) if since is not None else (self._labels.has_more(adaptation.heard) and may_change):
            labels, through = await run_sync(self._labels.hear, seq, adaptation.heard)
            if through == adaptation.heard:
                break
            adaptation.hear(seq, labels, through)
            since = self._labels.since(adaptation.heard)

    def _until_written_down(self, judge: Judge, seq: Int64s) -> int:
        """How many of the events `seq` come before the next thing that is written down."""
        known = []
        if judge.learner is not None and judge.learner.training_set is not None:
            known.append(self.models.since(judge.learner.training_set.version))
        if judge.adaptation is not None and self._labels is not None:
            known.append(self._labels.since(judge.adaptation.heard))
        next_ = min((since for since in known if since is not None and since > seq[0]), default=None)
        return len(seq) if next_ is None else int(np.searchsorted(seq, next_))

"""The trainer: trains models on a thread, beside the flow of events."""

from collections.abc import Mapping
from typing import NamedTuple

from anyio.to_thread import run_sync

from peerwatch.actors.judges import Models
from peerwatch.actors.mailbox import Receive, Send
from peerwatch.actors.messages import TrainedModel, TrainingRequest
from peerwatch.detectors.base import Detector
from peerwatch.judging.training import TrainingSet, fitted


class Trainee(NamedTuple):
    """A judge to train: a detector with its parameters, which is not changed, and the store of its models."""

    detector: Detector
    models: Models


class Trainer:
    """Trains one model at a time, on a thread."""

    def __init__(
        self, trainees: Mapping[str, Trainee], inbox: Receive[TrainingRequest], trained: Send[TrainedModel]
    ) -> None:
        """Connect the trainer; `trainees` are the judges that learn, by name."""
        self._trainees = trainees
        self._inbox = inbox
        self._trained = trained

    async def run(self) -> None:
        """Train until the mailbox is closed."""
        with self._inbox, self._trained:
            async for request in self._inbox:
                model = await run_sync(_train, self._trainees[request.who], request.training_set)
                await self._trained.send(TrainedModel(request.who, request.training_set.version, model))


def _train(trainee: Trainee, training_set: TrainingSet) -> Detector:
    model = fitted(trainee.detector, training_set)
    trainee.models.keep(training_set.version, model)  # saved before it is handed over, so that it survives a crash
    return model

"""Trains models away from the flow of events."""

from collections.abc import Mapping
from typing import NamedTuple

from anyio.to_thread import run_sync

from peerwatch.actors.judges import Models
from peerwatch.actors.mailbox import Receive, Send
from peerwatch.actors.messages import TrainedModel, TrainingRequest
from peerwatch.detectors.base import Detector
from peerwatch.judging.training import TrainingSet, fitted


class Trainee(NamedTuple):
    """Whose models are trained: a detector with their parameters, which is left as it is, and where they are kept."""

    detector: Detector
    models: Models


class Trainer:
    """Trains one model after the other, each on a thread."""

    def __init__(
        self, trainees: Mapping[str, Trainee], inbox: Receive[TrainingRequest], trained: Send[TrainedModel]
    ) -> None:
        """`trainees` are the judges that learn, by name."""
        self._trainees = trainees
        self._inbox = inbox
        self._trained = trained

    async def run(self) -> None:
        """Train until the mailbox ends."""
        with self._inbox, self._trained:
            async for request in self._inbox:
                model = await run_sync(_train, self._trainees[request.who], request.training_set)
                await self._trained.send(TrainedModel(request.who, request.training_set.version, model))


def _train(trainee: Trainee, training_set: TrainingSet) -> Detector:
    model = fitted(trainee.detector, training_set)
    trainee.models.keep(training_set.version, model)  # before it is handed over: it has to be there after a crash
    return model

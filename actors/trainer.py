"""Trains models away from the flow of events."""

from collections.abc import Callable

import msgspec
from anyio.to_thread import run_sync

from peerwatch.actors.mailbox import Receive, Reply
from peerwatch.detectors.base import Detector
from peerwatch.judging.training import TrainingSet, fitted


class TrainingRequest(msgspec.Struct, frozen=True):
    """Coordinator to trainer: `detector`, which is left as it is, is to learn a lesson.

    `keep` is called with the lesson's version and its model before that is handed over: it has to be there again after
    a crash.
    """

    detector: Detector
    training_set: TrainingSet
    keep: Callable[[int, Detector], None]
    reply: Reply[Detector]


class Trainer:
    """Trains one model after the other, each on a thread."""

    def __init__(self, inbox: Receive[TrainingRequest]) -> None:
        self._inbox = inbox

    async def run(self) -> None:
        """Train until the mailbox ends."""
        with self._inbox:
            async for training in self._inbox:
                training.reply.put(await run_sync(_train, training))


def _train(training: TrainingRequest) -> Detector:
    model = fitted(training.detector, training.training_set)
    training.keep(training.training_set.version, model)
    return model

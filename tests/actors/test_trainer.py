"""The trainer's contract: each request is answered with a model, which is kept by then."""

import numpy as np
from typical import Typical

from peerwatch.actors.judges import NoModels
from peerwatch.actors.mailbox import Mailbox
from peerwatch.actors.messages import TrainedModel, TrainingRequest
from peerwatch.actors.trainer import Trainee, Trainer
from peerwatch.detectors.base import Detector
from peerwatch.detectors.features import FEATURES
from peerwatch.judging.training import TrainingSet


class Kept(NoModels):
    """Remembers what is kept, and how many models had been handed over by then."""

    def __init__(self, trained: Mailbox[TrainedModel]) -> None:
        self.kept: list[tuple[int, Detector, int]] = []
        self._trained = trained

    def keep(self, version: int, model: Detector) -> None:
        """Remember."""
        self.kept.append((version, model, self._trained.sender.depth().now))


async def test_each_model_is_kept_before_it_is_handed_over() -> None:
    """It goes to the one it was trained for; the detector of whom it is trained is left as it is."""
    inbox, trained = Mailbox[TrainingRequest]("trainer", 10), Mailbox[TrainedModel]("models", 10)
    champion, challenger = Kept(trained), Kept(trained)
    own = Typical()
    rows = np.arange(10.0 * len(FEATURES)).reshape(10, -1)
    asked = [("champion", 1), ("challenger", 1), ("champion", 2)]
    with inbox.sender as coordinator:
        for who, version in asked:
            await coordinator.send(TrainingRequest(who, TrainingSet(version, rows)))
    trainees = {"champion": Trainee(own, champion), "challenger": Trainee(Typical(), challenger)}
    await Trainer(trainees, inbox.receiver, trained.sender).run()
    with trained.receiver as models:
        found = [model async for model in models]
    assert [(model.who, model.version) for model in found] == asked
    assert champion.kept == [(1, found[0].model, 0), (2, found[2].model, 2)]
    assert challenger.kept == [(1, found[1].model, 1)]
    assert own not in {model.model for model in found}

"""Generated sessions and a small model of them, made once."""

from pathlib import Path

import pytest

from peerwatch.sessions.benchmark import LabelledSessions, made
from peerwatch.sessions.generator import SessionOrder
from peerwatch.sessions.predictor import SessionModel

SMALL = {"max_iter": 30}


@pytest.fixture(scope="session")
def train() -> LabelledSessions:
    """600 sessions, 40 % anomalous."""
    return made(SessionOrder(rows=600, anomalies=0.4, seed=1))


@pytest.fixture(scope="session")
def test() -> LabelledSessions:
    """400 sessions of other users, 10 % anomalous."""
    return made(SessionOrder(rows=400, anomalies=0.1, seed=2, users_seed=2))


@pytest.fixture(scope="session")
def model(train: LabelledSessions) -> SessionModel:
    """Gradient boosting, with the own past."""
    return SessionModel(expect=0.1, own_past=True, parameters=SMALL).fit(train.with_label(), "label")


@pytest.fixture(scope="session")
def saved(model: SessionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's file."""
    path = tmp_path_factory.mktemp("model") / "model.skops"
    model.save(path)
    return path

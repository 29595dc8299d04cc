"""The autoencoder is a network of scikit-learn's."""

import numpy as np
import pytest
from learned_tables import tables
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from peerwatch.detectors.learned.autoencoder import Autoencoder


@pytest.mark.parametrize("columns", [1, 5])
def test_an_autoencoder_is_a_network_of_scikit_learn(columns: int) -> None:
    """The mean squared error of what it predicts."""
    train, test = (table[:, :columns] for table in tables())
    ours = Autoencoder(hidden=(4, 2, 4), epochs=30, seed=5).fit(train)
    scaler = StandardScaler().fit(train)
    scaled, wanted = scaler.transform(train), scaler.transform(test)
    theirs = MLPRegressor(hidden_layer_sizes=(4, 2, 4), learning_rate_init=0.01, random_state=5)
    for _ in range(30):
        theirs.partial_fit(scaled, scaled[:, 0] if columns == 1 else scaled)
    error = (theirs.predict(wanted).reshape(-1, columns) - wanted) ** 2
    np.testing.assert_allclose(-ours.score_samples(test), error.mean(axis=1), rtol=1e-9, atol=1e-9)

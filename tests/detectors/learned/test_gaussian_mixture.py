"""The density of a mixture is scikit-learn's."""

import numpy as np
import pytest
from learned_tables import tables
from sklearn.mixture import GaussianMixture as Mixture
from sklearn.preprocessing import StandardScaler

from peerwatch.detectors.learned.gaussian_mixture import GaussianMixture


@pytest.mark.parametrize("components", [1, 3])
def test_the_density_is_that_of_scikit_learn(components: int) -> None:
    """But for the last digits: ours does not sum as BLAS does."""
    train, test = tables()
    ours = GaussianMixture(components=components).fit(train)
    scaler = StandardScaler().fit(train)
    theirs = Mixture(components, random_state=1).fit(scaler.transform(train))
    np.testing.assert_allclose(ours.score_samples(test), theirs.score_samples(scaler.transform(test)), rtol=1e-9)

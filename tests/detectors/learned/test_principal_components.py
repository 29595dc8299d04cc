"""The distance by principal components is that of scikit-learn's."""

import numpy as np
import pytest
from learned_tables import tables
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.principal_components import PrincipalComponents


@pytest.mark.parametrize("whiten", [False, True])
def test_the_distance_is_that_of_scikit_learn(whiten: bool) -> None:
    """Without whitening and with all of it, where no column is constant."""
    train, test = (np.delete(table, 3, axis=1) for table in tables())
    scaler = StandardScaler().fit(train)
    theirs = PCA(whiten=whiten).fit(scaler.transform(train))
    ours = PrincipalComponents(whitening=float(whiten)).fit(train)
    found: Floats = theirs.transform(scaler.transform(test))
    np.testing.assert_allclose(-ours.score_samples(test), np.square(found).sum(axis=1), rtol=1e-4)


def test_what_is_odd_in_combination_is_found() -> None:
    """Two columns that go together: a row in which they do not is farther than one that is larger in both."""
    rng = np.random.default_rng(1)
    both = rng.normal(size=500)
    detector = PrincipalComponents().fit(np.column_stack([both, both + rng.normal(0, 0.05, 500)]))
    apart, together = -detector.score_samples([[1.5, -1.5], [2.0, 2.0]])
    assert apart > together

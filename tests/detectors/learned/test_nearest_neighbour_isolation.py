"""Isolation by nearest neighbours, by its definition."""

import numpy as np
from learned_tables import tables

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.nearest_neighbour_isolation import TOGETHER, Inne


def defined(detector: Inne, row: Floats) -> float:
    """The mean over the samples: by the smallest ball around the row how much smaller the nearest ball is, else 1."""
    found = []
    for centers in detector.model_.centers:
        apart = np.linalg.norm(centers[:, None] - centers, axis=2) + np.diag([np.inf] * len(centers))
        radii = apart.min(axis=1)
        around = [ball for ball in range(len(centers)) if np.linalg.norm(row - centers[ball]) <= radii[ball]]
        if around:
            smallest = min(around, key=lambda ball: radii[ball])
            found.append(1 - (radii[apart[smallest].argmin()] / radii[smallest]) ** 2)
        else:
            found.append(1.0)
    return float(np.mean(found))


def test_scores_are_those_of_the_definition() -> None:
    """For more rows than are scored together, too."""
    train, test = tables()
    detector = Inne(samples=20, size=6).fit(train)
    rows = (np.vstack([train, test]) - detector.center_) / detector.scale_
    scores = -detector.score_samples(np.vstack([train, test]))
    assert len(scores) > TOGETHER
    np.testing.assert_allclose(scores[::25], [defined(detector, row) for row in rows[::25]], atol=1e-9)


def test_a_row_outside_all_balls_scores_one() -> None:
    """And fewer rows than a sample holds are all drawn."""
    detector = Inne(samples=10).fit(np.array([[0.0, 0], [0, 1], [1, 0]]))
    assert -detector.score_samples([[9.0, 9.0]]) == [1.0]

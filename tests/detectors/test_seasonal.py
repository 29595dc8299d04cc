"""The seasonal rule."""

import numpy as np
import pytest

from peerwatch.detectors.seasonal import Seasonal


@pytest.mark.parametrize("method", ["stl", "classical"])
@pytest.mark.parametrize("base", [[10.0, 20, 30, 40, 50, 60, 70], [12.34, 9.99, 3.1, 100.7, 5.5, 6.6, 7.7]])
def test_what_goes_on_as_it_always_did_is_normal(method: str, base: list[float]) -> None:
    """A season repeated exactly leaves nothing but rounding, which is no spread to measure by."""
    series = np.array(base * 5)
    rule = Seasonal(method=method)
    offsets = np.array([0, 35, 70])
    _, _, flagged = rule.judge(offsets, np.tile(series, 2), np.array([base[0], base[0] + 5]))
    assert flagged.tolist() == [False, True]
    assert not rule.look_back(series[:, None]).flagged.any()
    line = np.array([1.1 * place for place in range(35)])
    assert rule.judge(np.array([0, 35]), line, np.array([35 * 1.1])).flagged.tolist() == [False]

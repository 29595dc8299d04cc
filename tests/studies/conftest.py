"""What tests of studies share."""

from collections.abc import Iterator

import pytest

from peerwatch.detectors.registry import DETECTORS


@pytest.fixture
def registry() -> Iterator[dict[str, str]]:
    """The registry of detectors; it is put back in its order, which is that of tables and sentences."""
    before = dict(DETECTORS)
    yield DETECTORS
    DETECTORS.clear()
    DETECTORS.update(before)

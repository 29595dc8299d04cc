"""What a process counts over all its pipelines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.judging.state import Counts
from peerwatch.runtime.pipeline import Totals
from peerwatch.runtime.statistics import ProgressOfProcess, RecentlyBusy


def totals(events: int, flagged: int) -> Totals:
    """The totals behind so many events."""
    return Totals(Counts(events=events, judged=events // 2), flagged, 0, 0, "", 0, 0)


@given(st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 500), st.booleans())))
def test_progress_never_goes_back_and_counts_nothing_twice(before: int, steps: list[tuple[int, bool]]) -> None:
    """A pipeline that restarts goes back to a checkpoint; what it judges again is not counted again."""
    progress, now, furthest = ProgressOfProcess(totals(before, before // 7)), before, before
    seen = progress.look(totals(before, before // 7))
    assert seen == (0, 0, 0)
    for events, restarts in steps:
        now = before if restarts else now + events
        furthest = max(furthest, now)
        after = progress.look(totals(now, now // 7))
        assert all(new >= old for new, old in zip(after, seen, strict=True))
        assert after == (furthest - before, furthest // 2 - before // 2, furthest // 7 - before // 7)
        seen = after


def test_busy_is_the_share_of_the_last_seconds() -> None:
    """What was longer ago than ten seconds does not matter; it is 0 before the first look."""
    now = [0.0]
    busy = RecentlyBusy(lambda: now[0])
    assert busy.ratios({"graph": 5.0}) == {"graph": 0.0}
    for second in range(21):
        now[0] = float(second)
        busy.look({"graph": min(second, 10) * 1.0, "output": second / 2})
    assert busy.ratios({"graph": 10.0, "output": 10.0}) == {"graph": 0.0, "output": 0.5}
    now[0] = 22.0
    assert busy.ratios({"graph": 12.0, "output": 10.0}) == pytest.approx({"graph": 2 / 12, "output": 5 / 12})

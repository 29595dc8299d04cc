"""A detector may take any time: it never runs on the event loop."""

import asyncio
from typing import Any

from support import befriend, judge_files, purchase

from peerwatch.actors.coordinator import Judges
from peerwatch.actors.judges import LiveJudge
from peerwatch.detectors.rules import Mad
from peerwatch.judging.detector_judge import DetectorJudge


class Observed(Mad):
    """Notes whether it is asked on an event loop."""

    on_loop: bool | None = None

    def score_amounts(self, *arguments: Any) -> Any:
        """As the rule that it is."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            type(self).on_loop = type(self).on_loop or False
        else:
            type(self).on_loop = True
        return super().score_amounts(*arguments)


def test_a_detector_is_not_asked_on_the_event_loop() -> None:
    """Not even for a single purchase with a small window."""
    stream = purchase(1, "10") * 3 + purchase(2, "12")
    judge_files(
        befriend(1, 2) + purchase(2, "10") * 5, stream, 1, 5, bench=Judges(LiveJudge(DetectorJudge(Observed())))
    )
    assert Observed.on_loop is False

"""peerwatch flags purchases far above what the buyer's own network has been spending, exactly.

    for decision in peerwatch.judge("batch_log.json", "stream_log.json"):
        if decision.flagged:
            print(decision.user, decision.amount, decision.mean, decision.sd)

Everything public is listed in `__all__`; each name is imported when it is first used.
"""

from importlib import import_module

TYPE_CHECKING = False  # type checkers know the name; importing typing here would cost every start
if TYPE_CHECKING:
    from typing import Any

    from peerwatch.api import detector, explain, judge, judge_async, sweep
    from peerwatch.connectors.sink import Sink
    from peerwatch.connectors.source import Source
    from peerwatch.decisions import Decision, Decisions
    from peerwatch.detectors.base import Detector
    from peerwatch.engine import Engine
    from peerwatch.errors import (
        BadEvent,
        BadInput,
        PeerwatchError,
        RunError,
        SinkError,
        SourceError,
        StrictError,
        UsageError,
    )

__all__ = [
    "BadEvent",
    "BadInput",
    "Decision",
    "Decisions",
    "Detector",
    "Engine",
    "PeerwatchError",
    "RunError",
    "Sink",
    "SinkError",
    "Source",
    "SourceError",
    "StrictError",
    "UsageError",
    "__version__",
    "detector",
    "explain",
    "judge",
    "judge_async",
    "sweep",
]
_MODULES = {
    "Decision": "decisions",
    "Decisions": "decisions",
    "Detector": "detectors.base",
    "Engine": "engine",
    "Sink": "connectors.sink",
    "Source": "connectors.source",
    "detector": "api",
    "explain": "api",
    "judge": "api",
    "judge_async": "api",
    "sweep": "api",
}


def __getattr__(name: str) -> "Any":
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 (slow to import)

        return version("peerwatch")
    if name in __all__:
        return getattr(import_module(f"peerwatch.{_MODULES.get(name, 'errors')}"), name)
    raise AttributeError(f"module 'peerwatch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

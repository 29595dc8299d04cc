"""Keeps flagged purchases out of the state of a replay, as a run with quarantine does."""

from collections.abc import Mapping
from pathlib import Path

from peerwatch.judging.engine import apply
from peerwatch.judging.quarantine_engine import QuarantineEngine
from peerwatch.judging.state import State
from peerwatch.network.decoder import Events
from peerwatch.runtime.judges_from_settings import champion_of
from peerwatch.runtime.preflight import rules_of
from peerwatch.settings.model import QUARANTINE, Settings
from peerwatch.storage.checkpoints import CheckpointEnvelope, Identity
from peerwatch.storage.run_history import RunHistory, read_record


def history_of(settings: Settings, D: int, T: int, newest: CheckpointEnvelope | None) -> RunHistory | None:
    """Return the history of the run with these settings, whose newest checkpoint is given; None if there is none.

    Raises:
        UsageError: the history is damaged.
    """
    directory = settings.state.directory
    if directory is None or newest is None:
        return None
    own, identity = rules_of(settings, "detector."), newest.identity
    if (D, T) != (identity.D, identity.T) or not own.items() <= identity.rules.items():
        return None
    return read_record(Path(directory))


def depends_on_rules(settings: Settings, known: Identity) -> bool:
    """Whether the states of a run are of no use for these settings: a quarantine holds what other rules flag."""
    own = rules_of(settings, "detector.")
    kept = {key: value for key, value in known.rules.items() if key.startswith("detector.")}
    return (settings.detector.quarantine or QUARANTINE in kept) and own != kept


class ReplayedState:
    """Applies events to a state that keeps the judged purchases of a run; with quarantine they are judged again."""

    def __init__(
        self, state: State, settings: Settings, origins: Mapping[str, str], T: int, history: RunHistory | None
    ) -> None:
        """Windows of T purchases; the state may keep more. `history` has the labels that released purchases."""
        self._state = state
        self._engine: QuarantineEngine | None = None
        if settings.detector.quarantine:
            labels = history.labels() if history is not None else None
            self._engine = QuarantineEngine(state, champion_of(settings.detector, origins), T, labels)

    def apply(self, events: Events, seq: int, *, judged: bool) -> None:
        """Apply events, the first of them numbered `seq`, of the log that is judged or of the other one."""
        if self._engine is None or not judged:
            apply(self._state, events, seq)
            return
        for _ in self._engine.decide(events, seq):
            pass

    def stop(self, seq: int) -> None:
        """Come to the state in which event `seq` is judged: labels may have been read just before it."""
        if self._engine is not None:
            self._engine.hear(seq)

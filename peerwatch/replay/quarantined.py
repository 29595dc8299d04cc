"""Keeps flagged purchases out of the state of a replay, as a run with quarantine does."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from peerwatch.errors import UsageError
from peerwatch.judging.adaptation import section
from peerwatch.judging.engine import apply
from peerwatch.judging.judge import CHAMPION
from peerwatch.judging.state import State
from peerwatch.network.decoder import Events
from peerwatch.runtime.judges_from_settings import champion_of
from peerwatch.runtime.preflight import rules_of
from peerwatch.settings.model import QUARANTINE, Settings
from peerwatch.storage.checkpoints import Checkpoint, CheckpointEnvelope, Identity
from peerwatch.storage.run_history import RunHistory, read_record

if TYPE_CHECKING:
    from peerwatch.judging.quarantine_engine import QuarantineEngine


def history_of(settings: Settings, D: int, T: int, newest: CheckpointEnvelope | None) -> RunHistory | None:
    """Return the history of the run with these settings, whose newest checkpoint is given; None if there is none.

    Raises:
        UsageError: the history is damaged.
    """
    directory = settings.state.directory
    if directory is None or newest is None:
        return None
    identity = newest.identity
    own = (D, T, settings.friendships, settings.judge_batch)
    theirs = (identity.D, identity.T, identity.friendships, identity.rules.get("judge_batch", False))
    if own != theirs or not rules_of(settings, "detector.").items() <= identity.rules.items():
        return None
    return read_record(Path(directory))


def depends_on_rules(settings: Settings, known: Identity) -> bool:
    """Whether the states of a run are of no use for these settings: a quarantine holds what other rules flag."""
    own = rules_of(settings, "detector.") | {"judge_batch": settings.judge_batch}
    kept = {key: value for key, value in known.rules.items() if key.startswith("detector.")}
    kept["judge_batch"] = known.rules.get("judge_batch", False)
    return (settings.detector.quarantine or QUARANTINE in kept) and own != kept


class ReplayedState:
    """Applies events to a state that keeps the judged purchases of a run; with quarantine they are judged again."""

    def __init__(
        self,
        state: State,
        settings: Settings,
        origins: Mapping[str, str],
        T: int,
        history: RunHistory | None,
        checkpoint: Checkpoint | None,
    ) -> None:
        """Windows of T purchases; the state, that of the `checkpoint`, may keep more.

        `history` has the labels that released purchases, and the models of a detector that learns.

        Raises:
            UsageError: a model is missing, or it is unknown when each of them became active.
        """
        self._state, self._judge_batch = state, settings.judge_batch
        self._engine = None
        if settings.detector.quarantine:
            self._engine = _engine_of(state, settings, origins, T, history, checkpoint)

    def apply(self, events: Events, seq: int, *, in_batch_log: bool) -> None:
        """Apply events of one of the logs, the first of them numbered `seq`."""
        if self._engine is None or (in_batch_log and not self._judge_batch):
            apply(self._state, events, seq)
            return
        for _ in self._engine.decide(events, seq, in_batch_log=in_batch_log):
            pass

    def stop(self, seq: int) -> None:
        """Come to the state in which event `seq` is judged: labels may have been read just before it."""
        if self._engine is not None:
            self._engine.hear(seq)


def _engine_of(
    state: State,
    settings: Settings,
    origins: Mapping[str, str],
    T: int,
    history: RunHistory | None,
    checkpoint: Checkpoint | None,
) -> "QuarantineEngine":
    from peerwatch.judging.quarantine_engine import QuarantineEngine  # noqa: PLC0415 (its kernels take time to load)

    judge, labels, models = champion_of(settings.detector, origins), None, None
    if history is not None:
        # a run that does not follow its log waits for a model that is due, so the others are trained again
        labels, models = history.labels(), history.models(complete=settings.follow)
    elif settings.follow and judge.learner is not None:
        raise UsageError(
            "only the state directory of this run records when each of its models became active; name it, with the"
            " settings of the run"
        )
    if checkpoint is not None and models is not None:
        judge.restore(section(checkpoint.arrays, CHAMPION), models.load)
    return QuarantineEngine(state, judge, T, labels, models)

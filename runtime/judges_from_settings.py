"""Makes the judges that the settings name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from peerwatch import kernels
from peerwatch.actors.coordinator import Judges
from peerwatch.actors.judges import LiveJudge
from peerwatch.detectors.base import Detector
from peerwatch.detectors.registry import make
from peerwatch.errors import BadInput, UsageError
from peerwatch.judging.adaptation import Adaptation
from peerwatch.judging.adaptive_threshold import FlagRate, Precision
from peerwatch.judging.detector_judge import DetectorJudge
from peerwatch.judging.drift import Drift
from peerwatch.judging.judge import CHALLENGER, CHAMPION, Judge
from peerwatch.judging.severity import Severity
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.judging.training import Learner
from peerwatch.settings.model import (
    QUARANTINE,
    SIGMA,
    AdaptSettings,
    ChallengerSettings,
    DetectorSettings,
    Rule,
    Settings,
    TrainingSettings,
)
from peerwatch.storage.checkpoints import Checkpoint
from peerwatch.storage.journal import Journal, JournalEntry
from peerwatch.storage.label_feed import LabelFeed
from peerwatch.storage.model_store import ModelStore

READ: Final = "read"
LIVE: Final = "live"
BATCH: Final = "batch"
"""Kinds of journal entries. `READ`: an earlier run wrote verdicts from this event on, which may have been read, and
they were cut off since. `LIVE`, `BATCH`: a run begins here that follows the log, or that does not; the value counts the
runs."""


def judges_of(
    settings: Settings,
    origins: Mapping[str, str],
    warn: Callable[[str], None],
    directory: Path | None = None,
    checkpoint: Checkpoint | None = None,
    read: bool = False,  # noqa: FBT001, FBT002 (run_sync has no keywords)
) -> Judges:
    """Make the judges, new or as of a checkpoint. `warn` is called if damage is found in the state directory.

    `read` means that verdicts on events after the checkpoint have been written, and may have been read.

    Raises:
        UsageError: a detector does not exist or does not take its parameters, or the journal is damaged.
        RunError: a model that the checkpoint needs is missing.
    """
    check_audit(settings, origins)
    detector, challenger = settings.detector, settings.challenger
    _check(settings, origins)
    judges: dict[str, Judge] = {CHAMPION: champion_of(detector, origins)}
    if challenger.name is not None:
        known = _detector_of("challenger", challenger.name, challenger, origins)
        judges[CHALLENGER] = _judge_of(challenger, known, detector.training)
    journal = Journal(directory) if directory is not None else None
    begun = checkpoint.envelope.facts.progress.events if checkpoint is not None else 0
    holds = journal is not None and _begin(journal, begun, judges, settings, read=read)
    live_judges: dict[str, LiveJudge] = {}
    for who, judge in judges.items():
        models = labels = None
        if directory is not None and journal is not None:
            models, labels = ModelStore(directory, journal, who), LabelFeed(directory, journal, warn)
        live_judges[who] = LiveJudge(judge, models, labels, waits=not settings.follow, holds=holds)
    made = Judges(**live_judges)
    if checkpoint is not None:
        made.restore(checkpoint.arrays)
    return made


def _begin(journal: Journal, begun: int, judges: Mapping[str, Judge], settings: Settings, *, read: bool) -> bool:
    """Record that a run begins after `begun` events; return whether verdicts on later events may have been read.

    Raises:
        UsageError: they may have been read, and models would now be activated at other events.
    """
    if not settings.detector.quarantine and not any(judge.stepwise for judge in judges.values()):
        return False
    if read:
        journal.add(JournalEntry(begun + 1, READ, begun + 1))  # this run will cut them off, and it may crash, too
    holds, live, batch = journal.next(READ, begun) is not None, journal.last(LIVE), journal.last(BATCH)
    learns = any(judge.learner is not None for judge in judges.values())
    if holds and learns and live > batch and not settings.follow:
        raise UsageError(
            f"the last run on the state in {settings.state.directory} followed the log and crashed, and its output"
            " depends on when its models were ready; go on with --follow once, or begin anew with --reset"
        )
    journal.add(JournalEntry(begun + 1, LIVE if settings.follow else BATCH, max(live, batch) + 1))
    return holds


def _check(settings: Settings, origins: Mapping[str, str]) -> None:
    """Check that no setting is given that would have no effect.

    Raises:
        UsageError: one is.
    """
    training, challenger = settings.detector.training, settings.challenger
    if training.every < training.rows:
        key = "detector.training.every"
        raise UsageError(
            f'{origins[key]}: "{key}" is {training.every}; expected at least {training.rows}, "detector.training.rows"'
        )
    if challenger.name is None and challenger != ChallengerSettings():
        key = "challenger.k" if challenger.k != ChallengerSettings().k else "challenger.parameters"
        raise UsageError(f'{origins[key]}: "{key}" is set, but there is no challenger; set "challenger.name"')


def champion_of(detector: DetectorSettings, origins: Mapping[str, str]) -> Judge:
    """Make the champion: the detector with its threshold adaptation, drift detection and severity levels.

    Raises:
        UsageError: the detector does not exist, does not take its parameters, or cannot be combined with these.
    """
    known = _detector_of("detector", detector.name, detector, origins)
    wanted = {
        key: value
        for key, value in (
            ("adapt.flag_rate", detector.adapt.flag_rate),
            ("adapt.precision", detector.adapt.precision),
            ("drift", detector.drift or None),
            ("severity.critical", detector.severity.critical),
            ("severity.emergency", detector.severity.emergency),
        )
        if value is not None
    }
    origin = next((f'{origins[f"detector.{key}"]}: "detector.{key}"' for key in wanted), "")
    try:
        severity = _severity(detector)
        adaptation = _adaptation(detector, known)
    except BadInput as error:
        raise UsageError(f"{origin}: {error}") from None
    judge = _judge_of(detector, known, detector.training, adaptation, severity)
    if detector.quarantine and detector.adapt.precision is not None:
        raise UsageError(
            f'{origins[QUARANTINE]}: "{QUARANTINE}" and "detector.adapt.precision" both follow labels; leave one out'
        )
    return judge


def _severity(detector: DetectorSettings) -> Severity | None:
    critical, emergency = detector.severity.critical, detector.severity.emergency
    if critical is None and emergency is None:
        return None
    if critical is None or emergency is None:
        raise BadInput('set both "critical" and "emergency"')
    return Severity(critical, emergency)


def _adaptation(settings: DetectorSettings, detector: Detector | None) -> Adaptation | None:
    """What goes with a detector, None for sigma, through a run."""
    adapt = settings.adapt
    if adapt == AdaptSettings() and not settings.drift:
        return None
    if detector is None:
        raise BadInput("sigma gives no scores; use zscore or another detector")
    if adapt.flag_rate is not None and adapt.precision is not None:
        raise BadInput('the threshold can adapt to one target only: set "flag_rate" or "precision"')
    rate = FlagRate(adapt.flag_rate) if adapt.flag_rate is not None else None
    precision = None
    if adapt.precision is not None:
        own = getattr(detector, "threshold", None)
        if detector.trains or not isinstance(own, int | float):
            raise BadInput(f"{detector.name} has no fixed threshold; use a rule")
        precision = Precision(adapt.precision, float(own))
    return Adaptation(rate, precision, Drift() if settings.drift else None)


def _judge_of(
    rule: Rule,
    detector: Detector | None,
    training: TrainingSettings,
    adaptation: Adaptation | None = None,
    severity: Severity | None = None,
) -> Judge:
    """A judge by a detector, or by sigma."""
    if detector is None:
        return SigmaJudge(Sigma(rule.exact_k()), severity)
    learner = Learner(training.rows, training.every) if detector.trains else None
    return DetectorJudge(detector, learner, adaptation, severity)


def _detector_of(section: str, name: str, rule: Rule, origins: Mapping[str, str]) -> Detector | None:
    """The detector that a section of the settings names; None for sigma, which is none of the registry's."""
    key = f"{section}.parameters"
    if name == SIGMA:
        if rule.parameters:
            raise UsageError(f'{origins[key]}: sigma has no "{key}"; its k is set as "{section}.k"')
        return None
    if rule.k != DetectorSettings().k:
        raise UsageError(
            f'{origins[f"{section}.k"]}: "{section}.k" is for sigma only; set the parameters of {name} in "{key}"'
        )
    try:
        kept = msgspec.json.decode(msgspec.json.encode(rule.parameters))
    except (TypeError, ValueError, msgspec.MsgspecError):
        kept = None
    if kept != rule.parameters:  # their values in a state directory could not be compared with these
        raise UsageError(
            f'{origins[key]}: "{key}" is {rule.parameters}; use finite numbers, text, true, false, lists and mappings'
        )
    try:
        detector = make(name, rule.parameters)
    except BadInput as error:
        origin = origins[key if rule.parameters else f"{section}.name"]
        raise UsageError(f"{origin}: {error}") from None
    kernels.load()  # its own ones, here and not when it judges: this is not the event loop
    return detector


def check_audit(settings: Settings, origins: Mapping[str, str]) -> None:
    """Check that an audit is only configured for sigma.

    Raises:
        UsageError: it is configured for another detector.
    """
    if settings.audit and settings.detector.name != SIGMA:
        raise UsageError(
            f"{origins['audit']}: an audit can only recompute sigma; leave it out with {settings.detector.name}"
        )


def check_sigma(settings: Settings, what: str) -> None:
    """Check that the detector is sigma; `what` names the command that supports no other.

    Raises:
        UsageError: it is another detector.
    """
    if settings.detector.name != SIGMA:
        raise UsageError(f"{what} works with the detector sigma only, not with {settings.detector.name}")

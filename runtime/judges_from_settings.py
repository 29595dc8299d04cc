"""Who judges, as the settings name them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

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
"""Of the journal: verdicts on this event and those behind it may have been read, and have been cut off since; a run
begins here, the n-th, that follows the log, or that judges what there is."""


def judges_of(
    settings: Settings,
    origins: Mapping[str, str],
    warn: Callable[[str], None],
    directory: Path | None = None,
    checkpoint: Checkpoint | None = None,
    read: bool = False,  # noqa: FBT001, FBT002 (run_sync has no keywords)
) -> Judges:
    """Who judges: fresh, or as of the checkpoint in a state directory. `warn` hears of damage.

    `read` says that verdicts on what is behind the checkpoint have been written, and may have been read.

    Raises:
        UsageError: there is no such detector, or it does not take its parameters; the journal is damaged.
        RunError: a model that the checkpoint needs is not there any more.
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
    bench = Judges(**live_judges)
    if checkpoint is not None:
        bench.restore(checkpoint.arrays)
    return bench


def _begin(journal: Journal, begun: int, judges: Mapping[str, Judge], settings: Settings, *, read: bool) -> bool:
    """Write down that a run begins behind `begun` events; whether verdicts on the next ones may have been read.

    Raises:
        UsageError: they may have been, and now models would speak elsewhere.
    """
    if not any(judge.stepwise for judge in judges.values()):
        return False
    if read:
        journal.add(JournalEntry(begun + 1, READ, begun + 1))  # this run will cut them off, and may die, too
    holds, live, batch = journal.next(READ, begun) is not None, journal.last(LIVE), journal.last(BATCH)
    learns = any(judge.learner is not None for judge in judges.values())
    if holds and learns and live > batch and not settings.follow:
        raise UsageError(
            f"the last run on the state in {settings.state.directory} followed the log and died, and what it wrote"
            " depends on when its models were ready; go on with --follow once, or begin anew with --reset"
        )
    journal.add(JournalEntry(begun + 1, LIVE if settings.follow else BATCH, max(live, batch) + 1))
    return holds


def _check(settings: Settings, origins: Mapping[str, str]) -> None:
    """See that nothing is set that would not count."""
    training, challenger = settings.detector.training, settings.challenger
    if training.every < training.rows:
        key = "detector.training.every"
        raise UsageError(
            f'{origins[key]}: "{key}" is {training.every}; expected at least {training.rows}, "detector.training.rows"'
        )
    if challenger.name is None and challenger != ChallengerSettings():
        key = "challenger.k" if challenger.k != ChallengerSettings().k else "challenger.parameters"
        raise UsageError(f'{origins[key]}: "{key}" is set, but no challenger; name one as "challenger.name"')


def champion_of(detector: DetectorSettings, origins: Mapping[str, str]) -> Judge:
    """The judge whose verdicts count, fresh, with what goes with it.

    Raises:
        UsageError: there is no such detector, or it does not take its parameters.
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
    return _judge_of(detector, known, detector.training, adaptation, severity)


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
        raise BadInput("sigma gives no scores; take zscore, or another detector")
    if adapt.flag_rate is not None and adapt.precision is not None:
        raise BadInput('the threshold follows one thing: set "flag_rate" or "precision"')
    rate = FlagRate(adapt.flag_rate) if adapt.flag_rate is not None else None
    precision = None
    if adapt.precision is not None:
        own = getattr(detector, "threshold", None)
        if detector.trains or not isinstance(own, int | float):
            raise BadInput(f"{detector.name} has no threshold that stays the same; take a rule")
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
        raise UsageError(f'{origins[f"{section}.k"]}: "{section}.k" is that of sigma; set those of {name} as "{key}"')
    try:
        kept = msgspec.json.decode(msgspec.json.encode(rule.parameters))
    except (TypeError, ValueError, msgspec.MsgspecError):
        kept = None
    if kept != rule.parameters:  # a state directory could not tell whether they are the same
        raise UsageError(
            f'{origins[key]}: "{key}" is {rule.parameters}; take finite numbers, text, true, false, lists and mappings'
        )
    try:
        return make(name, rule.parameters)
    except BadInput as error:
        origin = origins[key if rule.parameters else f"{section}.name"]
        raise UsageError(f"{origin}: {error}") from None


def check_audit(settings: Settings, origins: Mapping[str, str]) -> None:
    """See that there is no audit of any detector but sigma.

    Raises:
        UsageError: there is to be one.
    """
    if settings.audit and settings.detector.name != SIGMA:
        raise UsageError(
            f"{origins['audit']}: an audit recomputes sigma only; leave it out with {settings.detector.name}"
        )


def check_sigma(settings: Settings, what: str) -> None:
    """See that sigma judges: a sweep knows no other rule.

    Raises:
        UsageError: another detector does.
    """
    if settings.detector.name != SIGMA:
        raise UsageError(f"{what} knows the rule sigma only, and the detector is {settings.detector.name}")

"""The detector that settings name, ready to judge."""

from collections.abc import Mapping

import msgspec

from peerwatch.detectors.judge import Judge, Judging
from peerwatch.detectors.sigma import Sigma
from peerwatch.network.errors import BadInput, UsageError
from peerwatch.runtime.settings import SIGMA, Detector, Settings


def judge_of(settings: Settings, origins: Mapping[str, str]) -> Judging:
    """What judges.

    Raises:
        UsageError: there is no such detector, or it does not take its parameters.
    """
    detector = settings.detector
    if detector.name == SIGMA:
        if detector.parameters:
            raise UsageError(
                f'{origins["detector.parameters"]}: sigma has no "detector.parameters"; its k is set as "detector.k"'
            )
        return Judge(Sigma(detector.exact_k()))
    from peerwatch.detectors.registry import make  # noqa: PLC0415 (most runs need none of it)
    from peerwatch.detectors.rule_judge import RuleJudge  # noqa: PLC0415

    if detector.k != Detector().k:
        raise UsageError(
            f'{origins["detector.k"]}: "detector.k" is that of sigma; set those of {detector.name} as'
            ' "detector.parameters"'
        )
    if settings.shadow:
        raise UsageError(f"{origins['shadow']}: a shadow recomputes sigma only; leave it out with {detector.name}")
    try:
        kept = msgspec.json.decode(msgspec.json.encode(detector.parameters))
    except (TypeError, ValueError, msgspec.MsgspecError):
        kept = None
    if kept != detector.parameters:  # a state directory could not tell whether they are the same
        raise UsageError(
            f'{origins["detector.parameters"]}: "detector.parameters" is {detector.parameters}; take finite numbers,'
            " text, true, false, lists and mappings"
        )
    try:
        return RuleJudge(make(detector.name, detector.parameters))
    except BadInput as error:
        origin = origins["detector.parameters" if detector.parameters else "detector.name"]
        raise UsageError(f"{origin}: {error}") from None


def check_sigma(settings: Settings, what: str) -> None:
    """See that sigma judges: what explains and compares knows no other rule.

    Raises:
        UsageError: another detector does.
    """
    if settings.detector.name != SIGMA:
        raise UsageError(f"{what} knows the rule sigma only, and the detector is {settings.detector.name}")

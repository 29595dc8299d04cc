"""The structured log, and the records that trace decisions."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np

from peerwatch.actors.judges import ModelActivated
from peerwatch.actors.messages import WindowQueries
from peerwatch.judging.adaptation import DriftNotice, Notice, ReleaseNotice
from peerwatch.judging.audit import Difference
from peerwatch.judging.judge import Mask, Reasons
from peerwatch.judging.sampling import sampled
from peerwatch.kernels import Int32s
from peerwatch.network.events import parse_event
from peerwatch.network.networks import Plan
from peerwatch.network.statistics import decimal
from peerwatch.runtime.log_target import LogTarget
from peerwatch.settings.model import ChallengerSettings, DetectorSettings, LogSettings, Rule

COMPARED: Final = ("last_hop", "membership", "scan", "partition")
"""The names of the costs that the planner compares, in the order of `Networks.expected`."""
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Logger:
    """A structlog logger that is created with the first record, because structlog is slow to import."""

    def __init__(self, settings: LogSettings, target: LogTarget) -> None:
        self._settings = settings
        self.target = target
        self._level = LEVELS[settings.level]

    def info(self, event: str, **fields: Any) -> None:
        """Write a record at level info."""
        if self._level <= LEVELS["info"]:
            self._structlog.info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write a record at level warning."""
        if self._level <= LEVELS["warning"]:
            self._structlog.warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Write a record at level error."""
        self._structlog.error(event, **fields)

    @cached_property
    def _structlog(self) -> Any:
        import structlog  # noqa: PLC0415

        processors: list[Any] = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("iso", key="logged_at"),
            structlog.processors.JSONRenderer(serializer=_json)
            if self._settings.format == "json"
            else structlog.dev.ConsoleRenderer(colors=self.target.has_colors(), timestamp_key="logged_at"),
        ]
        return structlog.wrap_logger(self.target, processors=processors)


def _json(record: dict[str, Any], **options: Any) -> bytes:
    """Encode a record as one JSON object. Text that is not valid Unicode, such as a file name, is escaped."""
    import orjson  # noqa: PLC0415

    try:
        return orjson.dumps(record, **options)
    except TypeError:
        escaped = {
            key: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
            for key, value in record.items()
        }
        return orjson.dumps(escaped, **options)


class DecisionLogger:
    """Writes the records that trace single decisions, at level info.

    `logs.decisions` selects the flagged decisions or all. The decisions of the configured users are logged too, and
    those in a sample that depends on sequence numbers only, so that every run logs the same ones.
    """

    def __init__(
        self,
        logger: Any,
        settings: LogSettings,
        detector: DetectorSettings,
        users: Int32s,
        challenger: ChallengerSettings | None = None,
    ) -> None:
        """Configure the log.

        `users` are the configured users as dense integers; `challenger` holds the settings of the second detector.
        """
        self._logger = logger
        self._detector = detector
        self._challenger = challenger or ChallengerSettings()
        enabled = settings.decisions != "none" and LEVELS[settings.level] <= LEVELS["info"]
        self.flagged = enabled
        self._all = enabled and settings.decisions == "all"
        self._sample = settings.sample if enabled else 0.0
        self._users = users if enabled else users[:0]

    def wanted(self, queries: WindowQueries) -> Mask:
        """The purchases to log whatever their verdict, as a mask of shape [q]."""
        wanted = np.full(len(queries.seq), self._all)
        if len(self._users):
            wanted |= np.isin(queries.events.user, self._users)
        if self._sample:
            wanted |= sampled(queries.seq, self._sample)
        return wanted

    def write(self, queries: WindowQueries, decisions: Sequence[Reasons]) -> None:
        """Write one record for each decision."""
        for decision in decisions:
            self._logger.info("decision", **self._record(queries, decision))

    def disagree(self, queries: WindowQueries, pairs: Sequence[tuple[Reasons, Reasons]]) -> None:
        """Write one record for each pair of differing decisions, the champion's and the challenger's."""
        if not self.flagged:
            return
        for champion, challenger in pairs:
            events, place = queries.events, champion.place
            self._logger.info(
                "disagreement",
                seq=int(queries.seq[place]),
                file=queries.file,
                line=int(events.line[place]),
                timestamp=moment(int(events.timestamp[place])),
                amount=decimal(champion.amount),
                champion=_verdict(champion, self._detector),
                challenger=_verdict(challenger, self._challenger),
            )

    def tell(self, who: str, notices: Sequence[Notice | ModelActivated]) -> None:
        """Write one record for each notice; `who` is "champion" or "challenger"."""
        for one in notices:
            if isinstance(one, ModelActivated):
                self._logger.info("model", who=who, **one._asdict())
            elif isinstance(one, DriftNotice):
                self._logger.warning("drift", who=who, seq=one.seq, **one.change._asdict())
            elif isinstance(one, ReleaseNotice):
                self._logger.info("release", who=who, **one._asdict())
            else:
                self._logger.info("labels", who=who, **one._asdict())

    def _record(self, queries: WindowQueries, decision: Reasons) -> dict[str, Any]:
        events, place, statistics = queries.events, decision.place, decision.statistics
        line = queries.content[events.start[place] : events.end[place]].removesuffix(b"\r")
        known = statistics.n > 0
        return {
            "seq": int(queries.seq[place]),
            "file": queries.file,
            "line": int(events.line[place]),
            "user": parse_event(line, queries.names).user.decode(),
            "timestamp": moment(int(events.timestamp[place])),
            "amount": decimal(decision.amount),
            "network_size": int(queries.networks.size[place]),
            "window_size": statistics.n,
            "mean": statistics.mean() if known else None,
            "sd": statistics.sd() if known else None,
            **_verdict(decision, self._detector),
            "plan": Plan(int(queries.networks.plan[place])).name.lower(),
            "plan_costs": dict(zip(COMPARED, queries.networks.expected[place].tolist(), strict=True)),
            "window_oldest": moment(decision.oldest),
            "window_newest": moment(decision.newest),
        }


def _verdict(decision: Reasons, rule: Rule) -> dict[str, Any]:
    """The fields of a verdict. Sigma's threshold is an amount; other detectors have a threshold for their score."""
    known = decision.statistics.n > 0 and decision.scoring is None
    record: dict[str, Any] = {
        "threshold": decision.statistics.threshold(rule.exact_k()) if known else None,
        "verdict": "flagged" if decision.flagged else "normal",
        "detector": rule.name,
    }
    if decision.scoring is not None:
        _, score, limit, model = decision.scoring
        record |= {"score": f"{score:.6g}", "score_threshold": f"{limit:.6g}"}
        record |= {"model": model} if model is not None else {}
    if decision.severity is not None:
        record["severity"] = decision.severity
    return record


class DifferenceLogger:
    """Writes the records of differences that an audit has found, at level error."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def write(self, differences: Sequence[Difference]) -> None:
        """Write one record for each difference."""
        for difference in differences:
            self._logger.error("audit difference", seq=difference.known.seq, **difference.fields())


def moment(micros: int | None) -> str | None:
    """Format microseconds since 1970 UTC as `2017-06-13T11:33:01.000000Z`."""
    return f"{np.datetime64(micros, 'us')}Z" if micros is not None else None

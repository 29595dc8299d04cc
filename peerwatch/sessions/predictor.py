"""A session model for programs: fit, save, load, and judge sessions one by one, in batches, or from a CSV file."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
from sklearn.pipeline import Pipeline

from peerwatch.errors import BadInput, UsageError
from peerwatch.readable import shown, why_unwritable
from peerwatch.sessions import leaks
from peerwatch.sessions.boosted_trees import BoostedTrees, is_boosted
from peerwatch.sessions.columns import (
    BadSessionRow,
    Floats,
    Mask,
    RawSessions,
    Schema,
    SessionTable,
    from_objects,
    labels_of,
    read_sessions,
    schema_of,
    sessions_of,
)
from peerwatch.sessions.features import GROUPS
from peerwatch.sessions.files import described, load_state, save_state
from peerwatch.sessions.leaks import LeakReport
from peerwatch.sessions.models import kind_of, score
from peerwatch.sessions.own_past import PastSessions
from peerwatch.sessions.pipeline import SessionFeatures, behind_features
from peerwatch.sessions.threshold import Calibration
from peerwatch.sessions.training import THREADS, TrainingOrder, trained

REASONS: Final = 3
LEAST_EFFECT: Final = 1e-9
FEW: Final = 64
"""Up to so many sessions, walking all trees at once is quicker than scikit-learn."""
CACHED: Final = 2_000
"""Sessions that are scored at once: each of hundreds of trees goes through them, so they should stay in the cache."""
AT_ONCE: Final = 100
"""Flagged sessions whose reasons are looked for at once, which bounds the memory."""
COLUMNS: Final = ("session_id", "is_anomaly", "probability", "confidence", "reasons")


class SessionResult(TypedDict):
    """What is said of a session. The reasons are those of a flagged one, the strongest first."""

    session_id: str
    is_anomaly: bool
    probability: float
    confidence: float
    reasons: list[str]


class BadSession(TypedDict):
    """What is said of a session that cannot be judged."""

    session_id: str
    error: str


class SessionScores:
    """The verdicts on the sessions of a table, as columns."""

    def __init__(
        self, table: SessionTable, score: Floats, calibration: Calibration, reasons: dict[int, list[str]]
    ) -> None:
        """`reasons` are by the sessions' places in the table."""
        self.table = table
        self.score = score
        self.flagged: Mask = score >= calibration.threshold
        self.probability = calibration.probability(score)
        self.confidence = calibration.confidence(score)
        self.reasons = reasons

    def results(self) -> list[SessionResult]:
        """A verdict a session."""
        columns = (self.table.session, self.flagged, self.probability, self.confidence)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [
            SessionResult(
                session_id=session,
                is_anomaly=flagged,
                probability=round(share, 6),
                confidence=round(sure, 6),
                reasons=[*self.reasons.get(place, ())],
            )
            for place, (session, flagged, share, sure) in enumerate(rows)
        ]


class SessionModel:
    """A model of sessions. After `fit` or `load` it judges."""

    def __init__(self, order: TrainingOrder | None = None, **options: Any) -> None:
        """What to train: a `TrainingOrder`, or its fields by name."""
        try:
            self.order = order if order is not None else TrainingOrder(**options)
        except TypeError as error:
            raise BadInput(f"{error}; the options are {', '.join(TrainingOrder.__struct_fields__)}") from None
        for name in self.order.without:
            if name not in GROUPS and name not in GROUPS.values():
                raise BadInput(f'there is no feature or group of features "{name}"')
        self.warnings: list[str] = []
        """What the reader of this model's figures has to know."""
        self.unseen: tuple[Floats, Mask | None] = (np.empty(0), None)
        """After `fit`: scores of the training sessions from models that had not seen them, and their labels."""

    def fit(
        self,
        sessions: Path | str | Sequence[Mapping[str, Any]] | RawSessions,
        label: str | None = None,
        *,
        allow_leak: bool = False,
        moved: Callable[[int, str], None] = lambda _, __: None,
    ) -> "SessionModel":
        """Train on a CSV file or on mappings, where the column `label`, if named, is 1 for anomalies and 0 for others.

        Raises:
            BadInput: a parameter is wrong, or there is too little to learn from.
            UsageError: the file cannot be read.
            LeakError: a column gives the label away.
        """
        raw, labels = raw_of(sessions), None
        if label is not None:
            raw, labels = labels_of(raw, label)
        schema = schema_of(raw)
        table, labels = with_labels(raw, schema, labels)
        if labels is not None:
            report = leaks.telling_columns(table, labels, raw.name)
            if not allow_leak:
                report.refuse()
            self.warnings += report.leaks
        parts = trained(table, labels, self.order, raw.name, moved)
        self.warnings += parts.warnings
        self.pipeline, self.calibration, self.schema = parts.pipeline, parts.calibration, schema
        self.typical, self.facts = parts.typical, parts.facts
        self._rows, self._users = leaks.row_digests(table), leaks.user_digests(table)
        self.unseen, self.trained_on, self.bad, self.notes = (parts.unseen, labels), table, table.bad, raw.notes
        self._prepare()
        return self

    def save(self, path: Path | str) -> None:
        """Write the model to a file, as a whole or not at all.

        Raises:
            BadInput: it has not been fitted.
            UsageError: the file cannot be written.
        """
        self._check_fitted()
        facts = {**self.facts, "warnings": self.warnings}
        envelope = described(self.order.model, self.schema, self.calibration, facts)
        state = {"pipeline": self.pipeline, "typical": self.typical, "rows": self._rows, "users": self._users}
        save_state(Path(path), envelope, state)

    @classmethod
    def load(cls, path: Path | str) -> "SessionModel":
        """The model in a file. Nothing is unpickled.

        Raises:
            UsageError: there is none, it was changed, is damaged, or was made by another version.
        """
        envelope, state = load_state(Path(path))
        try:
            model = cls(model=envelope.model, seed=envelope.facts["seed"], parameters=envelope.facts["parameters"])
            kind_of(envelope.model)
            model.facts = {name: value for name, value in envelope.facts.items() if name != "warnings"}
            model.warnings = list(envelope.facts["warnings"])
            model.calibration, model.schema, model.bad, model.notes = envelope.calibration, envelope.columns, [], []
            model.pipeline, model.typical = state["pipeline"], state["typical"]
            model._rows, model._users = state["rows"], state["users"]
            model._prepare()
        except (KeyError, AttributeError, TypeError, BadInput) as error:
            raise UsageError(f"{shown(path)} is not a whole session model ({error})") from None
        return model

    def predict_single(self, session: Mapping[str, Any], *, remember: bool = False) -> SessionResult:
        """Judge one session against what the model remembers of its user; with `remember` it becomes part of that.

        Raises:
            BadInput: a value of it cannot be read.
        """
        self._check_fitted()
        table = sessions_of(from_objects([session]), self.schema)
        if table.bad:
            raise BadInput(table.bad[0].reason)
        scores, later = self.followed(table, self.past)
        if remember:
            self.past.add(later)
        return scores.results()[0]

    def predict_batch(self, sessions: Sequence[Mapping[str, Any]]) -> list[SessionResult | BadSession]:
        """Judge sessions together, each against its user's earlier ones among them as well.

        What cannot be judged has an `error` instead of a verdict. The model remembers none of them.
        """
        scores = self.judge(from_objects(sessions))
        found: dict[int, SessionResult | BadSession] = dict(zip(scores.table.lines, scores.results(), strict=True))
        for bad in scores.table.bad:
            found[bad.line] = BadSession(session_id=bad.session, error=bad.reason)
        return [found[number] for number in range(1, len(sessions) + 1)]

    def predict_from_csv(self, path: Path | str, output: Path | str | None = None) -> SessionScores:
        """Judge the sessions of a CSV file, and write the verdicts to another if it is named.

        Raises:
            UsageError: one of them cannot be used.
        """
        scores = self.judge(read_sessions(Path(path)))
        if output is not None:
            write_text(predictions(scores), Path(output))
        return scores

    def judge(self, raw: RawSessions, *, reasons: bool = True) -> SessionScores:
        """Judge sessions; those that cannot be judged are in the table's `bad`."""
        self._check_fitted()
        return self.judge_table(sessions_of(raw, self.schema), reasons=reasons)

    def judge_table(self, table: SessionTable, *, reasons: bool = True) -> SessionScores:
        """Judge sessions that have been read by this model's schema."""
        return self.followed(table, self.past, reasons=reasons)[0]

    def followed(
        self, table: SessionTable, past: PastSessions, *, reasons: bool = True
    ) -> tuple[SessionScores, PastSessions]:
        """Judge sessions against a given past, and return that of their users with them."""
        matrix, after = self._features.followed(table, past)
        if not len(table):
            return SessionScores(table, np.empty(0), self.calibration, {}), after
        with THREADS.limit(limits=1):
            found = self._score(matrix)
            flagged = np.flatnonzero(found >= self.calibration.threshold)
            why: dict[int, list[str]] = {}
            for begin in range(0, len(flagged) if reasons else 0, AT_ONCE):
                part = flagged[begin : begin + AT_ONCE]
                effect = self.effects(matrix[part], found[part])
                for row, strongest, effects in zip(part.tolist(), np.argsort(-effect, axis=1), effect, strict=True):
                    why[row] = self._reasons(matrix[row], table, row, strongest[:REASONS], effects)
        return SessionScores(table, found, self.calibration, why), after

    def compared_with_training(self, table: SessionTable, name: str) -> LeakReport:
        """What a test table shares with the rows that the model was trained on."""
        return leaks.shared(table, self._rows, self._users, name)

    def is_seen(self, table: SessionTable) -> Mask:
        """Which rows are of users that the model was trained on."""
        return leaks.is_seen(table, self._users)

    def effects(self, matrix: Floats, found: Floats) -> Floats:
        """By how much each value raises the score above that with the typical value. Shape as `matrix`."""
        if self._trees is not None:
            return self._trees.effects(matrix, self.typical)
        count, width = matrix.shape
        changed = np.repeat(matrix[:, None, :], width, axis=1)
        changed[:, np.arange(width), np.arange(width)] = self.typical
        differs = (matrix != self.typical) & ~(np.isnan(matrix) & np.isnan(self.typical))
        effect = np.zeros((count, width))
        if differs.any():
            effect[differs] = np.repeat(found, differs.sum(axis=1)) - self._score(changed[differs])
        return effect

    def feature_names(self) -> list[str]:
        """The features in the order of the columns of the matrix, the categories last."""
        return [*self._features.names_, *self._features.categories_]

    def features_of(self, table: SessionTable) -> Floats:
        """The matrix of a table's features."""
        return self._features.transform(table)

    def get_model_info(self) -> dict[str, Any]:
        """What the model is: its kind, its columns and features, how it was trained, and what was warned of.

        Raises:
            BadInput: it has not been fitted.
        """
        self._check_fitted()
        limit = self.calibration.threshold
        share = round(float(self.calibration.probability(np.array([limit]))[0]), 6)
        return {
            "model": self.order.model, **self.facts, "score_threshold": limit,
            "probability_threshold": share,
            "columns": [*self.schema.numbers, *self.schema.categories], "ignored_columns": list(self.schema.ignored),
            "features": self.feature_names(), "known_users": len(self._users), "warnings": self.warnings,
        }  # fmt: skip

    def _score(self, matrix: Floats) -> Floats:
        if self._trees is not None and len(matrix) <= FEW:
            return self._trees.log_odds(matrix)
        parts = [matrix[begin : begin + CACHED] for begin in range(0, len(matrix), CACHED)]
        return np.concatenate([score(self._behind, part, supervised=self._supervised) for part in parts])

    def _prepare(self) -> None:
        self._features: SessionFeatures = self.pipeline[0]
        self._behind: Pipeline = behind_features(self.pipeline)
        self.past = self._features.past()
        is_quick = is_boosted(self._behind[-1])
        self._trees = BoostedTrees(self._behind, len(self._features.names_)) if is_quick else None
        self._supervised = kind_of(self.order.model).supervised

    def _check_fitted(self) -> None:
        if not hasattr(self, "_behind"):
            raise BadInput("the model has not been fitted; call fit first, or load one")

    def _reasons(self, row: Floats, table: SessionTable, at: int, strongest: Any, effects: Floats) -> list[str]:
        names, count = self.feature_names(), len(self._features.names_)
        texts = []
        for place in strongest.tolist():
            if effects[place] <= LEAST_EFFECT:
                break
            if place < count:
                texts.append(f"{names[place]} {_plain(row[place])} (typically {_plain(self.typical[place])})")
            else:
                texts.append(f"{names[place]} {table.text(names[place])[at] or 'missing'}")
        return texts


def _plain(value: float) -> str:
    return "missing" if np.isnan(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def raw_of(sessions: Path | str | Sequence[Mapping[str, Any]] | RawSessions) -> RawSessions:
    """Sessions as they came: from a CSV file, or from mappings."""
    if isinstance(sessions, RawSessions):
        return sessions
    return read_sessions(Path(sessions)) if isinstance(sessions, str | Path) else from_objects(sessions)


def with_labels(raw: RawSessions, schema: Schema, labels: Mask | None) -> tuple[SessionTable, Mask | None]:
    """The sessions that can be read, and their labels."""
    table = sessions_of(raw, schema)
    if labels is None or len(table) == len(labels):
        return table, labels
    place = {line: row for row, line in enumerate(raw.lines)}
    return table, labels[[place[line] for line in table.lines]]


def predictions(scores: SessionScores) -> str:
    """The verdicts as CSV with a header line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in scores.results():
        writer.writerow([
            result["session_id"], int(result["is_anomaly"]), result["probability"], result["confidence"],
            "; ".join(result["reasons"]),
        ])  # fmt: skip
    return out.getvalue()


def write_text(text: str, output: Path) -> None:
    """Write a file.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        output.write_text(text, "utf-8", newline="")
    except OSError as error:
        raise UsageError(f"cannot write {shown(output)}: {why_unwritable(output, error)}") from None


def write_bad_rows(bad: Sequence[BadSessionRow], output: Path) -> None:
    """Write the rows that cannot be judged as CSV.

    Raises:
        UsageError: the file cannot be written.
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([BadSessionRow._fields, *bad])
    write_text(out.getvalue(), output)

"""What the commands do: train a model and say how well it does, evaluate a saved one, judge new sessions."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from peerwatch.errors import BadInput, UsageError
from peerwatch.progress import Progress
from peerwatch.readable import shown, why_unwritable
from peerwatch.sessions import leaks
from peerwatch.sessions.columns import (
    USER,
    Mask,
    RawSessions,
    SessionTable,
    ids_of,
    labels_of,
    read_sessions,
    schema_of,
    sessions_of,
)
from peerwatch.sessions.features import GROUPS
from peerwatch.sessions.files import read_envelope
from peerwatch.sessions.predictor import SessionModel, SessionScores, with_labels
from peerwatch.sessions.report import SessionFigures, bad_rows_told, figures
from peerwatch.sessions.training import TrainingOrder


class SessionTraining(NamedTuple):
    """What to train, on which sessions, and on which ones to see how well it does."""

    table: Path
    label: str | None
    order: TrainingOrder
    without: tuple[str, ...] = ()
    """Columns, features or groups of features."""
    hold_out: float = 0.0
    """The share of users that are left out, to judge their sessions."""
    test: Path | None = None
    unseen_users: bool = False
    allow_leak: bool = False


class JudgedSessions(NamedTuple):
    """A table's verdicts, and its labels if it has some."""

    name: str
    scores: SessionScores
    labels: Mask | None

    def figures(self) -> SessionFigures | None:
        """How well they agree; None without labels or sessions."""
        if self.labels is None or not len(self.labels):
            return None
        return figures(self.scores.score, self.scores.flagged, self.labels)


class TrainedStudy(NamedTuple):
    """A trained model, what has to be told before any figure, and what it was judged on, the last most telling."""

    model: SessionModel
    told: list[str]
    judged: list[JudgedSessions]


def train(request: SessionTraining, progress: Progress) -> TrainedStudy:
    """Look for leaks, train, and judge what the model has not seen.

    Raises:
        UsageError: a file, a column or a parameter cannot be used.
        LeakError: the data leaks and that is not allowed.
    """
    with usage_errors():
        columns = tuple(name for name in request.without if not is_feature(name))
        order = _with_features(request.order, tuple(name for name in request.without if is_feature(name)))
        raw = read_sessions(request.table, columns)
        held = None
        if request.hold_out and request.label is not None:
            raw, held = _divided(raw, request)
        report, test = _look_for_leaks(raw, request)
        if not request.allow_leak:
            report.refuse()
        model = SessionModel(order)
        with progress.progress(order.search or None):
            model.fit(raw, request.label, allow_leak=True, moved=progress.moved)
        told = [*raw.notes, *report.leaks, *report.warnings]
        told += [sentence for sentence in model.warnings if sentence not in told]
        if model.bad:
            told.append(bad_rows_told(model.bad, raw.name, len(raw) + len(raw.bad)))
        if model.schema.ignored:
            told.append(f"{raw.name}: no category and no number, so ignored: {', '.join(model.schema.ignored)}")
        judged = [_unseen(model, raw.name)]
        if held is not None and request.label is not None:
            judged.append(_judged(model, *labels_of(held, request.label), f"users held out of {raw.name}"))
        if test is not None and request.label is not None:
            found, sentences = _tested(model, test, request.label, unseen_users=request.unseen_users)
            told += [sentence for sentence in sentences if sentence not in told]
            judged.append(found)
        return TrainedStudy(model, told, judged)


def evaluate(
    model: SessionModel, path: Path, label: str, *, unseen_users: bool, allow_leak: bool
) -> tuple[JudgedSessions, list[str]]:
    """Judge labelled sessions, and what has to be told before the figures.

    Raises:
        UsageError: the file or the label cannot be used.
        LeakError: the model has seen the sessions, or a column gives the label away, and that is not allowed.
    """
    with usage_errors():
        raw = read_sessions(path)
        rest, labels = labels_of(raw, label)
        table, kept = with_labels(rest, model.schema, labels)
        report = leaks.telling_columns(table, _known(kept), raw.name)
        if unseen_users:
            new = ~model.is_seen(table)
            table = table.taken(new)
        report = report.with_more(model.compared_with_training(table, raw.name))
        if not allow_leak:
            report.refuse()
        found, sentences = _tested(model, raw, label, unseen_users=unseen_users)
        told = [*raw.notes, *report.leaks, *report.warnings]
        return found, [*told, *(sentence for sentence in sentences if sentence not in told)]


def predict(model: SessionModel, path: Path) -> tuple[SessionScores, list[str]]:
    """Judge new sessions, and what has to be told of them.

    Raises:
        UsageError: the file cannot be used.
    """
    with usage_errors():
        raw = read_sessions(path)
        scores = model.judge(raw)
        told = list(raw.notes)
        known = {*model.schema.numbers, *model.schema.categories}
        if absent := sorted(known - raw.columns.keys()):
            told.append(f"{raw.name} lacks columns that the model knows, so they count as missing: {', '.join(absent)}")
        if scores.table.bad:
            told.append(bad_rows_told(scores.table.bad, raw.name, len(raw) + len(raw.bad)))
        return scores, told


def check_target(path: Path) -> None:
    """See that a model may be written to a path: nothing is there, or a session model.

    Raises:
        UsageError: something else is there, or there is no such directory.
    """
    check_directory(path)
    if path.exists():
        try:
            read_envelope(path)
        except UsageError as error:
            raise UsageError(f"{shown(path)} is there and no session model; name another file ({error})") from None


def check_directory(path: Path) -> None:
    """See that there is a directory for a file that is written after the training.

    Raises:
        UsageError: there is none.
    """
    if not path.parent.is_dir():
        why = why_unwritable(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
        raise UsageError(f"cannot write {shown(path)}: {why}")


def is_feature(name: str) -> bool:
    """Whether a name is that of a group of features, or of a feature that is no column."""
    return name in GROUPS.values() or (name in GROUPS and GROUPS[name] != "volume") or name == "total_events"


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a wrong value into an error of the command."""
    try:
        yield
    except BadInput as error:
        raise UsageError(str(error)) from None


def _with_features(order: TrainingOrder, without: tuple[str, ...]) -> TrainingOrder:
    return msgspec.structs.replace(order, without=(*order.without, *without))


def _known(labels: Mask | None) -> Mask:
    return labels if labels is not None else np.empty(0, np.bool_)


def _divided(raw: RawSessions, request: SessionTraining) -> tuple[RawSessions, RawSessions]:
    """The sessions to train on, and those of the users that are held out.

    Raises:
        BadInput: the sessions have no users.
    """
    users = ids_of(raw.columns.get(USER), len(raw)).tolist()
    names = sorted(set(users) - {""})
    if len(names) < 2:
        raise BadInput(f"{raw.name} has {len(names)} users; --hold-out needs a column user_id with more")
    drawn = np.random.default_rng(request.order.seed).permutation(len(names))
    out = {names[place] for place in drawn[: max(1, round(request.hold_out * len(names)))].tolist()}
    held = [row for row, user in enumerate(users) if user in out]
    kept = [row for row, user in enumerate(users) if user not in out]
    return raw.taken(kept), raw.taken(held)


def _look_for_leaks(raw: RawSessions, request: SessionTraining) -> tuple[leaks.LeakReport, RawSessions | None]:
    """What leaks within the training data, and between it and the test."""
    report = leaks.LeakReport([], [])
    if request.label is None:
        return report, None
    rest, labels = labels_of(raw, request.label)
    schema = schema_of(rest)
    table, kept = with_labels(rest, schema, labels)
    report = leaks.telling_columns(table, _known(kept), raw.name)
    if request.test is None:
        return report, None
    columns = tuple(name for name in request.without if not is_feature(name))
    test = read_sessions(request.test, columns)
    tested, test_labels = labels_of(test, request.label)
    test_table, kept = with_labels(tested, schema, test_labels)
    report = report.with_more(leaks.telling_columns(test_table, _known(kept), test.name))
    rows, users = leaks.row_digests(table), leaks.user_digests(table)
    if request.unseen_users:
        test_table = test_table.taken(~leaks.is_seen(test_table, users))
    return report.with_more(leaks.shared(test_table, rows, users, test.name)), test


def _unseen(model: SessionModel, name: str) -> JudgedSessions:
    """The training sessions as judged by models that had not seen them (without labels, by the model itself)."""
    score, labels = model.unseen
    title = f"{name}, cross-validated" if labels is not None else name
    return JudgedSessions(title, SessionScores(model.trained_on, score, model.calibration, {}), labels)


def _judged(model: SessionModel, raw: RawSessions, labels: Mask, name: str) -> JudgedSessions:
    table, kept = with_labels(raw, model.schema, labels)
    return JudgedSessions(name, model.judge_table(table, reasons=False), kept)


def _tested(
    model: SessionModel, raw: RawSessions, label: str, *, unseen_users: bool
) -> tuple[JudgedSessions, list[str]]:
    rest, labels = labels_of(raw, label)
    table = sessions_of(rest, model.schema)
    _, kept = with_labels(rest, model.schema, labels)
    told, name = [], raw.name
    if table.bad:
        told.append(bad_rows_told(table.bad, name, len(raw) + len(raw.bad)))
    scores = model.judge_table(table, reasons=False)
    found = _known(kept)
    if unseen_users:
        new = ~model.is_seen(table)
        if not new.any():
            raise BadInput(f"all users of {name} were in the training data; train with --hold-out to keep some out")
        scores = _scores_of(scores, table, new, model)
        found, name = found[new], f"{name}, users that were not in the training data"
    return JudgedSessions(name, scores, found), told


def _scores_of(scores: SessionScores, table: SessionTable, rows: Mask, model: SessionModel) -> SessionScores:
    return SessionScores(table.taken(rows), scores.score[rows], model.calibration, {})


def plain_numbers(found: SessionFigures | None) -> dict[str, Any]:
    """Figures by name, those that there are."""
    return {} if found is None else {k: v for k, v in msgspec.structs.asdict(found).items() if v is not None}

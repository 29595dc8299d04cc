"""The figures of docs/sessions.md, from seeds: the published protocol, users held out, generated ones, real people."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from peerwatch.errors import UsageError
from peerwatch.progress import Progress
from peerwatch.readable import shown
from peerwatch.sessions.columns import (
    Floats,
    Mask,
    RawSessions,
    SessionTable,
    from_objects,
    labels_of,
    read_sessions,
    schema_of,
    sessions_of,
)
from peerwatch.sessions.features import GROUPS
from peerwatch.sessions.generator import HEADER, SessionOrder, sessions
from peerwatch.sessions.models import SESSION_MODELS
from peerwatch.sessions.predictor import SessionModel
from peerwatch.sessions.report import figures, precision_at
from peerwatch.sessions.training import THREADS

PARTS_OF_USERS: Final = 5
"""Parts of the users; each is held out once."""
WANTED_RECALL: Final = 0.93
TOTALS: Final = ("events", "right", "drags")
"""What depends on how long a session was recorded, which differs between training and test there."""
PUBLISHED: Final = {"precision": 0.097, "recall": 0.955, "f1": 0.176, "roc_auc": 0.80}


class BenchmarkRow(msgspec.Struct, frozen=True):
    """The figures of one model; None where there is none. `precision_at` is the precision at a recall of 0.93."""

    name: str
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    roc_auc: float | None = None
    precision_at: float | None = None


class BenchmarkPart(msgspec.Struct, frozen=True):
    """Some models on the same data."""

    name: str
    title: str
    about: str
    rows: list[BenchmarkRow]


class LabelledSessions(NamedTuple):
    """Sessions as they came, and their labels."""

    raw: RawSessions
    labels: Mask

    def taken(self, rows: Mask) -> "LabelledSessions":
        """Some of the rows."""
        return LabelledSessions(self.raw.taken(np.flatnonzero(rows).tolist()), self.labels[rows])

    def users(self) -> list[str]:
        """Whose each session is."""
        return [str(user) for user in self.raw.columns["user_id"]]

    def with_label(self) -> RawSessions:
        """The sessions with their labels as a column."""
        columns = {**self.raw.columns, "label": self.labels.astype(int).tolist()}
        return RawSessions(self.raw.name, columns, self.raw.lines, [], [])


def run(directory: Path | None, only: tuple[str, ...], seed: int, progress: Progress) -> list[BenchmarkPart]:
    """Measure what there is data for.

    Raises:
        UsageError: a part does not exist, or its tables are not in the directory.
    """
    for name in only:
        if name not in PARTS:
            raise UsageError(f"there is no part {name}; there are {', '.join(PARTS)}")
    chosen = [name for name in PARTS if not only or name in only]
    found = []
    with progress.progress(len(chosen)):
        for number, name in enumerate(chosen, 1):
            part = PARTS[name]
            missing = [each for each in part.files if directory is None or not (directory / each).exists()]
            if missing and name in only:
                raise UsageError(f"{name} needs {', '.join(missing)} in the directory {shown(directory or '')}")
            if missing:
                progress.warning(f"{name} is left out: {', '.join(missing)} not found")
            else:
                tables = [read_sessions(directory / each) for each in part.files] if directory is not None else []
                found.append(BenchmarkPart(name, part.title, part.about, [*part.measure(tables, seed)]))
            progress.moved(number, name)
    return found


def as_markdown(parts: list[BenchmarkPart]) -> str:
    """Tables."""
    lines: list[str] = []
    for part in parts:
        last = any(row.precision_at is not None for row in part.rows)
        lines += [f"### {part.title}", "", part.about, ""]
        lines += [
            f"| model | precision | recall | F1 | ROC-AUC |{f' precision at recall {WANTED_RECALL} |' * last}",
            f"|---|--:|--:|--:|--:|{'--:|' * last}",
        ]
        for row in part.rows:
            cells = [row.precision, row.recall, row.f1, row.roc_auc, *([row.precision_at] * last)]
            shown_cells = " | ".join("" if cell is None else f"{cell:.3f}" for cell in cells)
            lines.append(f"| {row.name} | {shown_cells} |")
        lines.append("")
    return "\n".join(lines)


def published(tables: list[RawSessions], seed: int) -> Iterator[BenchmarkRow]:
    """The published protocol, and the same models on rows that they have not seen."""
    train, test = (_labelled(table) for table in tables)
    yield BenchmarkRow("published", **PUBLISHED)
    for name, judge in (*_NAIVE.items(), ("ours, random_forest", _ours("random_forest", seed))):
        score, flagged = judge(train, test, seed)
        yield _row(name, score, flagged, test.labels)
    for name, judge in (*_NAIVE.items(), ("ours, random_forest", _ours("random_forest", seed))):
        score, flagged = _held_out(train, test, seed, judge)
        yield _row(f"{name}, unseen users", score, flagged, test.labels)


def held_out(tables: list[RawSessions], seed: int) -> Iterator[BenchmarkRow]:
    """Each fifth of the users judged by models of the others."""
    train, test = (_labelled(table) for table in tables)
    score, flagged = _held_out(train, test, seed, _naive_forest)
    yield _row("random forest on raw columns, threshold 0.5", score, flagged, test.labels)
    for name in SESSION_MODELS:
        score, flagged = _held_out(train, test, seed, _ours(name, seed, expect=0.05))
        yield _row(name, score, flagged, test.labels)


def generated(_: list[RawSessions], seed: int) -> Iterator[BenchmarkRow]:
    """Trained where 40 % are anomalous, used where 4 % are, other users."""
    train = made(SessionOrder(anomalies=0.4, seed=seed, users_seed=seed))
    test = made(SessionOrder(anomalies=0.04, seed=seed + 1000, users_seed=seed + 1000))
    score, flagged = _naive_forest(train, test, seed)
    yield _row("random forest on raw columns, threshold 0.5", score, flagged, test.labels, at=True)
    for name in SESSION_MODELS:
        score, flagged = _ours(name, seed, expect=0.04)(train, test, seed)
        yield _row(name, score, flagged, test.labels, at=True)
    score, flagged = _ours("hist_gradient_boosting", seed, expect=0.04, own_past=False)(train, test, seed)
    yield _row("hist_gradient_boosting without the own past", score, flagged, test.labels, at=True)


def real_people(tables: list[RawSessions], seed: int) -> Iterator[BenchmarkRow]:
    """A model a user, the mean of their areas: of what is normal, or of this user against the others."""
    raw = tables[0]
    kinds = np.array(raw.columns["kind"], object)
    columns = {name: values for name, values in raw.columns.items() if name not in {"kind", "name"}}
    plain = RawSessions(raw.name, columns, raw.lines, [], [])
    train = plain.taken(np.flatnonzero(kinds == "train").tolist())
    test = _labelled(plain.taken(np.flatnonzero(kinds == "test").tolist()))
    for name, kind in SESSION_MODELS.items():
        areas = []
        without = ("volume",) if kind.supervised else tuple(sorted({*GROUPS.values()}))
        for user in sorted(set(test.users())):
            own = np.array(train.columns["user_id"], object) == user
            tested = test.taken(np.array(test.users(), object) == user)
            model = SessionModel(model=name, seed=seed, own_past=False, without=without)
            rows = train if kind.supervised else train.taken(np.flatnonzero(own).tolist())
            learned = {each: values for each, values in rows.columns.items() if each not in {*TOTALS, "label"}}
            if kind.supervised:
                learned["stranger"] = (~own).astype(int).tolist()
            fitted = RawSessions(raw.name, learned, rows.lines, [], [])
            model.fit(fitted, "stranger" if kind.supervised else None, allow_leak=True)
            found = model.judge(tested.raw, reasons=False)
            areas.append(figures(found.score, found.flagged, tested.labels).roc_auc or 0.5)
        how = "one user against the others" if kind.supervised else "a model of each user's normal sessions"
        yield BenchmarkRow(f"{name}, {how}", roc_auc=round(float(np.mean(areas)), 6))


class _Part(NamedTuple):
    files: tuple[str, ...]
    title: str
    about: str
    measure: Callable[[list[RawSessions], int], Iterator[BenchmarkRow]]


PARTS: Final[Mapping[str, _Part]] = {
    "published": _Part(
        ("balanced_40.csv", "behavior_4.csv"),
        "The published protocol",
        "Trained on `balanced_40.csv`, tested on `behavior_4.csv`, which holds the same 5,000 rows; below, each fifth\n"
        "of the users judged by models of the others.",
        published,
    ),
    "held-out": _Part(
        ("multifeature_40.csv", "multifeature_5.csv"),
        "Users held out",
        "Each fifth of the users of `multifeature_5.csv` judged by models of the other users in `multifeature_40.csv`.",
        held_out,
    ),
    "generated": _Part(
        (),
        "Generated sessions",
        "Trained where 40 % are anomalous, used where 4 % are; other users. An anomaly is a heavy user's session in\n"
        "somebody else's account.",
        generated,
    ),
    "real-people": _Part(
        ("balabit_sessions.csv",),
        "Real people at the mouse",
        "Ten people, a model for each, the mean of ten areas. Sessions were recorded for longer in the test, so what\n"
        "depends on their length is left out; models of what is normal get the recorded rates alone.",
        real_people,
    ),
}


def made(order: SessionOrder) -> LabelledSessions:
    """Generated sessions."""
    rows = [dict(zip(HEADER, row, strict=True)) for row in sessions(order)]
    return _labelled(from_objects(rows, "the generated sessions"))


def _labelled(raw: RawSessions) -> LabelledSessions:
    return LabelledSessions(*labels_of(raw, "label"))


def _ours(
    name: str, seed: int, *, expect: float | None = None, own_past: bool | None = None
) -> Callable[[LabelledSessions, LabelledSessions, int], tuple[Floats, Mask]]:
    def judge(train: LabelledSessions, test: LabelledSessions, _: int) -> tuple[Floats, Mask]:
        model = SessionModel(model=name, expect=expect, seed=seed, own_past=own_past)
        model.fit(train.with_label(), "label", allow_leak=True)
        found = model.judge(test.raw, reasons=False)
        return found.score, found.flagged

    return judge


def _held_out(
    train: LabelledSessions,
    test: LabelledSessions,
    seed: int,
    judge: Callable[[LabelledSessions, LabelledSessions, int], tuple[Floats, Mask]],
) -> tuple[Floats, Mask]:
    """Scores and verdicts on each test session, by models of other users.

    A score counts by its rank among those of the same model: models of different users have scores of their own.
    """
    names = sorted({*train.users(), *test.users()})
    shuffled = np.random.default_rng(seed).permutation(names).tolist()
    group = dict(zip(shuffled, np.arange(len(names)) % PARTS_OF_USERS, strict=True))
    of_train, of_test = (np.array([group[user] for user in each.users()]) for each in (train, test))
    score, flagged = np.zeros(len(test.labels)), np.zeros(len(test.labels), np.bool_)
    for part in range(PARTS_OF_USERS):
        held = of_test == part
        found, flagged[held] = judge(train.taken(of_train != part), test.taken(held), seed)
        score[held] = np.unique(found, return_inverse=True)[1] / max(len(np.unique(found)) - 1, 1)
    return score, flagged


def _row(name: str, score: Floats, flagged: Mask, labels: Mask, *, at: bool = False) -> BenchmarkRow:
    found = figures(score, flagged, labels)
    wanted = round(precision_at(score, labels, WANTED_RECALL), 6) if at else None
    return BenchmarkRow(name, found.precision, found.recall, found.f1, found.roc_auc, wanted)


def _raw_columns(table: SessionTable, codes: Mapping[str, Mapping[str, int]]) -> Floats:
    """What a naive model would be given: the numbers, the hour, and a number for each category."""
    hour = np.nan_to_num(table.wall % 86_400 // 3600)
    texts = [[float(known.get(text, -1)) for text in table.text(name).tolist()] for name, known in codes.items()]
    return np.column_stack([*(np.nan_to_num(column) for column in table.numbers.values()), hour, *texts])


def _naive_columns(train: LabelledSessions, test: LabelledSessions) -> tuple[Floats, Floats, int]:
    schema = schema_of(train.raw)
    tables = [sessions_of(each.raw, schema, unique=False) for each in (train, test)]
    codes = {
        name: {text: place for place, text in enumerate(sorted(set(texts.tolist())))}
        for name, texts in tables[0].categories.items()
    }
    first, second = (_raw_columns(table, codes) for table in tables)
    return first, second, len(tables[0].numbers) + 1


def _naive_forest(train: LabelledSessions, test: LabelledSessions, seed: int) -> tuple[Floats, Mask]:
    first, second, _ = _naive_columns(train, test)
    share = RandomForestClassifier(100, random_state=seed).fit(first, train.labels).predict_proba(second)[:, 1]
    return share, share > 0.5


def _nearest(train: LabelledSessions, test: LabelledSessions, _: int) -> tuple[Floats, Mask]:
    first, second, numbers = _naive_columns(train, test)
    scaler = StandardScaler().fit(first[:, :numbers])
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(first[:, numbers:])
    rows = [
        np.hstack([scaler.transform(each[:, :numbers]), encoder.transform(each[:, numbers:])])
        for each in (first, second)
    ]
    with THREADS.limit(limits=1):
        share = KNeighborsClassifier(1).fit(rows[0], train.labels).predict_proba(rows[1])[:, 1]
    return share, share > 0.5


_NAIVE: Final[Mapping[str, Callable[[LabelledSessions, LabelledSessions, int], tuple[Floats, Mask]]]] = {
    "one nearest neighbour on raw columns": _nearest,
    "random forest on raw columns": _naive_forest,
}

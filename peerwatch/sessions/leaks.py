"""Ways in which a test says nothing: rows that the model has seen, columns that hold the label, labels without cause.

Everything is told before any score. `LeakReport.refuse` ends the work unless a leak is explicitly allowed.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.errors import LeakError
from peerwatch.sessions.columns import Floats, Mask, SessionTable

Digests = NDArray[np.uint64]

UNIQUE: Final = 0.99
"""With so many distinct rows, two that are the same are copies and no coincidence."""
TELLING: Final = 0.98
"""A column that predicts both classes as well as this on its own, on average, holds the label."""
DEPTH: Final = 3
LEAST_OF_EACH: Final = 10
"""Without so many rows of each class, nobody can say what tells them apart."""
SEED: Final = 1


class LeakReport(NamedTuple):
    """What is wrong with the data: what makes every figure worthless, and what the reader of figures has to know."""

    leaks: list[str]
    warnings: list[str]

    def with_more(self, other: "LeakReport") -> "LeakReport":
        """Both."""
        return LeakReport([*self.leaks, *other.leaks], [*self.warnings, *other.warnings])

    def refuse(self) -> None:
        """End the work if there is a leak.

        Raises:
            LeakError: there is one.
        """
        if self.leaks:
            raise LeakError(
                f"{'; '.join(self.leaks)}. Figures from this say nothing; --allow-leak computes them anyway"
            )


def row_digests(table: SessionTable, *, with_session: bool = False) -> Digests:
    """A number for each row that is the same for the same values in all columns; the session's name does not count."""
    numbers = np.column_stack([table.seconds, *(table.numbers[name] for name in sorted(table.numbers))]) + 0.0
    columns = [table.user, *(table.categories[name] for name in sorted(table.categories))]
    if with_session:
        columns.append(table.session)
    texts = zip(*(column.tolist() for column in columns), strict=True)
    return _digests(
        row.tobytes() + "\0".join(text).encode(errors="surrogatepass") for row, text in zip(numbers, texts, strict=True)
    )


def user_digests(table: SessionTable) -> Digests:
    """A number for each user, ascending."""
    users = sorted({user for user in table.user.tolist() if user})
    return np.sort(_digests(user.encode(errors="surrogatepass") for user in users))


def shared(test: SessionTable, rows: Digests, users: Digests, name: str) -> LeakReport:
    """What a test shares with the rows and users that a model was trained on."""
    leaks, warnings = [], []
    count = int(np.isin(row_digests(test), rows).sum())
    distinct = len(np.unique(rows)) >= UNIQUE * len(rows)
    if count and distinct:
        leaks.append(f"{count:,} of the {len(test):,} rows of {name} are rows that the model was trained on")
    elif count:
        warnings.append(
            f"{count:,} of the {len(test):,} rows of {name} are as rows that the model was trained on; so many rows are"
            " equal that this may be a coincidence"
        )
    known = int(np.isin(user_digests(test), users).sum())
    if known:
        warnings.append(
            f"{known:,} users of {name} were in the training data as well: figures are those for known users;"
            " --unseen-users leaves them out"
        )
    return LeakReport(leaks, warnings)


def is_seen(test: SessionTable, users: Digests) -> Mask:
    """Which rows are of users that the model was trained on, or of no user."""
    each = _digests(user.encode(errors="surrogatepass") for user in test.user.tolist())
    return np.asarray(np.isin(each, users) | (test.user == ""), np.bool_)


def telling_columns(table: SessionTable, labels: Mask, name: str) -> LeakReport:
    """The columns that give the label away, each on its own."""
    if min(labels.sum(), (~labels).sum()) < LEAST_OF_EACH:
        return LeakReport([], [])
    leaks = []
    for column, values in _columns(table):
        if (share := _balanced_accuracy(values, labels)) >= TELLING:
            leaks.append(
                f'the column "{column}" of {name} gives the label away: alone it tells {share:.1%} of each class'
            )
    return LeakReport(leaks, [])


def unexplained(area: float, labels: Mask, name: str) -> LeakReport:
    """A warning if the area under the ROC curve, on unseen rows, may as well be that of chance."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    error = np.sqrt((positives + negatives + 1) / (12 * positives * negatives))  # of the area, if nothing is explained
    if area - 0.5 > 3 * error and area >= 0.55:
        return LeakReport([], [])
    return LeakReport(
        [],
        [
            (
                f"no feature explains the labels of {name}: on unseen rows the area under the ROC curve is {area:.3f},"
                " which is chance; a good figure from this data is memory"
            )
        ],
    )


def _columns(table: SessionTable) -> Iterator[tuple[str, Floats]]:
    yield from table.numbers.items()
    for name, texts in table.categories.items():
        known = {text: float(place) for place, text in enumerate(sorted(set(texts.tolist())))}
        yield name, np.array([known[text] for text in texts.tolist()])


def _balanced_accuracy(values: Floats, labels: Mask) -> float:
    """How well a shallow tree on one column tells both classes apart, on rows that it has not seen."""
    from sklearn.metrics import balanced_accuracy_score  # noqa: PLC0415 (an extra, and slow to import)
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: PLC0415
    from sklearn.tree import DecisionTreeClassifier  # noqa: PLC0415

    if len(np.unique(values)) < 2:
        return 0.5
    tree = DecisionTreeClassifier(max_depth=DEPTH, class_weight="balanced", random_state=SEED)
    folds = StratifiedKFold(3, shuffle=True, random_state=SEED)
    found: Any = cross_val_predict(tree, np.nan_to_num(values, nan=-1e31)[:, None].astype(np.float32), labels, cv=folds)
    return float(balanced_accuracy_score(labels, found))


def _digests(texts: Iterator[bytes]) -> Digests:
    return np.array([int.from_bytes(blake2b(text, digest_size=8).digest()) for text in texts], np.uint64)

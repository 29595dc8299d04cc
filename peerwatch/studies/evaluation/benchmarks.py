"""Public benchmarks: labelled tables as those of ADBench (Han et al., 2022), which lie in a folder.

Each detector is fitted on a whole table and scores it, as is usual there: it never sees the labels.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from peerwatch.detectors.base import Floats, Mask
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.errors import BadInput, RunError, UsageError
from peerwatch.progress import Progress
from peerwatch.readable import shown
from peerwatch.studies.evaluation.metrics import ranked, rounded

FOLDER: Final = "adbench"
MEASURED: Final = "measured.csv"
"""PyOD's figures on the same tables, if they are there: columns `set`, `method` (as od:KNN), `auc` and `ap`."""
PYOD: Final = {
    "isolation_forest": "iforest:IForest",
    "one_class_svm": "ocsvm:OCSVM",
    "lof": "lof:LOF",
    "knn": "knn:KNN",
    "mcd": "mcd:MCD",
    "gmm": "gmm:GMM",
    "pca": "pca:PCA",
    "hbos": "hbos:HBOS",
    "ecod": "ecod:ECOD",
    "copod": "copod:COPOD",
    "inne": "inne:INNE",
}
"""PyOD's class for each of our detectors that it has as well."""
SLOW: Final = ("variational_autoencoder", "lstm_autoencoder")
"""Detectors that take minutes to be trained on all tables: measured only if they are named."""
SEED: Final = 1
MOST_ROWS: Final = 10_000
"""The most rows of a table. From more rows this many are drawn."""


class BenchmarkTable(NamedTuple):
    """A labelled table: rows of shape [n, columns], labels of shape [n]."""

    name: str
    rows: Floats
    labels: Mask


class BenchmarkResult(msgspec.Struct, frozen=True, kw_only=True):
    """How well a method ranks the rows of a table. If it failed, `failed` is the reason, and there are no figures."""

    table: str
    method: str
    roc_auc: float | None = None
    pr_auc: float | None = None
    failed: str | None = None


class BenchmarkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The results of all methods on all tables. Those of other libraries are called `library name`."""

    tables: list[str]
    results: list[BenchmarkResult]


def read_tables(folder: Path) -> list[BenchmarkTable]:
    """Read the tables of a folder, or of its folder `adbench`: each an `.npz` file with the arrays `X` and `y`.

    Raises:
        UsageError: there is none, or one cannot be used.
    """
    within = folder / FOLDER
    paths = sorted((within if within.is_dir() else folder).glob("*.npz"), key=lambda path: path.stem)
    if not paths:
        raise UsageError(f"{shown(folder)} holds no benchmark: expected tables as .npz files with the arrays X and y")
    return [_table(path) for path in paths]


def _table(path: Path) -> BenchmarkTable:
    try:
        with np.load(path, allow_pickle=False) as archive:
            rows, labels = np.asarray(archive["X"], np.float64), np.asarray(archive["y"])
    except Exception as error:  # whatever zipfile and numpy say to what is no such file
        raise UsageError(f"{shown(path)} is no benchmark table with the arrays X and y: {error}") from error
    if rows.ndim != 2 or labels.shape != rows.shape[:1] or set(np.unique(labels).tolist()) != {0, 1}:
        raise UsageError(f"{shown(path)}: expected X of shape [rows, columns], and y with a 0 or 1 for each row")
    some = np.random.default_rng(SEED).permutation(len(rows))[:MOST_ROWS] if len(rows) > MOST_ROWS else slice(None)
    return BenchmarkTable(path.stem, rows[some], labels[some] == 1)


def evaluate_tables(
    folder: Path, methods: Sequence[str], parameters: Mapping[str, Any], console: Progress
) -> BenchmarkRecord:
    """Measure detectors on the benchmark tables of a folder; without `methods` all but the slow ones.

    Each stands beside PyOD's, if that is installed; else beside PyOD's figures in `measured.csv`, if that is there.

    Raises:
        UsageError: there are no tables, or a detector cannot be made.
        RunError: a detector failed.
    """
    tables, names = read_tables(folder), methods or [name for name in DETECTORS if name not in SLOW]
    try:
        for name in names:
            make(name, parameters)
    except BadInput as error:
        raise UsageError(str(error)) from None
    results = []
    with console.progress(len(tables) * len(names)):
        for place, table in enumerate(tables):
            for number, name in enumerate(names):
                console.moved(place * len(names) + number, f"{table.name}, {name}")
                results.append(_result(table, name, partial(_scores, name, parameters)))
                peer = _pyod(name)
                if peer is not None:
                    results.append(_result(table, f"PyOD {peer.__name__}", partial(_peers, peer)))
    results += _measured(folder, tables, results)
    return BenchmarkRecord(tables=[table.name for table in tables], results=results)


def _scores(name: str, parameters: Mapping[str, Any], rows: Floats) -> Floats:
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what floats cannot square has no score
            return make(name, parameters).look_back(rows).score
    except BadInput:
        raise
    except Exception as error:  # a user's own code
        raise RunError(f"the detector {name} failed: {type(error).__name__}: {error}") from error


def _pyod(name: str) -> Any:
    """PyOD's class, or None if it has none or is not installed."""
    if name not in PYOD:
        return None
    module, _, kind = PYOD[name].partition(":")
    try:
        return getattr(import_module(f"pyod.models.{module}"), kind)
    except ImportError:
        return None


def _peers(kind: Any, rows: Floats) -> Floats:
    """The scores of PyOD's detector on standardised rows, with its defaults and, where it has one, our seed."""
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 (an extra, and slow to import)

    seed = {"random_state": SEED} if "random_state" in signature(kind).parameters else {}
    try:
        return np.asarray(kind(**seed).fit(StandardScaler().fit_transform(rows)).decision_scores_)
    except Exception as error:  # it is not our code that fails
        raise BadInput(f"{type(error).__name__}: {error}") from error


def _result(table: BenchmarkTable, method: str, score: Callable[[Floats], Floats]) -> BenchmarkResult:
    from sklearn.metrics import average_precision_score, roc_auc_score  # noqa: PLC0415 (an extra, and slow to import)

    try:
        order = ranked(score(table.rows))
    except BadInput as error:
        return BenchmarkResult(table=table.name, method=method, failed=str(error))
    return BenchmarkResult(
        table=table.name,
        method=method,
        roc_auc=rounded(roc_auc_score(table.labels, order)),
        pr_auc=rounded(average_precision_score(table.labels, order)),
    )


def _measured(
    folder: Path, tables: Sequence[BenchmarkTable], results: Sequence[BenchmarkResult]
) -> list[BenchmarkResult]:
    """PyOD's figures in `measured.csv` on these tables, but for methods that have been measured here."""
    path = next((path for path in (folder / FOLDER / MEASURED, folder / MEASURED) if path.exists()), None)
    if path is None:
        return []
    names, known = {table.name for table in tables}, {result.method for result in results}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = [
                BenchmarkResult(table=row["set"], method=method, roc_auc=float(row["auc"]), pr_auc=float(row["ap"]))
                for row in csv.DictReader(file)
                if row["set"] in names
                and row["method"].startswith("od:")
                and (method := row["method"].replace("od:", "PyOD ")) not in known
            ]
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(f"{shown(path)}: expected the columns set, method, auc and ap ({error})") from None
    return found

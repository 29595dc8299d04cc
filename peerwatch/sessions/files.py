"""Trained session models as files, which hold numbers and no code.

A model is a zip archive of two members: `model.skops`, scikit-learn's pipeline and what belongs to it without a pickle,
and `envelope.json`, which says what the model is, what made it, and one SHA-256 over all of it. Nothing is loaded
before version, digest, libraries and types have been checked.
"""

import zipfile
import zlib
from hashlib import sha256
from importlib import metadata
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final

import msgspec
import numpy as np

from peerwatch.durable import DurableFile, replace_file
from peerwatch.errors import UsageError
from peerwatch.readable import shown
from peerwatch.sessions.columns import Schema
from peerwatch.sessions.threshold import Calibration

SESSION_FORMAT: Final = "peerwatch session model"
SESSION_VERSION: Final = 1
"""Of the format. It changes as well when a feature is computed in another way: a model would score differently."""
LIBRARIES: Final = ("numpy", "scikit-learn", "skops")
MOST_BYTES: Final = 1 << 31
"""A member that claims to be larger is not read."""
ENVELOPE, MODEL = "envelope.json", "model.skops"
TRUSTED: Final = (
    "numpy.dtype",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
    "peerwatch.sessions.models.SessionAutoencoder",
    "peerwatch.sessions.pipeline.DistanceScaler",
    "peerwatch.sessions.pipeline.SessionFeatures",
)
"""The types that a model may consist of, besides those that skops trusts by itself."""


class SessionEnvelope(msgspec.Struct, frozen=True):
    """The description of a session model; `facts` are for people, `columns` and `calibration` are used."""

    format: str
    version: int
    model: str
    peerwatch: str
    libraries: dict[str, str]
    columns: Schema
    calibration: Calibration
    facts: dict[str, Any]
    digest: str = ""
    """SHA-256, in hexadecimal, of all else."""


def save_state(path: Path, envelope: SessionEnvelope, state: dict[str, Any]) -> None:
    """Write a model, as a whole or not at all.

    Raises:
        UsageError: the file cannot be written; what was there still is.
    """
    from skops.io import dumps  # noqa: PLC0415 (slow to import)

    held = dumps(state, compression=zipfile.ZIP_DEFLATED)
    sealed = msgspec.json.encode(msgspec.structs.replace(envelope, digest=_digest(envelope, held)))
    whole = BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in ((ENVELOPE, sealed), (MODEL, held)):
            archive.writestr(zipfile.ZipInfo(name), content)  # with the time of no day: the same model, the same bytes
    try:
        replace_file(path, lambda file: _fill(file, whole.getvalue()))
    except OSError as error:
        raise UsageError(f"cannot write the model {shown(path)}: {error.strerror}") from None


def _fill(file: DurableFile, content: bytes) -> None:
    file.write(content)


def described(model: str, columns: Schema, calibration: Calibration, facts: dict[str, Any]) -> SessionEnvelope:
    """The envelope of a model that is made here and now."""
    libraries = {library: metadata.version(library) for library in LIBRARIES}
    return SessionEnvelope(
        SESSION_FORMAT, SESSION_VERSION, model, metadata.version("peerwatch"), libraries, columns, calibration, facts
    )


def read_envelope(path: Path) -> SessionEnvelope:
    """The description of a model, checked as far as it can be without loading it.

    Raises:
        UsageError: there is no such model, it is damaged or has been changed, or it is of another version.
    """
    return _read(path)[0]


def load_state(path: Path) -> tuple[SessionEnvelope, dict[str, Any]]:
    """A model's description, and what it consists of.

    Raises:
        UsageError: there is no such model, it is damaged or has been changed, it holds unknown types, or was made by
            other versions of the format or the libraries.
    """
    envelope, held = _read(path)
    for library in LIBRARIES:
        then, here = envelope.libraries.get(library, "none"), metadata.version(library)
        if then != here:
            raise UsageError(
                f"{shown(path)} was made with {library} {then}, here is {here}: train it again, or install that version"
            )
    from skops.io import get_untrusted_types, loads  # noqa: PLC0415 (slow to import)

    try:
        strange = sorted(set(get_untrusted_types(data=held)) - set(TRUSTED))
        state: dict[str, Any] = {} if strange else loads(held, trusted=list(TRUSTED))
        if state:
            check_trees(state)
    except Exception as error:  # whatever skops, zipfile and the classes say to what fits no longer
        raise UsageError(f"{shown(path)} cannot be loaded ({type(error).__name__}: {_line(error)})") from error
    if strange:
        raise UsageError(f"{shown(path)} holds objects of {', '.join(strange)}, which no session model consists of")
    return envelope, state


def _read(path: Path) -> tuple[SessionEnvelope, bytes]:
    if path.exists() and not S_ISREG(path.stat().st_mode):  # zipfile would read a device without end
        raise UsageError(f"{shown(path)} is not a regular file")
    try:
        with zipfile.ZipFile(path) as archive:
            raw, held = (_member(archive, name) for name in (ENVELOPE, MODEL))
        _check_version(msgspec.json.decode(raw), path)
        envelope = msgspec.json.decode(raw, type=SessionEnvelope)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UsageError(f"cannot read the model {shown(path)}: {error.strerror}") from None
    except (
        OSError, zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, NotImplementedError, RuntimeError,
        EOFError, msgspec.MsgspecError,
    ) as error:  # fmt: skip
        raise UsageError(
            f"{shown(path)} is not a session model that peerwatch saved, or damaged ({_line(error)})"
        ) from None
    if envelope.format != SESSION_FORMAT or _digest(envelope, held) != envelope.digest:
        raise UsageError(f"{shown(path)} has been changed or damaged since it was saved: its digest does not fit")
    return envelope, held


def _check_version(envelope: Any, path: Path) -> None:
    if envelope["format"] == SESSION_FORMAT and envelope["version"] != SESSION_VERSION:
        raise UsageError(
            f"{shown(path)}: its format is version {envelope['version']}, this peerwatch reads {SESSION_VERSION}; train"
            " it again"
        )


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > MOST_BYTES:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def _digest(envelope: SessionEnvelope, held: bytes) -> str:
    plain = msgspec.json.encode(msgspec.structs.replace(envelope, digest=""), order="deterministic")
    return sha256(sha256(plain).digest() + sha256(held).digest()).hexdigest()


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def check_trees(state: dict[str, Any]) -> None:
    """Check what compiled code follows blindly: each branch leads onwards within its tree, each column exists.

    Raises:
        ValueError: one does not.
    """
    model = state["pipeline"][-1]
    columns = int(model.n_features_in_) if hasattr(model, "n_features_in_") else 0
    for tree in (each.tree_ for each in getattr(model, "estimators_", ())):
        inner = np.flatnonzero(tree.children_left != -1)
        _check_branches(inner, (tree.children_left[inner], tree.children_right[inner]), tree.node_count)
        _check_columns(tree.feature[inner], columns)
    for stage in getattr(model, "_predictors", ()):
        for predictor in stage:
            nodes = predictor.nodes
            inner = np.flatnonzero(nodes["is_leaf"] == 0)
            _check_branches(inner, (nodes["left"][inner], nodes["right"][inner]), len(nodes))
            _check_columns(nodes["feature_idx"][inner], columns)
            if (nodes["is_categorical"] != 0).any():
                raise ValueError("a tree splits categories, which none does")


def _check_branches(inner: Any, children: tuple[Any, Any], count: int) -> None:
    for each in children:
        if not ((inner < each) & (each < count)).all():
            raise ValueError("a branch of a tree leads astray")


def _check_columns(used: Any, columns: int) -> None:
    if not ((used >= 0) & (used < columns)).all():
        raise ValueError("a tree looks at a column that is not there")

"""Fitted detectors as files, which hold numbers and no code.

A model is a numpy `.npz` archive: what the detector has learned, an array each under `learned.` and its name, none
pickled, and what it belongs to as JSON in the array `envelope`. Only detectors that the registry knows by name are ever
imported because a file names them.
"""

import os
from collections.abc import Mapping
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from peerwatch.detectors.base import Detector
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.durable import replace_file
from peerwatch.errors import BadInput, UsageError
from peerwatch.readable import shown, why_damaged

FORMAT: Final = "peerwatch model"
VERSION: Final = 1
LEARNED: Final = "learned."

Arrays = Mapping[str, NDArray[Any]]


class ModelEnvelope(msgspec.Struct, frozen=True):
    """The description of a model. `detector` is a name of the registry, or `package.module:Class`."""

    format: str
    version: int
    detector: str
    parameters: dict[str, Any]
    peerwatch: str
    libraries: dict[str, str]
    facts: dict[str, Any]
    digest: str = ""
    """SHA-256, in hexadecimal, of all else."""


def save(detector: Detector, path: str | os.PathLike[str], **facts: Any) -> None:
    """Write what a detector has learned to a file, along with facts of your own, as a whole or not at all.

    Raises:
        BadInput: it has not been fitted, or cannot be saved.
        OSError: the file cannot be written; what was there still is.
    """
    try:
        arrays = {name: np.asarray(array) for name, array in detector.arrays().items()}
        parameters, plain = _plain(detector.get_params()), _plain(facts)
        libraries = {library: metadata.version(library) for library in detector.libraries}
    except BadInput:
        raise
    except Exception as error:  # a user's own code
        raise BadInput(f"{detector.name} cannot be saved: {type(error).__name__}: {error}") from error
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise BadInput(f'{detector.name} cannot be saved: its array "{name}" holds objects')
    envelope = ModelEnvelope(
        FORMAT, VERSION, _name(detector), parameters, metadata.version("peerwatch"), libraries, plain
    )
    sealed = msgspec.json.encode(msgspec.structs.replace(envelope, digest=_digest(envelope, arrays)))
    held = {f"{LEARNED}{name}": array for name, array in arrays.items()}
    held["envelope"] = np.frombuffer(sealed, np.uint8)
    replace_file(Path(path), lambda file: np.savez(file, allow_pickle=False, **held))


def load(path: str | os.PathLike[str], expected: Detector | None = None) -> Detector:
    """The detector that was saved, fitted; with `expected`, one of the same class and parameters as that, or none.

    A detector of your own is loaded only if `expected` is one.

    Raises:
        UsageError: there is no such model, it is damaged, not the expected one, or made by other versions of libraries.
    """
    path = Path(path)
    envelope, arrays = _read(path)
    if expected is not None:
        _expect(envelope, expected, path)
        detector = type(expected)(**expected.get_params())
    elif is_known({"name": envelope.detector, "parameters": envelope.parameters}):
        try:
            detector = make(envelope.detector, envelope.parameters)
        except BadInput as error:
            raise UsageError(f"{shown(path)}: {error}") from None
    else:
        raise UsageError(
            f"{shown(path)} is a model of {envelope.detector}, or has members, that peerwatch does not know by name;"
            " load it in Python, and say which is expected"
        )
    _check_libraries(envelope, detector, path)
    try:
        return detector.restore(arrays)
    except Exception as error:  # a user's own code
        raise UsageError(f"{shown(path)}: {error}") from error


def facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The facts that were saved with a model.

    Raises:
        UsageError: there is no such model, or it is damaged.
    """
    return _read(Path(path))[0].facts


def _read(path: Path) -> tuple[ModelEnvelope, Arrays]:
    try:
        with path.open("rb") as file:
            _check_regular(file)
            with NpzFile(file, allow_pickle=False) as archive:
                return _unsealed(dict(archive))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UsageError(f"cannot read the model {shown(path)}: {error.strerror}") from None
    except UsageError as error:
        raise UsageError(f"{shown(path)}: {error}") from None
    except Exception as error:  # whatever zipfile, numpy and msgspec say to what is no such file, or damaged
        raise UsageError(
            f"{shown(path)} is not a model that peerwatch saved, or damaged ({why_damaged(error)})"
        ) from error


def _check_regular(file: BinaryIO) -> None:
    if not S_ISREG(os.fstat(file.fileno()).st_mode):  # zipfile would read a device without end
        raise UsageError("a model is a regular file")


def _unsealed(arrays: dict[str, NDArray[Any]]) -> tuple[ModelEnvelope, Arrays]:
    """The envelope and the arrays; a UsageError for another version, any other error if it is not a model."""
    raw = arrays.pop("envelope").tobytes()
    kind = msgspec.json.decode(raw)
    if kind["format"] == FORMAT and kind["version"] != VERSION:
        raise UsageError(f"its format is version {kind['version']}, this peerwatch reads {VERSION}; fit it again")
    envelope = msgspec.json.decode(raw, type=ModelEnvelope)
    held = {name.removeprefix(LEARNED): array for name, array in arrays.items()}
    if envelope.format != FORMAT or len(held) < len(arrays) or _digest(envelope, held) != envelope.digest:
        raise ValueError("its digest does not fit")
    return envelope, held


def _digest(envelope: ModelEnvelope, arrays: Arrays) -> str:
    found = sha256(msgspec.json.encode(msgspec.structs.replace(envelope, digest=""), order="deterministic"))
    for name, array in sorted(arrays.items()):
        found.update(msgspec.json.encode([name, str(np.lib.format.dtype_to_descr(array.dtype)), array.shape]))
        found.update(array.tobytes())
    return found.hexdigest()


def _name(detector: Detector) -> str:
    path = f"{type(detector).__module__}:{type(detector).__qualname__}"
    return next((name for name, known in DETECTORS.items() if known == path), path)


def is_known(member: Any) -> bool:
    """Whether the registry knows a detector by name, and its members if it is made of some."""
    parameters = member.get("parameters", {}) if isinstance(member, dict) else None
    if not isinstance(parameters, dict) or member.get("name") not in DETECTORS:
        return False
    members = parameters.get("members") or []
    return isinstance(members, list) and all(is_known(each) for each in members)


def _expect(envelope: ModelEnvelope, expected: Detector, path: Path) -> None:
    found, wanted = (envelope.detector, envelope.parameters), (_name(expected), _plain(expected.get_params()))
    if found != wanted:
        texts = [f"{name} {msgspec.json.encode(parameters).decode()}" for name, parameters in (found, wanted)]
        raise UsageError(f"{shown(path)} is a model of {texts[0]}; expected is {texts[1]}")


def _check_libraries(envelope: ModelEnvelope, detector: Detector, path: Path) -> None:
    for library in detector.libraries:
        try:
            here = metadata.version(library)
        except metadata.PackageNotFoundError:
            here = "none"
        then = envelope.libraries.get(library, "none")
        if then != here:
            raise UsageError(
                f"{shown(path)} was made with {library} {then}, here is {here}: fit it again, or install that version"
            )


def _plain(value: Any) -> Any:
    """The value as JSON would return it; numpy's numbers become Python's."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_number))


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} cannot be written as JSON")

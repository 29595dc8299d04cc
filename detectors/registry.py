"""Detectors by name, and a user's own by import path."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from peerwatch.detectors.base import Detector
from peerwatch.network.errors import BadInput

DETECTORS: Final = {
    "zscore": "peerwatch.detectors.rules:ZScore",
    "iqr": "peerwatch.detectors.rules:Iqr",
    "mad": "peerwatch.detectors.rules:Mad",
    "spc": "peerwatch.detectors.charts:Spc",
    "seasonal": "peerwatch.detectors.seasonal:Seasonal",
}
"""Where each is; it is imported when it is asked for."""


def make(name: str, parameters: Mapping[str, Any]) -> Detector:
    """The detector that `name` means, a known one or `package.module:Class`, with its parameters checked.

    Raises:
        BadInput: there is no such detector, or it does not take these parameters.
    """
    kind = find(name)
    detector = kind()
    detector.set_params(**parameters)
    detector.check()
    return detector


def find(name: str) -> type[Detector]:
    """The class that `name` means.

    Raises:
        BadInput: there is none.
    """
    path = DETECTORS.get(name, name)
    module, colon, attribute = path.partition(":")
    if not colon:
        raise BadInput(
            f'there is no detector "{name}"; known are sigma, {", ".join(DETECTORS)}, and package.module:Class'
        )
    try:
        kind = getattr(import_module(module), attribute)
    except ImportError as error:
        raise BadInput(f'the detector "{name}" cannot be imported: {error}') from None
    except AttributeError:
        raise BadInput(f'the detector "{name}" is not there: {module} has no {attribute}') from None
    if not (isinstance(kind, type) and issubclass(kind, Detector)):
        raise BadInput(f'"{name}" is no detector: derive it from peerwatch.detectors.base.Detector or Rule')
    return kind

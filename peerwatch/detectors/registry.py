"""Detectors by name, and a user's own by import path."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from peerwatch.detectors.base import Detector
from peerwatch.errors import BadInput

DETECTORS: Final = {
    "zscore": "peerwatch.detectors.rules:ZScore",
    "iqr": "peerwatch.detectors.rules:Iqr",
    "mad": "peerwatch.detectors.rules:Mad",
    "spc": "peerwatch.detectors.control_charts:Spc",
    "seasonal": "peerwatch.detectors.seasonal:Seasonal",
    "isolation_forest": "peerwatch.detectors.learned.isolation_forest:IsolationForest",
    "one_class_svm": "peerwatch.detectors.learned.one_class_svm:OneClassSvm",
    "lof": "peerwatch.detectors.learned.local_outlier_factor:LocalOutlierFactor",
    "half_space_trees": "peerwatch.detectors.learned.half_space_trees:HalfSpaceTrees",
    "autoencoder": "peerwatch.detectors.learned.autoencoder:Autoencoder",
    "knn": "peerwatch.detectors.learned.nearest_neighbours:NearestNeighbours",
    "mcd": "peerwatch.detectors.learned.robust_covariance:RobustCovariance",
    "gmm": "peerwatch.detectors.learned.gaussian_mixture:GaussianMixture",
    "pca": "peerwatch.detectors.learned.principal_components:PrincipalComponents",
    "hbos": "peerwatch.detectors.learned.histograms:Hbos",
    "ecod": "peerwatch.detectors.learned.empirical_tails:Ecod",
    "copod": "peerwatch.detectors.learned.empirical_tails:Copod",
    "inne": "peerwatch.detectors.learned.nearest_neighbour_isolation:Inne",
    "random_cut_forest": "peerwatch.detectors.learned.random_cut_forest:RandomCutForest",
    "variational_autoencoder": "peerwatch.detectors.learned.variational_autoencoder:VariationalAutoencoder",
    "lstm_autoencoder": "peerwatch.detectors.learned.lstm_autoencoder:LstmAutoencoder",
    "spot": "peerwatch.detectors.series.extreme_values:Spot",
    "change_points": "peerwatch.detectors.series.change_points:ChangePoints",
    "matrix_profile": "peerwatch.detectors.series.matrix_profile:MatrixProfile",
    "ensemble": "peerwatch.detectors.ensemble:Ensemble",
}
"""The import path of each; it is imported when it is first used."""


def make(name: str, parameters: Mapping[str, Any]) -> Detector:
    """The detector that `name` means, a known one or `package.module:Class`, with its parameters checked.

    Raises:
        BadInput: there is no such detector, or it does not take these parameters.
    """
    kind = find(name)
    unknown = [each for each in parameters if each not in kind.parameters()]
    if unknown:
        raise BadInput(f'{kind.name} has no parameter "{unknown[0]}"; it has {", ".join(kind.parameters()) or "none"}')
    try:
        detector = kind(**parameters)
        detector.check()
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f'the detector "{name}" cannot be made: {type(error).__name__}: {error}') from error
    return detector


def find(name: str) -> type[Detector]:
    """The class that `name` means.

    Raises:
        BadInput: there is none.
    """
    known = f"{', '.join(DETECTORS)}, and package.module:Class"
    if name == "sigma":
        raise BadInput(f"sigma judges the windows of a run only; here are {known}")
    path = DETECTORS.get(name, name)
    module, colon, attribute = path.partition(":")
    if not colon:
        raise BadInput(f'there is no detector "{name}"; known are sigma, {known}')
    try:
        kind = getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise BadInput(f'the detector "{name}" cannot be imported: {type(error).__name__}: {error}') from error
    if not (isinstance(kind, type) and issubclass(kind, Detector)):
        raise BadInput(f'"{name}" is not a detector: derive it from peerwatch.detectors.base.Detector or Rule')
    if not isinstance(getattr(kind, "name", None), str):
        raise BadInput(f'"{name}" has no name: give the class one, as in name = "mine"')
    return kind

"""Detectors that learn what is normal from rows: of any table, or of `peerwatch.detectors.features` in the pipeline.

A row's score is the same, bit by bit, whatever others it is scored with, and the same rows teach the same.
"""

from peerwatch.detectors.learned.autoencoder import Autoencoder
from peerwatch.detectors.learned.half_space_trees import HalfSpaceTrees
from peerwatch.detectors.learned.isolation_forest import IsolationForest
from peerwatch.detectors.learned.local_outlier_factor import LocalOutlierFactor
from peerwatch.detectors.learned.lstm_autoencoder import LstmAutoencoder
from peerwatch.detectors.learned.one_class_svm import OneClassSvm
from peerwatch.detectors.learned.random_cut_forest import RandomCutForest
from peerwatch.detectors.learned.variational_autoencoder import VariationalAutoencoder

__all__ = [
    "Autoencoder",
    "HalfSpaceTrees",
    "IsolationForest",
    "LocalOutlierFactor",
    "LstmAutoencoder",
    "OneClassSvm",
    "RandomCutForest",
    "VariationalAutoencoder",
]

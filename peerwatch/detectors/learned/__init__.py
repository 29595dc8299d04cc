"""Detectors that learn what is normal from rows: of any table, or of `peerwatch.detectors.features` in the pipeline.

A row's score is the same, bit by bit, whatever others it is scored with, and the same rows teach the same.
"""

from peerwatch.detectors.learned.autoencoder import Autoencoder
from peerwatch.detectors.learned.half_space_trees import HalfSpaceTrees
from peerwatch.detectors.learned.isolation_forest import IsolationForest
from peerwatch.detectors.learned.local_outlier_factor import LocalOutlierFactor
from peerwatch.detectors.learned.one_class_svm import OneClassSvm

__all__ = ["Autoencoder", "HalfSpaceTrees", "IsolationForest", "LocalOutlierFactor", "OneClassSvm"]

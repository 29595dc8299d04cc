"""Measures how well detectors find anomalies, judging in time order."""

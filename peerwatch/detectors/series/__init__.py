"""Detectors for series: each value is judged by those before it."""

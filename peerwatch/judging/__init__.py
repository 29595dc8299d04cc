"""From events to decisions: judges, thresholds, drift, severity, the verdict hash, explanations by brute force.

Nothing in this package depends on actors, an event loop, files or logs.
"""

"""From events to decisions: judges, thresholds, drift, severity, the verdict hash, explanations by brute force.

Nothing here knows an actor, an event loop, a file or a log.
"""

"""The running process: command line, settings, wiring, sources, sinks and logs.

Only this room opens files or reads settings.
"""

"""The pure domain: events, friend graph, purchase history, exact statistics.

Nothing here knows an actor, an event loop, a file or a log: plain objects over arrays, testable by a call.
"""

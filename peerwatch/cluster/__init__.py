"""A run on the workers of a cluster: replicas that follow every event and take turns to answer batches.

Only `peerwatch.cluster.ray` imports Ray. Everything else works with any `Engine` (`peerwatch.cluster.engine`).
"""

"""peerwatch flags purchases far above what the buyer's own network has been spending.

The rooms of this package lie at the top level of the repository and are linked here.
"""

"""Communities in the friend graph: users with more friendships among them than to others."""

import random
from importlib import import_module
from typing import Final

import numpy as np

from peerwatch.errors import BadInput
from peerwatch.kernels import Int64s
from peerwatch.network.graph import FriendGraph

SEED: Final = 1
"""The seed of the order in which users are moved."""


def communities(graph: FriendGraph) -> Int64s:
    """Return the number of each user's community, by the Leiden algorithm (Traag, Waltman and van Eck, 2019).

    It maximises modularity. The largest community is number 0. Needs igraph, the extra `graph`. Shape [users].

    Raises:
        BadInput: igraph is not installed.
    """
    try:
        igraph = import_module("igraph")
    except ImportError:
        raise BadInput("communities need igraph, which is not installed: pip install 'peerwatch[graph]'") from None
    degree, friends = graph.columns()
    user = np.repeat(np.arange(graph.users), degree)
    once = user < friends
    made = igraph.Graph(n=graph.users, edges=np.column_stack([user[once], friends[once]]).tolist())
    igraph.set_random_number_generator(random.Random(SEED))  # noqa: S311 (no secret)
    try:
        found = made.community_leiden(objective_function="modularity", n_iterations=-1)
    finally:
        igraph.set_random_number_generator(random)  # as igraph starts with
    members = np.array(found.membership, np.int64)
    sizes = np.bincount(members)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[members]

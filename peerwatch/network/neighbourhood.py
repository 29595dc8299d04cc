"""Who is in a user's network, how far away, and by which friendships: for explanations, not for judging."""

from collections.abc import Callable
from typing import NamedTuple

from peerwatch.network.graph import FriendGraph


class Member(NamedTuple):
    """A member of a network: its hop, and the member one hop nearer through which it is reached."""

    hop: int
    by: int


def members_of(graph: FriendGraph, user: int, D: int, key: Callable[[int], tuple[int, bytes]]) -> dict[int, Member]:
    """Everyone within `D` hops of `user` (left out itself) by breadth-first search, by hop and then by `key`.

    Of several shortest paths the one whose users come first by `key` is given, so that it does not depend on the order
    in which friends are held.
    """
    if user >= graph.users:
        return {}
    reached = {user: Member(0, user)}
    frontier = [user]
    for hop in range(1, D + 1):
        found: dict[int, int] = {}
        for member in frontier:
            for friend in graph.friends(member).tolist():
                if friend not in reached:
                    found.setdefault(friend, member)
        frontier = sorted(found, key=key)
        reached |= {friend: Member(hop, found[friend]) for friend in frontier}
        if not frontier:
            break
    del reached[user]
    return reached


def path_to(member: int, members: dict[int, Member]) -> list[int]:
    """The users on the path to a member, from the network's owner to the member itself."""
    path = [member]
    while path[-1] in members:
        path.append(members[path[-1]].by)
    return path[::-1]

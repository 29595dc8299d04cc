"""What a friendship or a user takes part in: the records, and tables of them."""

from typing import Final

import msgspec

from peerwatch.readable import aligned, readable, rows

SHOWN: Final = 20
"""The most rows of a table."""


class ConcernedUser(msgspec.Struct, frozen=True):
    """A user whose network would be smaller: by the users `lost`, in the order of their ids.

    The window of a purchase made now would be without the events `purchases_lost`, and with `purchases_gained` instead.
    `limit` is the highest amount that the window does not flag; null where it flags nothing. `verdict` is the one that
    the user's latest purchase, event `latest` for `amount`, would get if it were made again now; null without one.
    """

    user: str
    network_size: int
    lost: list[str]
    purchases_lost: list[int]
    purchases_gained: list[int]
    limit: str | None
    limit_without: str | None
    latest: int | None
    amount: str | None
    verdict: str | None
    verdict_without: str | None


class RadiusRecord(msgspec.Struct, frozen=True):
    """What a friendship (two users) or a user takes part in, after event `seq`.

    `near` users were looked at, as it is within their reach; without it `networks` of these would be smaller, `windows`
    different, and `verdicts` the other one. `users` are those with a smaller network, the most concerned first.
    """

    seq: int
    D: int
    T: int
    k: str
    friendship: tuple[str, str] | None
    user: str | None
    near: int
    networks: int
    windows: int
    verdicts: int
    users: list[ConcernedUser]


class Bridge(msgspec.Struct, frozen=True):
    """A friendship, and how many networks, windows and verdicts would be others without it."""

    friendship: tuple[str, str]
    networks: int
    windows: int
    verdicts: int


class BridgesRecord(msgspec.Struct, frozen=True):
    """The friendships without which the most verdicts would be others, after event `seq`. All have `friendships`."""

    seq: int
    D: int
    T: int
    k: str
    friendships: int
    bridges: list[Bridge]


def as_text(record: RadiusRecord, most: int = SHOWN) -> str:
    """Format what a friendship or a user takes part in."""
    what = f"user {readable(record.user or '')}"
    if record.friendship is not None:
        what = "the friendship of " + " with ".join(map(readable, record.friendship))
    head = [
        ("without", f"{what}, as of event {record.seq:,} (D={record.D}, T={record.T}, k={record.k})"),
        ("networks", f"{record.networks:,} would be smaller, of {record.near:,} within reach"),
        ("windows", f"{record.windows:,} would be others"),
        ("verdicts", f"{record.verdicts:,} would be others, if everybody's latest purchase were made again"),
    ]
    table = [("user", "network", "lost", "window lost", "gained", "limit", "without", "verdict", "without")]
    table += [
        (
            readable(one.user), f"{one.network_size:,}", f"{len(one.lost):,}", f"{len(one.purchases_lost):,}",
            f"{len(one.purchases_gained):,}", one.limit or "", one.limit_without or "", one.verdict or "",
            one.verdict_without or "",
        )
        for one in record.users[:most]
    ]  # fmt: skip
    left = len(record.users) - most
    more = [f"and {left:,} more; --top N shows more of them, --json all"] if left > 0 else []
    return "\n".join([rows(head), *(["", *aligned(table, right=(1, 2, 3, 4, 5, 6))] if record.users else []), *more])


def bridges_as_text(record: BridgesRecord) -> str:
    """Format the friendships that matter most."""
    head = [
        ("as of", f"event {record.seq:,} (D={record.D}, T={record.T}, k={record.k})"),
        ("friends", f"{record.friendships:,} friendships; without one of these the most verdicts would be others"),
    ]
    table = [("friendship", "verdicts", "windows", "networks")]
    table += [
        (" - ".join(map(readable, one.friendship)), f"{one.verdicts:,}", f"{one.windows:,}", f"{one.networks:,}")
        for one in record.bridges
    ]
    lines = aligned(table, right=(1, 2, 3)) if record.bridges else ["no friendship changes a window"]
    return "\n".join([rows(head), "", *lines])

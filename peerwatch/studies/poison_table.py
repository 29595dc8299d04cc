"""What flagged purchases did to windows: the records, and tables of them."""

from typing import Final

import msgspec

from peerwatch.readable import aligned, readable, rows, short

SHOWN: Final = 20
"""The most purchases in a table."""


class EnteredWindow(msgspec.Struct, frozen=True):
    """A window that held the purchase: that of judged event `seq`.

    `limit` is the highest amount that it does not flag, `limit_without` the same without the purchase; null where it
    flags nothing, because fewer than two purchases are in it.
    """

    seq: int
    timestamp: str
    limit: str | None
    limit_without: str | None


class ReachedUser(msgspec.Struct, frozen=True):
    """A user whose windows held the purchase: the first and the last of them, and all, in order.

    `moved` is the largest difference that it made to a limit, with its sign; null if no window flags anything.
    """

    user: str
    first: int
    last: int
    moved: str | None
    windows: list[EnteredWindow]


class ChangedVerdict(msgspec.Struct, frozen=True):
    """A later purchase whose verdict would be the other one without the purchase."""

    seq: int
    file: str
    line: int
    user: str
    timestamp: str
    amount: str
    limit: str | None
    limit_without: str | None


class PoisonRecord(msgspec.Struct, frozen=True):
    """What one purchase did: `windows` that held it, from event `first` to event `last`, which took `seconds`.

    `moved` is the largest difference that it made to a limit. Without it the purchases `hidden` would be flagged, and
    those in `caused` would not.
    """

    seq: int
    file: str
    line: int
    user: str
    timestamp: str
    amount: str
    flagged: bool
    windows: int
    first: int | None
    last: int | None
    seconds: float
    moved: str | None
    users: list[ReachedUser]
    hidden: list[ChangedVerdict]
    caused: list[ChangedVerdict]


class PoisonLedger(msgspec.Struct, frozen=True):
    """The flagged or labelled purchases of a run, those that hid the most first."""

    D: int
    T: int
    k: str
    judged: int
    flagged: int
    purchases: list[PoisonRecord]


def as_text(ledger: PoisonLedger, most: int = SHOWN) -> str:
    """Format the ledger as a table of the purchases that hid the most."""
    hidden = {changed.seq for one in ledger.purchases for changed in one.hidden}
    head = [
        ("judged", f"{_counted(ledger.judged)}, {ledger.flagged:,} flagged (D={ledger.D}, T={ledger.T}, k={ledger.k})"),
        ("hidden", f"{_counted(len(hidden))}, each by one of {len(ledger.purchases):,} alone"),
    ]
    table = [("event", "line", "user", "amount", "windows", "users", "for", "moved", "hid")]
    table += [
        (
            f"{one.seq:,}", f"{one.line:,}", readable(one.user), one.amount, f"{one.windows:,}", f"{len(one.users):,}",
            _duration(one.seconds), one.moved or "", f"{len(one.hidden):,}",
        )
        for one in ledger.purchases[:most]
    ]  # fmt: skip
    left = len(ledger.purchases) - most
    more = [f"and {left:,} more; --top N shows more of them, --json all"] if left > 0 else []
    return "\n".join([rows(head), "", *aligned(table, right=(0, 1, 3, 4, 5, 6, 7, 8)), *more])


def details_as_text(one: PoisonRecord, most: int = SHOWN) -> str:
    """Format what one purchase did."""
    head = [
        ("purchase", f"event {one.seq:,}, {one.file}:{one.line}"),
        ("", f"user {readable(one.user)} paid {one.amount} at {short(one.timestamp)}"),
        ("windows", f"{one.windows:,}, of {len(one.users):,} users, for {_duration(one.seconds)}"),
        ("moved", one.moved or "no limit"),
        ("hid", f"{_counted(len(one.hidden))}, flagged without it"),
    ]
    lines = [rows(head)]
    hidden = [("event", "line", "user", "amount", "limit", "without")]
    hidden += [
        (
            f"{each.seq:,}",
            f"{each.line:,}",
            readable(each.user),
            each.amount,
            each.limit or "",
            each.limit_without or "",
        )
        for each in one.hidden[:most]
    ]
    if one.hidden:
        lines += ["", "It hid", *aligned(hidden, right=(0, 1, 3, 4, 5))]
    users = [("user", "windows", "first", "last", "moved")]
    ranked = sorted(one.users, key=lambda each: -len(each.windows))
    users += [
        (readable(each.user), f"{len(each.windows):,}", f"{each.first:,}", f"{each.last:,}", each.moved or "")
        for each in ranked[:most]
    ]
    if one.users:
        lines += ["", "It was in windows of", *aligned(users, right=(1, 2, 3, 4))]
    return "\n".join(lines)


def _counted(purchases: int) -> str:
    """A number of purchases in words."""
    return f"{purchases:,} purchase{'s' * (purchases != 1)}"


def _duration(seconds: float) -> str:
    """A time as people write it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"

"""What analysts say of purchases."""

from typing import NamedTuple


class Label(NamedTuple):
    """That a purchase is an anomaly, or is none: the event `seq`, or else that on `line` of the stream log."""

    seq: int | None
    line: int | None
    anomaly: bool

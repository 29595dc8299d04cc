"""Labels that analysts give to purchases."""

from typing import NamedTuple


class Label(NamedTuple):
    """A label on one purchase, named by its event number `seq` or by its `line` in the stream log."""

    seq: int | None
    line: int | None
    anomaly: bool

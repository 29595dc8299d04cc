"""What the service and its worker processes say to each other: one JSON object a line."""

from typing import Any, Literal, TypeAlias

import msgspec

from peerwatch.replay.follow_flagged import JudgedThrough
from peerwatch.settings.model import Layer


class ExplainDecision(msgspec.Struct, frozen=True, tag="explain"):
    """Explain the decision on event `seq`."""

    layers: list[Layer]
    seq: int


class ShowUser(msgspec.Struct, frozen=True, tag="user"):
    """Show a user as of `at`, an event's number or a timestamp."""

    layers: list[Layer]
    user: str
    at: str


class ShowRadius(msgspec.Struct, frozen=True, tag="radius"):
    """Show what a user takes part in as of `at`, or with `friend` the friendship of the two."""

    layers: list[Layer]
    user: str
    friend: str | None
    at: str


class ShowBridges(msgspec.Struct, frozen=True, tag="bridges"):
    """Show the `most` friendships without which the most verdicts would be others, as of `at`."""

    layers: list[Layer]
    most: int
    at: str


class DetectInRows(msgspec.Struct, frozen=True, tag="detect"):
    """Apply a detector to columns of the same length."""

    columns: dict[str, list[float]]
    method: str
    parameters: dict[str, Any]


class DetectInDataset(msgspec.Struct, frozen=True, tag="detect dataset"):
    """Apply a detector to a data set, and compare what it flags with the labels."""

    dataset: str
    method: str
    parameters: dict[str, Any]


class DescribeDataset(msgspec.Struct, frozen=True, tag="dataset"):
    """Compute the statistics of a data set."""

    dataset: str


class SweepSettings(msgspec.Struct, frozen=True, tag="sweep"):
    """Judge the stream log with every combination of D, T and k."""

    layers: list[Layer]
    D: list[int]
    T: list[int]
    k: list[float]


class FollowFlagged(msgspec.Struct, frozen=True, tag="follow"):
    """Read the logs behind the run with this name, and explain flagged purchases from event `first` on.

    The worker does nothing else from then on; `JudgedThrough` messages say how far it may go.
    """

    layers: list[Layer]
    run: str
    first: int


Request: TypeAlias = (
    ExplainDecision
    | ShowUser
    | ShowRadius
    | ShowBridges
    | DetectInRows
    | DetectInDataset
    | DescribeDataset
    | SweepSettings
    | FollowFlagged
    | JudgedThrough
)


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """The request was taken. A worker that dies before it says so did not die of the request."""


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """The result of a request, as JSON."""

    result: msgspec.Raw


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """A request that could not be answered: the class of the error, and its sentence."""

    error: Literal["UsageError", "BadInput", "RunError"]
    message: str


class ProgressMade(msgspec.Struct, frozen=True, tag="progressed"):
    """The share of a request that is done."""

    share: float


class Explained(msgspec.Struct, frozen=True, tag="explained"):
    """The explanation of a flagged purchase."""

    seq: int
    explanation: msgspec.Raw


Answer: TypeAlias = Begun | Answered | Refused | ProgressMade | Explained

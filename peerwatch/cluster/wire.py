"""What a driver and its workers send each other, as bytes: commands to a worker, and one reply to each.

Messages are data, in msgpack: columns as the bytes of their arrays, amounts of any size as decimal text. Both ends run
the same version, which the first reply tells (`Hello`).
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

import peerwatch
from peerwatch import kernels
from peerwatch.amounts import Amounts
from peerwatch.cluster.pieces import ArrayPiece
from peerwatch.cluster.replica import ReasonsOfPart, ReplicaBatch
from peerwatch.judging.judge import Mask, Reasons, Scoring
from peerwatch.judging.severity import Level
from peerwatch.network.decoder import Events
from peerwatch.network.events import Kind
from peerwatch.network.networks import COMPARED, Networks, Plan
from peerwatch.network.statistics import Statistics
from peerwatch.network.windows import Windows
from peerwatch.settings.model import DetectorSettings
from peerwatch.storage.checkpoints import StoredPart

STORAGE: Final = "storage"
"""The name of the file by which a worker knows that a state directory is the driver's own."""
LargeByName: TypeAlias = dict[int, str]
"""Amounts that are too large for a column: each by its name, as decimal text."""
MODULES: Final = {
    "peerwatch.judging.sigma", "peerwatch.network.friendships", "peerwatch.network.interner",
    "peerwatch.network.order_in_time", "peerwatch.network.scanner", "peerwatch.network.selection",
    "peerwatch.network.stretches", "peerwatch.network.timeline", "peerwatch.network.walk", "peerwatch.network.windows",
}  # fmt: skip
"""Where the kernels are that a worker has. A driver may have more, such as those of a service beside the run."""


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """A batch of events. `friend` has a place for each friendship, `timestamp` and `amount` one for each purchase."""

    seq: int
    users: int
    kind: bytes
    user: bytes
    friend: bytes
    timestamp: bytes
    amount: bytes
    large: LargeByName


class Greet(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Say what you are. It changes nothing, so that it can be asked at any time, also of a worker at work."""


class Begin(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Be a replica for this D and T. Without a `detector` the windows are sent back; with `context` the buyers' too.

    With `networks` hold the friend graph alone, and send so many networks at most in a part of an answer.
    """

    D: int
    T: int
    detector: DetectorSettings | None
    sizes: bool
    context: bool
    directed: bool = False
    networks: int | None = None


class UseStorage(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Columns of `least` bytes or more go to the state `directory`, if it is the driver's own there, too.

    It is if the file `STORAGE` in it holds the `token`. No other worker has the name `writer`.
    """

    directory: bytes
    token: bytes
    writer: str
    least: int


class LoadFile(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Begin with the checkpoint of this name in the storage. It was taken behind event `through`."""

    name: str
    through: int


class Load(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Pieces of the columns to begin with; the state is that behind event `through` once all are there."""

    pieces: list[ArrayPiece]
    through: int
    is_last: bool


class Follow(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Apply these batches."""

    batches: list[msgspec.Raw]


class Judgement(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Apply these batches, and answer the last one; give reasons of the purchases at the places `wanted`, too."""

    batches: list[msgspec.Raw]
    wanted: bytes


class GiveColumns(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Apply these batches, and send the columns of graph and purchases, or write them to the storage."""

    batches: list[msgspec.Raw]


class GiveMore(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Send more of the columns, or say whether they are written."""


Command: TypeAlias = Greet | Begin | UseStorage | LoadFile | Load | Follow | Judgement | GiveColumns | GiveMore


class Hello(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The reply to `Greet` and `Begin`: the version of peerwatch, and the digest of its kernels."""

    version: str
    kernels: str


class Figures(NamedTuple):
    """The number of friendships in force in a replica; its process, and the processor seconds of that.

    `seconds` is the time that it took to answer, in the reply to `Judgement`.
    """

    friendships: int = 0
    pid: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0


class Done(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The reply to `LoadFile`, `Load` and `Follow`."""

    figures: Figures


class StorageSeen(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The reply to `UseStorage`: whether it is the driver's own."""

    seen: bool


class Unreadable(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The reply to `LoadFile` if the file cannot be read, and why. Nothing has changed."""

    why: str


class PackedReasons(msgspec.Struct, frozen=True, array_like=True):
    """One verdict with its reasons, and what the friend graph tells of the network."""

    place: int
    flagged: bool
    amount: str
    n: int
    S: str
    Q: str
    oldest: int | None
    newest: int | None
    scoring: tuple[str, float, float, int | None] | None
    severity: Level | None
    plan: int
    size: int
    expected: tuple[int, ...]


class Judged(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The reply to `Judgement` of a worker that judges: of the flagged purchases, and those that were wanted."""

    reasons: list[PackedReasons]
    figures: Figures


class PackedWindows(msgspec.Struct, frozen=True, array_like=True):
    """Windows as columns."""

    offsets: bytes
    seq: bytes
    timestamp: bytes
    amount: bytes
    large: LargeByName


class PackedPart(msgspec.Struct, frozen=True, array_like=True):
    """The windows of consecutive purchases, and what the friend graph tells of their networks."""

    windows: PackedWindows
    own: PackedWindows | None
    plan: bytes
    size: bytes
    expected: bytes


class WindowParts(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The reply to `Judgement` of a worker that does not judge: all windows of the batch, in order."""

    parts: list[PackedPart]
    figures: Figures


class PackedNetworks(msgspec.Struct, frozen=True, array_like=True):
    """The networks of consecutive purchases: members one network after the other, or as bits, whichever is shorter.

    With `width` there is a row of so many bits for each network, and `offsets` is empty.
    """

    width: int
    offsets: bytes
    members: bytes
    plan: bytes
    size: bytes
    expected: bytes


class NetworkParts(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The reply to `Judgement` of a worker with the friend graph alone: all networks of the batch, in order."""

    parts: list[PackedNetworks]
    figures: Figures


class ColumnPieces(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A reply to `GiveColumns` and `GiveMore`: pieces of the columns, and whether they are the last ones."""

    pieces: list[ArrayPiece]
    is_last: bool


class WritingPart(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A reply to `GiveColumns` and `GiveMore`: the columns are being written to the storage."""


class WrittenPart(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The reply to `GiveMore` when they are written, and survive a power failure."""

    part: StoredPart


class Failure(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The command failed. `is_final` says that it would fail again; else `text` has the traceback."""

    text: str
    is_final: bool


Reply: TypeAlias = (
    Hello | StorageSeen | Unreadable | Done | Judged | WindowParts | NetworkParts | ColumnPieces | WritingPart
    | WrittenPart | Failure
)  # fmt: skip
_encoder: Final = msgspec.msgpack.Encoder()
_commands: Final[msgspec.msgpack.Decoder[Command]] = msgspec.msgpack.Decoder(Command)
_replies: Final[msgspec.msgpack.Decoder[Reply]] = msgspec.msgpack.Decoder(Reply)
_packed: Final = msgspec.msgpack.Decoder(Packed)


def encoded(message: Command | Reply) -> bytes:
    """A message as bytes."""
    return _encoder.encode(message)


def command_from(content: bytes) -> Command:
    """The inverse of `encoded`."""
    return _commands.decode(content)


def reply_from(content: bytes) -> Reply:
    """The inverse of `encoded`."""
    return _replies.decode(content)


@cache
def hello() -> Hello:
    """What this process is. Call it with all modules of a replica imported."""
    digests = sorted(kernels.key(each, "") for each in kernels.registered if each.function.__module__ in MODULES)
    text = " ".join([np.__version__, sys.implementation.cache_tag or "", *digests])
    return Hello(peerwatch.__version__, hashlib.sha256(text.encode()).hexdigest()[:16])


def pack(batch: ReplicaBatch) -> bytes:
    """A batch as bytes, about 21 an event."""
    events = batch.events
    purchases = events.kind == Kind.PURCHASE
    amount = events.amount[purchases]
    return _encoder.encode(
        Packed(
            batch.seq,
            batch.users,
            events.kind.tobytes(),
            events.user.tobytes(),
            events.friend[~purchases].tobytes(),
            events.timestamp[purchases].tobytes(),
            amount.held.tobytes(),
            _large_of(amount),
        )
    )


def unpack(content: msgspec.Raw) -> ReplicaBatch:
    """The inverse of `pack`; the events have no lines."""
    packed = _packed.decode(content)
    kind = np.frombuffer(packed.kind, np.int8)
    purchases = kind == Kind.PURCHASE
    n = len(kind)
    friend, timestamp, amount, no_line = np.zeros(n, np.int32), *np.zeros((3, n), np.int64)
    friend[~purchases] = np.frombuffer(packed.friend, np.int32)
    timestamp[purchases] = np.frombuffer(packed.timestamp, np.int64)
    amount[purchases] = np.frombuffer(packed.amount, np.int64)
    amounts = Amounts(amount, _by_name(packed.large))
    user = np.frombuffer(packed.user, np.int32)
    return ReplicaBatch(packed.seq, packed.users, Events(kind, user, friend, amounts, timestamp, *3 * [no_line]))


def pack_places(mask: Mask) -> bytes:
    """The places of a mask that are set."""
    return np.flatnonzero(mask).tobytes()


def mask_of(places: bytes, size: int) -> Mask:
    """The inverse of `pack_places`, for a mask of shape [size]."""
    mask = np.zeros(size, np.bool_)
    mask[np.frombuffer(places, np.int64)] = True
    return mask


def pack_reasons(part: ReasonsOfPart) -> list[PackedReasons]:
    """The reasons of one part."""
    networks, packed = part.networks, []
    for place, one in zip(part.places.tolist(), part.reasons, strict=True):
        n, S, Q = one.statistics
        graph = int(networks.plan[place]), int(networks.size[place]), tuple(networks.expected[place].tolist())
        packed.append(
            PackedReasons(
                one.place, one.flagged, str(one.amount), n, str(S), str(Q), one.oldest, one.newest, one.scoring,
                one.severity, *graph,
            )
        )  # fmt: skip
    return packed


def unpack_reasons(packed: Sequence[PackedReasons], q: int) -> tuple[list[Reasons], Networks]:
    """The inverse of `pack_reasons`, of all parts of a batch with `q` purchases.

    The networks are known only where there are reasons.
    """
    networks = _networks(np.full(q, Plan.PARTITION, np.int8), np.full(q, -1, np.int64), np.full((q, COMPARED), -1))
    reasons = []
    for one in packed:
        networks.plan[one.place], networks.size[one.place] = one.plan, one.size
        networks.expected[one.place] = one.expected
        statistics = Statistics(one.n, int(one.S), int(one.Q))
        scoring = Scoring(*one.scoring) if one.scoring is not None else None
        reasons.append(
            Reasons(one.place, one.flagged, int(one.amount), statistics, one.oldest, one.newest, scoring, one.severity)
        )
    return reasons, networks


def pack_part(windows: Windows, own: Windows | None, networks: Networks) -> PackedPart:
    """The windows of one part."""
    packed = _pack_windows(own) if own is not None else None
    graph = networks.plan.tobytes(), networks.size.tobytes(), networks.expected.tobytes()
    return PackedPart(_pack_windows(windows), packed, *graph)


def unpack_part(part: PackedPart) -> tuple[Windows, Windows | None, Networks]:
    """The inverse of `pack_part`. The windows can be sorted in place."""
    own = _unpack_windows(part.own) if part.own is not None else None
    expected = np.frombuffer(part.expected, np.int64).reshape(-1, COMPARED)
    networks = _networks(np.frombuffer(part.plan, np.int8), np.frombuffer(part.size, np.int64), expected)
    return _unpack_windows(part.windows), own, networks


def pack_networks(networks: Networks) -> PackedNetworks:
    """Networks of which all members are known."""
    offsets, members = networks.offsets, networks.members
    q, width = len(networks.plan), 8 * -(-(int(members.max(initial=-1)) + 1) // 8)
    graph = networks.plan.tobytes(), networks.size.tobytes(), networks.expected.tobytes()
    if not width or q * width // 8 >= offsets.nbytes + members.nbytes:
        return PackedNetworks(0, offsets.tobytes(), members.tobytes(), *graph)
    bits = np.zeros((q, width), np.bool_)
    bits[np.repeat(np.arange(q), np.diff(offsets)), members] = True
    return PackedNetworks(width, b"", np.packbits(bits).tobytes(), *graph)


def unpack_networks(packed: PackedNetworks) -> Networks:
    """The inverse of `pack_networks`; the members of a network may be in another order."""
    plan, expected = np.frombuffer(packed.plan, np.int8), np.frombuffer(packed.expected, np.int64)
    networks = _networks(plan, np.frombuffer(packed.size, np.int64), expected.reshape(-1, COMPARED))
    if not packed.width:
        members = np.frombuffer(packed.members, np.int32)
        return networks._replace(offsets=np.frombuffer(packed.offsets, np.int64), members=members)
    bits = np.unpackbits(np.frombuffer(packed.members, np.uint8)).reshape(len(plan), packed.width)
    rows, places = np.nonzero(bits)
    offsets = np.searchsorted(rows, np.arange(len(plan) + 1))
    return networks._replace(offsets=offsets, members=places.astype(np.int32))


def _networks(plan: NDArray[np.int8], size: NDArray[np.int64], expected: NDArray[np.int64]) -> Networks:
    """Networks without their members."""
    q = len(plan)
    return Networks(np.zeros(q + 1, np.int64), np.zeros(0, np.int32), plan, size, expected, Windows.empty(q))


def _pack_windows(windows: Windows) -> PackedWindows:
    offsets, seq, timestamp, amount = windows
    return PackedWindows(
        offsets.tobytes(), seq.tobytes(), timestamp.tobytes(), amount.held.tobytes(), _large_of(amount)
    )


def _unpack_windows(packed: PackedWindows) -> Windows:
    offsets, seq, timestamp, amount = (
        np.frombuffer(column, np.int64).copy()  # a detector sorts them in place
        for column in (packed.offsets, packed.seq, packed.timestamp, packed.amount)
    )
    return Windows(offsets, seq, timestamp, Amounts(amount, _by_name(packed.large)))


def _large_of(amounts: Amounts) -> LargeByName:
    return {name: str(amounts.large[name]) for name in amounts.named()}


def _by_name(large: Mapping[int, str]) -> dict[int, int]:
    return {name: int(text) for name, text in large.items()}

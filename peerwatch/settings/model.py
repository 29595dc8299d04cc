"""The settings model, and the origin of each value.

A command-line option takes precedence over the YAML config, then come the batch log's header line and the default.
`configs/default.yaml` explains every key.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from peerwatch.errors import UsageError
from peerwatch.network.events import CANONICAL, FieldNames
from peerwatch.readable import path_of
from peerwatch.urls import is_url, without_secrets

Hops = Annotated[int, Meta(ge=1, le=2**31 - 1)]
WindowSize = Annotated[int, Meta(ge=2, le=2**31 - 1)]
Shards = Annotated[int, Meta(ge=1, le=256)]
Walkers = Annotated[int, Meta(ge=1, le=64)]
Deviations = Annotated[float, Meta(ge=0, le=1_000_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Part = Annotated[float, Meta(gt=0, lt=1)]
Score = Annotated[float, Meta(gt=0, le=1e300)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Count = Annotated[int, Meta(ge=1, le=2**62)]
TrainingRows = Annotated[int, Meta(ge=50, le=100_000)]
Kept = Annotated[int, Meta(ge=2, le=1_000_000)]  # at least two, in case the newest is damaged
LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Decisions = Literal["flagged", "all", "none"]
FieldName = Literal["event_type", "timestamp", "id", "amount", "id1", "id2"]
Days = Annotated[float, Meta(gt=0, le=1e5)]
Workers = Annotated[int, Meta(ge=1, le=64)]
Timeout = Annotated[float, Meta(gt=0, le=1e6)]
Delivery = Literal["exactly-once", "at-least-once"]
ClusterKind = Literal["none", "ray"]
ClusterBatch = Annotated[int, Meta(ge=1, le=1_000_000)]
Records = Literal["flagged", "decisions", "rejects", "notices"]
Friendships = Literal["mutual", "directed"]


class InputSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The logs to read."""

    batch: str | None = None
    stream: str | None = None
    rotated: str | None = None
    fields: dict[FieldName, str] = {}
    journal: bool = False

    def names(self) -> FieldNames:
        """The keys under which events have their fields."""
        return CANONICAL._replace(**self.fields)


class OutputSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which files are written, or which systems by their URLs."""

    flagged: str | None = None
    rejects: str | None = None
    verdicts: str | None = None
    decisions: str | None = None
    delivery: Delivery | None = None


class SinkSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One more sink: its file or URL, and the kinds of records that it gets."""

    to: str
    records: tuple[Records, ...] = ("flagged",)
    delivery: Delivery | None = None


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long servers are waited for, in seconds: for one answer, and in all before the run ends."""

    timeout: Timeout = 10.0
    give_up: Seconds = 300.0


class ServeSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The HTTP service beside a run; none if it does not listen. The store is a URL."""

    listen: str | None = None
    token_file: str | None = None
    hosts: tuple[str, ...] = ()
    store: str | None = None
    keep_days: Days = 30.0
    keep_megabytes: Count = 1000
    workers: Workers = 2
    max_body: Count = 1_048_576
    requests_per_second: Seconds = 1000.0


SIGMA: Final = "sigma"
"""The name of the exact detector, whose k is a key of its own."""
QUARANTINE: Final = "detector.quarantine"
"""The key of the setting that keeps flagged purchases out of windows."""


class TrainingSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The size of a training set, and the largest number of purchases between two of them."""

    rows: TrainingRows = 1000
    every: Count = 50_000


class AdaptSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The target of an adaptive threshold: a flag rate, or a precision among the labelled purchases."""

    flag_rate: Part | None = None
    precision: Part | None = None


class SeveritySettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The scores above which a flagged purchase is critical or an emergency. No levels if neither is set."""

    critical: Score | None = None
    emergency: Score | None = None


class ClusterSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The cluster whose workers hold the friend graph and the purchases; none if the run does it all itself.

    A worker that does not reply within `deadline` seconds is replaced. A `batch` is the most events in one.
    """

    engine: ClusterKind = "none"
    address: str | None = None
    workers: Workers = 2
    deadline: Timeout = 3.0
    batch: ClusterBatch = 16_384


class DetectorSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The detector that judges windows, and everything that is set for it."""

    name: str = SIGMA
    k: Deviations = 3.0
    parameters: dict[str, Any] = {}
    training: TrainingSettings = TrainingSettings()
    adapt: AdaptSettings = AdaptSettings()
    drift: bool = False
    quarantine: bool = False
    severity: SeveritySettings = SeveritySettings()

    def described(self) -> dict[str, Any]:
        """The detector and its parameters, as a record."""
        own = {"k": self.k} if self.name == SIGMA else {"parameters": self.parameters}
        return {"detector": self.name} | own

    def shown(self) -> str:
        """The detector and its parameters, as text."""
        if self.name == SIGMA:
            return f"k={self.k:g}"
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.parameters.items())])

    def exact_k(self) -> Fraction:
        """Return `k` as an exact decimal fraction, not the nearest binary one."""
        return Fraction(repr(self.k))


class ChallengerSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A second detector, whose verdicts are only compared. None if it has no name."""

    name: str | None = None
    k: Deviations = 3.0
    parameters: dict[str, Any] = {}

    def exact_k(self) -> Fraction:
        """Return `k` as an exact decimal fraction, not the nearest binary one."""
        return Fraction(repr(self.k))


Rule: TypeAlias = DetectorSettings | ChallengerSettings


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to log, in which format, and where."""

    format: LogFormat = "console"
    level: LogLevel = "warning"
    file: str | None = None
    decisions: Decisions = "flagged"
    users: tuple[str | int, ...] = ()
    sample: Share = 0.0


class StateSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The state directory, and how often checkpoints are taken."""

    directory: str | None = None
    seconds: Seconds = 10.0
    events: Count = 5_000_000
    keep: Kept = 2


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings of a run."""

    D: Hops | None = None
    T: WindowSize | None = None
    friendships: Friendships = "mutual"
    judge_batch: bool = False
    shards: Shards = 1
    walkers: Walkers = 2
    strict: bool = False
    quiet: bool = False
    follow: bool = False
    idle_exit: Seconds | None = None
    audit: Share = 0.0
    input: InputSettings = InputSettings()
    output: OutputSettings = OutputSettings()
    sinks: tuple[SinkSettings, ...] = ()
    servers: ServerSettings = ServerSettings()
    detector: DetectorSettings = DetectorSettings()
    challenger: ChallengerSettings = ChallengerSettings()
    logs: LogSettings = LogSettings()
    state: StateSettings = StateSettings()
    serve: ServeSettings = ServeSettings()
    cluster: ClusterSettings = ClusterSettings()

    @property
    def directed(self) -> bool:
        """Whether a friendship counts in one direction only."""
        return self.friendships == "directed"


RENAMED: Final = {"shadow": "audit", "detector.learning": "detector.training"}
"""Keys of earlier versions, and their present names."""
DEFAULT: Final = "default"
DIRECTORIES: Final = {"state.directory"}
PATHS: Final = {
    "input.batch", "input.stream", "input.rotated", "output.flagged", "output.rejects", "output.verdicts",
    "output.decisions", "logs.file", "serve.token_file",
    *DIRECTORIES,
}  # fmt: skip
"""The keys whose values are paths, or URLs."""


class Layer(msgspec.Struct, frozen=True):
    """Values by dotted key (`detector.k`) from one place, each with its origin (`FILE:LINE` or `--option`)."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]


NOTHING_SET: Final = Layer({}, {})


@cache
def keys() -> tuple[tuple[str, Any], ...]:
    """Every dotted key that can be set, with its type."""
    return tuple(_keys(Settings, ""))


def _keys(kind: type[Struct], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if isinstance(hint, type) and issubclass(hint, Struct):
            yield from _keys(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


def value_of(settings: Settings, key: str) -> Any:
    """Return the value of a dotted key."""
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def resolve(*layers: Layer) -> tuple[Settings, dict[str, str]]:
    """Merge layers, the strongest first. Returns the settings and the origin of each key.

    Raises:
        UsageError: a value has the wrong type or is invalid.
    """
    values: dict[str, Any] = {}
    origins = {key: DEFAULT for key, _ in keys()}
    for layer in reversed(layers):
        values |= layer.values
        origins |= layer.origins
    for key, hint in keys():
        if key in values:
            _check(key, values[key], hint, origins[key])
    for key in PATHS & values.keys():
        if values[key] is not None:
            values[key] = _path(key, values[key], origins[key])
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        level = nested
        for step in path:
            level = level.setdefault(step, {})
        level[name] = value
    return msgspec.convert(nested, Settings), origins


def _check(key: str, value: Any, hint: Any, origin: str) -> None:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        is_field = "unknown field" in str(error)
        names = [*_names_in(hint, fields=is_field)] if is_field or "enum value" in str(error) else []
        wanted = f"one of {', '.join(names)}" if names else expected(error)
        wanted = f"each key in it to be {wanted}" if is_field and names else wanted
        raise UsageError(f'{origin}: "{key}" is {without_secrets(value)!r}; expected {wanted}') from None


def _names_in(hint: Any, *, fields: bool) -> Iterator[str]:
    """The names that a value of a type may consist of: the fields of structures, or else the choices."""
    if get_origin(hint) is Literal:
        yield from () if fields else get_args(hint)
    elif isinstance(hint, type) and issubclass(hint, Struct):
        yield from hint.__struct_fields__ if fields else ()
        for each in get_type_hints(hint).values():
            yield from _names_in(each, fields=fields)
    else:
        for each in get_args(hint):
            yield from _names_in(each, fields=fields)


def _path(key: str, value: str, origin: str) -> str:
    if is_url(value):
        return value
    try:
        return path_of(value, directory=key in DIRECTORIES)
    except ValueError as error:
        wanted = "a directory" if key in DIRECTORIES else "a file"
        raise UsageError(f'{origin}: "{key}" is {value!r}, which {error}; name {wanted}') from None


def expected(error: msgspec.ValidationError) -> str:
    """Describe the expected kind of value, given the validation error."""
    words = str(error).partition(", got")[0].partition(" - at")[0]
    return words.removeprefix("Expected ").replace("`", "").replace(" | null", "")

"""`peerwatch.Engine` feeds events from your own program and returns decisions."""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
import numpy as np

from peerwatch import kernels
from peerwatch.decisions import Decision, decisions_of
from peerwatch.detectors.base import Detector
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.durable import replace_file
from peerwatch.errors import BadInput, UsageError
from peerwatch.judging.detector_judge import DetectorJudge
from peerwatch.judging.engine import JudgedBatch, JudgingEngine
from peerwatch.judging.judge import Judge
from peerwatch.judging.labels import Label
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.judging.state import Arrays, State, StateFacts
from peerwatch.judging.training import Learner
from peerwatch.network.decoder import Events
from peerwatch.network.interner import ids_of
from peerwatch.network.rejects import RejectedLine
from peerwatch.readable import shown, why_damaged, why_unwritable
from peerwatch.settings.model import SIGMA, Friendships

if TYPE_CHECKING:
    from peerwatch.judging.quarantine_engine import QuarantineEngine

Lines = bytes | str | Mapping[str, Any] | Iterable[bytes | str | Mapping[str, Any]]
"""Events: log text in whole lines, one event as a mapping, or an iterable of lines and mappings."""
FORMAT: Final = "peerwatch engine"
VERSION: Final = 3
OLDEST: Final = 1
"""The earliest version that can be read: it knew mutual friendships only. Version 2 knew no quarantine."""
_encoder = msgspec.json.Encoder(decimal_format="number")
SIGMA_K: Final = 3.0
MOST_K: Final = 1_000_000
TRAINING_ROWS: Final = 1000
TRAINING_EVERY: Final = 50_000


class _SavedEngine(msgspec.Struct, frozen=True):
    """The part of a saved engine that is not arrays. `detector` is a built-in name, or `package.module:Class`."""

    format: str
    version: int
    D: int
    T: int
    k: str
    detector: str | None
    parameters: dict[str, Any]
    rows: int
    every: int
    facts: StateFacts
    friendships: Friendships = "mutual"
    quarantine: bool = False


class Engine:
    """Judges purchases in the order in which events are fed, with the same decisions as `peerwatch run`.

    A network reaches `D` hops (at least 1); a window holds the `T` latest purchases of the network (at least 2).
    `friendships` are "mutual", or "directed": then befriending makes the second user a friend of the first alone. The
    default rule flags an amount above mean + `k` standard deviations of its window; k is 3 if it is not given. Pass
    another `detector`: its name, or one with parameters from `peerwatch.detector`. A learned detector is first trained
    on `training_rows` purchases, and again after `training_every` more at the latest. With `quarantine` a flagged
    purchase is in no window until `release` is called for it. Lines that are not events are skipped and collected in
    `rejected`.

    Raises:
        BadInput: a parameter is invalid.
    """

    def __init__(
        self,
        D: int,
        T: int,
        *,
        friendships: Friendships = "mutual",
        k: float | None = None,
        detector: Detector | str | None = None,
        training_rows: int = TRAINING_ROWS,
        training_every: int = TRAINING_EVERY,
        quarantine: bool = False,
    ) -> None:
        D, T = whole("D", D, 1), whole("T", T, 2)
        if friendships not in get_args(Friendships):
            raise BadInput(f"friendships is {friendships!r}; expected one of {', '.join(get_args(Friendships))}")
        if not isinstance(quarantine, bool):
            raise BadInput(f"quarantine is {quarantine!r}; expected True or False")
        detector = None if detector == SIGMA else detector
        if k is not None and detector is not None:
            raise BadInput("k is for the default rule; give a detector its own: peerwatch.detector('mad', k=3.5)")
        k = number_of_deviations(SIGMA_K if k is None else k)
        detector = make(detector, {}) if isinstance(detector, str) else detector
        if not 2 <= training_rows <= training_every:
            raise BadInput(
                f"training_rows is {training_rows} and training_every is {training_every}; expected 2 <= rows <= every"
            )
        self.D = D
        self.T = T
        self.friendships = friendships
        self.quarantine = quarantine
        self._k = Fraction(repr(k))
        self._training = training_rows, training_every
        self.rejected: list[RejectedLine] = []
        """The lines that are not events, in order."""
        self._line = 1
        self._log = "the events"
        self._names: list[str] = []
        kernels.load()
        self._open(State.fresh(D, T, 1, directed=friendships == "directed", quarantine=quarantine), detector)

    def _open(self, state: State, detector: Detector | None) -> None:
        self._detector = detector
        judge: Judge = SigmaJudge(Sigma(self._k))
        if detector is not None:
            judge = DetectorJudge(detector, Learner(*self._training) if detector.trains else None)
        self._core = JudgingEngine(state, judge, sizes=True)  # a decision tells the network's size
        self._kept_out: QuarantineEngine | None = None
        if self.quarantine:
            from peerwatch.judging import quarantine_engine  # noqa: PLC0415 (its kernels)

            self._kept_out = quarantine_engine.QuarantineEngine(state, judge, self.T)

    @property
    def events(self) -> int:
        """The number of events fed so far, which is also the sequence number of the last one."""
        return self._core.state.progress.events

    def begin_log(self, name: str, line: int = 1) -> None:
        """Begin a log called `name`: lines are counted from `line`, while event numbers continue."""
        self._log, self._line = name, line

    def learn(self, events: Lines) -> None:
        """Add events without judging them, as the history before the first decision.

        Raises:
            BadInput: an item is neither a line nor a mapping that can be written as JSON.
        """
        self._core.apply(self._decoded(events))

    def feed(self, events: Lines) -> list[Decision]:
        """Add events, and return the decision on each purchase among them, in order.

        Raises:
            BadInput: an item is neither a line nor a mapping that can be written as JSON.
            RunError: the detector failed.
        """
        found = self._decoded(events)
        return [each for judged in self._decided(found) for each in decisions_of(judged, self._name)]

    def release(self, seq: int) -> bool:
        """Have a flagged purchase count from the next event on, as if it had never been kept out.

        `seq` is the `seq` of its decision. Returns False if it is not in quarantine.

        Raises:
            UsageError: the engine has no quarantine.
        """
        if self._kept_out is None:
            raise UsageError("this engine keeps nothing out of windows; create it with quarantine=True")
        return self._kept_out.release(Label(seq, None, anomaly=False))

    def save(self, path: str | Path) -> None:
        """Save the whole state to a file, atomically. The file holds plain arrays and JSON, and no code.

        Raises:
            BadInput: the detector cannot be saved.
            UsageError: the file cannot be written; an older file at `path` is unchanged.
        """
        state, judge = self._core.state, self._core.judge
        facts = StateFacts(state.progress, state.flagged, state.verdicts, 1, sorted(state.decoder.unseen))
        name, parameters = None, {}
        model: Mapping[str, Any] = {}
        if self._detector is not None:
            name = f"{type(self._detector).__module__}:{type(self._detector).__qualname__}"
            parameters = self._detector.get_params()
            if judge.learner is not None and judge.learner.version:
                model = judge.detector.arrays()
        rows, every = self._training
        try:
            sealed = msgspec.json.encode(
                _SavedEngine(
                    FORMAT, VERSION, self.D, self.T, str(self._k), name, parameters, rows, every, facts,
                    self.friendships, self.quarantine,
                )
            )  # fmt: skip
        except TypeError as error:
            raise BadInput(f"{name} cannot be saved: {error}") from None
        arrays = {"facts": np.frombuffer(sealed, np.uint8)}
        for prefix, part in (("state", state.arrays()), ("judge", judge.arrays()), ("model", model)):
            arrays |= {f"{prefix}.{key}": np.asarray(array) for key, array in part.items()}
        where = Path(path)
        try:
            if where.is_dir():  # such as ".", which has no name that a new file could be beside
                raise IsADirectoryError(where)
            replace_file(where, lambda file: np.savez(file, allow_pickle=False, **arrays))
        except OSError as error:
            raise UsageError(f"cannot write {shown(where)}: {why_unwritable(where, error)}") from None

    @classmethod
    def load(cls, path: str | Path, *, detector: Detector | None = None) -> "Engine":
        """Load a saved engine. Fed the same events, it makes the same decisions as the original would.

        If the detector is a class of your own, pass it as `detector`.

        Raises:
            UsageError: the file cannot be read, is damaged or of another version, or was saved with another detector.
        """
        where = Path(path)
        try:
            with where.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = dict(archive)
            saved = msgspec.json.decode(arrays.pop("facts").tobytes(), type=_SavedEngine)
            if saved.format != FORMAT or not OLDEST <= saved.version <= VERSION:
                raise ValueError(  # noqa: TRY301
                    f"its version is {saved.version}, this peerwatch reads {OLDEST} to {VERSION}"
                )
            engine = cls(
                saved.D, saved.T, friendships=saved.friendships, k=float(Fraction(saved.k)), training_rows=saved.rows,
                training_every=saved.every, quarantine=saved.quarantine,
            )  # fmt: skip
            directed = saved.friendships == "directed"
            state = State.restored(saved.D, saved.T, 1, [], _part(arrays, "state"), saved.facts, directed=directed)
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise UsageError(f"cannot read the engine {shown(where)}: {error.strerror}") from None
        except Exception as error:  # numpy, zipfile and msgspec raise many kinds for a damaged file
            raise UsageError(f"{shown(where)} is not a saved engine, or is damaged ({why_damaged(error)})") from error
        if saved.detector is not None:
            detector = _expected(saved, detector, where)
        engine._open(state, detector)
        engine._core.judge.restore(
            _part(arrays, "judge"), lambda _, like: type(like)(**like.get_params()).restore(_part(arrays, "model"))
        )
        return engine

    def _decided(self, events: Events) -> Iterator[JudgedBatch]:
        if self._kept_out is None:
            yield from self._core.decide(events)
            return
        state, judged = self._core.state, 0
        for batch in self._kept_out.decide(events, state.progress.events + 1):
            judged += len(batch.events)
            yield batch
        state.advance(len(events), judged)

    def _decoded(self, events: Lines) -> Events:
        content = text_of(events)
        decoder = self._core.state.decoder
        decoded = decoder.decode(content, self._line)
        self.rejected += [RejectedLine(self._log, line, start, why, raw) for line, start, why, raw in decoded.rejected]
        self._line += content.count(b"\n") + (not content.endswith(b"\n") and bool(content))
        return decoded.events

    def _name(self, user: int) -> str:
        if user >= len(self._names):
            columns = self._core.state.decoder.interner.columns()
            self._names += [each.decode() for each in ids_of(*columns, len(self._names))]
        return self._names[user]


def whole(name: str, value: Any, least: int) -> int:
    """A whole number that is at least `least`.

    Raises:
        BadInput: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise BadInput(f"{name} is {value!r}; expected a whole number, at least {least}")
    return int(value)


def number_of_deviations(k: Any) -> float:
    """The k of the default rule.

    Raises:
        BadInput: it is no number from 0 to 1,000,000.
    """
    if isinstance(k, bool) or not isinstance(k, int | float | np.integer | np.floating) or not 0 <= k <= MOST_K:
        raise BadInput(f"k is {k!r}; expected a number from 0 to {MOST_K:,}")
    return float(k)


def text_of(events: Lines) -> bytes:
    """Convert events to the text of a log.

    Raises:
        BadInput: an item is neither a line nor a mapping that can be written as JSON.
    """
    if isinstance(events, bytes):
        return events
    if isinstance(events, str):
        return events.encode()
    if isinstance(events, Mapping):
        return _line_of(events)
    if not isinstance(events, Iterable):
        raise BadInput(f"events are lines (str or bytes) or mappings, one or many; got {type(events).__name__}")
    return b"".join(map(_line_of, events))


def _line_of(event: bytes | str | Mapping[str, Any]) -> bytes:
    if isinstance(event, Mapping):
        try:
            text = _encoder.encode(dict(event))
        except (TypeError, ValueError, OverflowError) as error:
            raise BadInput(f"the event {dict(event)!r} cannot be written as JSON: {error}") from None
    elif isinstance(event, str):
        text = event.encode()
    elif isinstance(event, bytes):
        text = event
    else:
        raise BadInput(f"an event is a line (str or bytes) or a mapping; got {type(event).__name__}")
    return text if text.endswith(b"\n") else text + b"\n"


def _part(arrays: Arrays, prefix: str) -> dict[str, Any]:
    start = f"{prefix}."
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def _expected(saved: _SavedEngine, given: Detector | None, path: Path) -> Detector:
    """Return the detector to use with a saved engine, not yet trained."""
    name = _path_now(saved.detector or "")
    if given is not None:
        own = f"{type(given).__module__}:{type(given).__qualname__}"
        if own != name or msgspec.to_builtins(given.get_params()) != saved.parameters:
            raise UsageError(f"{shown(path)} was saved with {name} and {saved.parameters}; give that detector")
        return given
    if not name.startswith("peerwatch.detectors."):
        raise UsageError(f"{shown(path)} was saved with {name}, which is not peerwatch's own; give it as `detector`")
    return make(name, saved.parameters)


def _path_now(path: str) -> str:
    """The import path of a detector class; one of peerwatch's own may lie in another module than when it was saved."""
    now = {known.partition(":")[2]: known for known in DETECTORS.values()}
    return now.get(path.partition(":")[2], path) if path.startswith("peerwatch.detectors.") else path

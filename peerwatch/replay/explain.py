"""`peerwatch explain`: one decision, and everything it is based on, from the logs."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from anyio.to_thread import run_sync

from peerwatch.errors import UsageError
from peerwatch.judging.explanation import (
    Bought,
    Explanation,
    Grounds,
    Without,
    case_of,
    explain,
    features_of,
    grounds_of,
    latest_of,
)
from peerwatch.judging.judge import Case
from peerwatch.judging.severity import Level
from peerwatch.network.decoder import Decoder
from peerwatch.network.events import Kind
from peerwatch.network.neighbourhood import members_of, path_to
from peerwatch.network.statistics import CENT, decimal, shown_k
from peerwatch.readable import aligned, by_hop, listed, readable, rows, short, shown
from peerwatch.replay.event_selectors import ByLine, BySeq, ByUserAndTime, id_of, time_of
from peerwatch.replay.graph_position import GraphPosition, graph_lines, graph_position
from peerwatch.replay.judge_again import JudgedAgain, judged_again
from peerwatch.replay.replay import LineIndex, Opened, Past, Where, open_replay, parts, past, places_of
from peerwatch.runtime.decision_log import moment
from peerwatch.settings.model import SIGMA, Layer, resolve


class NetworkMember(msgspec.Struct, frozen=True):
    """A member of the network: how many hops away, and the users on one shortest path of friendships to it."""

    user: str
    hop: int
    path: list[str]


class WindowPurchase(msgspec.Struct, frozen=True):
    """A purchase in the window: event, file, line, user, hop, time and amount."""

    seq: int
    file: str
    line: int
    user: str
    hop: int
    timestamp: str
    amount: str


class Alternative(msgspec.Struct, frozen=True):
    """The verdict without one friendship (two users) or without one purchase of the window (its event)."""

    friendship: tuple[str, str] | None
    purchase: int | None
    window_size: int
    mean: str | None
    sd: str | None
    verdict: str


class ExplanationRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One explained decision. Integers that may not fit into 64 bits are written as strings.

    `k`, `threshold` (an amount) and the fields from `d` to `without` are None for detectors other than sigma. `graph`
    is left out unless it was asked for.

    `S` is the sum of the window's amounts in millionths, `Q` the sum of their squares. With k = p / q the purchase is
    flagged if d > 0 and `left` = (q d)^2 > `right` = p^2 (n Q - S^2), where d = n x - S. `flips_at` is the nearest
    amount with the opposite verdict, `cents_away` the number of whole cents to it; null if there is no such amount.
    """

    seq: int
    file: str
    line: int
    user: str
    timestamp: str
    amount: str
    D: int
    T: int
    k: str | None
    detector: str
    verdict: str
    n: int
    S: str
    Q: str
    mean: str | None
    sd: str | None
    threshold: str | None
    d: str | None
    left: str | None
    right: str | None
    flips_at: str | None
    cents_away: int | None
    without: list[Alternative] | None
    network: list[NetworkMember]
    window: list[WindowPurchase]
    graph: GraphPosition | None = None


class ScoredExplanation(ExplanationRecord, frozen=True, kw_only=True):
    """An explained decision of a detector other than sigma.

    `score` and `score_threshold` are as in a decision log. `model` is the version of the model that judged, 0 for none,
    and `model_since` the event from which it was active; None for a detector that is not trained. `features` are the
    purchase's features as the model gets them.
    """

    parameters: dict[str, Any]
    score: str
    score_threshold: str
    model: int | None
    model_since: int | None
    severity: Level | None
    features: dict[str, float] | None


async def explained(
    layers: Sequence[Layer],
    *,
    seq: int | None = None,
    line: int | None = None,
    user: str | None = None,
    at: str | None = None,
    graph: bool = False,
) -> ExplanationRecord:
    """Explain the decision on one purchase, named by `seq`, by `line` of the stream log, or by `user` and `at`.

    With `graph` the record also says whether the buyer's place in the friend graph is unusual.

    Raises:
        UsageError: the purchase is not named in exactly one of these ways, or there is no such decision.
    """
    ways = (seq is not None, line is not None, user is not None and at is not None)
    if sum(ways) != 1 or (user is None) != (at is None):
        raise UsageError("name one decision: --seq N, --line N, or --user ID with --at TIME")
    if user is not None and at is not None:
        seq = await _seq_of(layers, user, at)
    settings, _ = resolve(*layers)
    target = BySeq(seq) if seq is not None else ByLine(line or 0, shown(settings.input.stream or ""))
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, target.suits, stack)
        then = await past(opened, target)
        check_judged(opened, then)
        again = await judged_again(opened, then) if opened.settings.detector.name != SIGMA else None
    record = await explained_from(opened, then, again)
    return msgspec.structs.replace(record, graph=await graph_position(layers, then)) if graph else record


Again: TypeAlias = JudgedAgain | Callable[[Case], JudgedAgain] | None
"""The decision of a detector other than sigma, or what makes it again from the purchase alone."""


async def explained_from(
    opened: Opened, then: Past, again: Again, earlier: dict[int, LineIndex] | None = None
) -> ExplanationRecord:
    """Explain the decision on the judged purchase at the target of `then`. `earlier` is as for `places_of`.

    Raises:
        UsageError: a purchase of the window is not in the logs any more.
        RunError: a log could not be read any further, or the detector failed.
    """
    reasons = await run_sync(_reasons, opened, then, again)
    seqs = np.array([then.seq, *(bought.seq for bought in reasons.grounds.window)], np.int64)
    places = await places_of(opened, seqs, then.lines, earlier)
    return reasons.kind(**_shared(opened, then, reasons.grounds, places), **reasons.fields)


class _Explained(NamedTuple):
    """An explanation without the fields that all detectors share, and its kind of record."""

    grounds: Grounds
    kind: type[ExplanationRecord]
    fields: dict[str, Any]


def _reasons(opened: Opened, then: Past, again: Again) -> _Explained:
    graph, T, buyer = then.state.graph, opened.T, int(then.found.events.user[then.place])
    members = members_of(graph, buyer, graph.D, then.key)
    held = then.history.columns_of(np.array(sorted({buyer, *members}), np.int64))
    grounds = grounds_of(members, held, buyer, then.found.events.amount.exact(then.place), T)
    if again is None:
        found = explain(graph, held, grounds, T, opened.settings.detector.exact_k())
        return _Explained(grounds, ExplanationRecord, _by_sigma(found, then))
    own = latest_of(held, {buyer}, T)
    if not isinstance(again, JudgedAgain):
        again = again(case_of(grounds, _timestamp(then), own))
    wants_context = again.live.wants_context
    return _Explained(
        grounds, ScoredExplanation, _by_another(again, grounds, _timestamp(then), own if wants_context else None)
    )


async def _seq_of(layers: Sequence[Layer], user: str, at: str) -> int:
    wanted, decoder = ByUserAndTime(user, time_of(at)), Decoder([id_of(user)])
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, lambda _: False, stack)
        async with aclosing(parts(opened.logs, decoder, 0, opened.bookmarks)) as found:
            async for part in found:
                if part.judged or opened.settings.judge_batch:
                    wanted.look(part, int(decoder.named[0]))
    return wanted.seq()


def check_judged(opened: Opened, then: Past) -> None:
    """Check that the event at the target was judged.

    Raises:
        UsageError: it is not a purchase, or it was not judged.
    """
    events, place = then.found.events, then.place
    where = f"event {then.seq:,} ({then.found.file}:{int(events.line[place])})"
    if events.kind[place] != Kind.PURCHASE:
        kind = "a befriending" if events.kind[place] == Kind.BEFRIEND else "an unfriending"
        raise UsageError(f"{where} is {kind}; only purchases are judged")
    if not then.found.judged and not opened.settings.judge_batch:
        raise UsageError(f"{where} is in the batch log, which is not judged unless --judge-batch is given")


def _timestamp(then: Past) -> int:
    return int(then.found.events.timestamp[then.place])


def _shared(opened: Opened, then: Past, grounds: Grounds, places: dict[int, Where]) -> dict[str, Any]:
    """Return the fields that explanations of all detectors have in common."""
    name, statistics, own = Names(then), grounds.statistics, places[then.seq]
    known = statistics.n > 0
    return {
        "seq": then.seq,
        "file": own.file,
        "line": own.line,
        "user": name[grounds.user],
        "timestamp": moment(_timestamp(then)) or "",
        "amount": decimal(grounds.amount),
        "D": opened.D,
        "T": opened.T,
        "detector": opened.settings.detector.name,
        "n": statistics.n,
        "S": str(statistics.S),
        "Q": str(statistics.Q),
        "mean": statistics.mean() if known else None,
        "sd": statistics.sd() if known else None,
        "network": [
            NetworkMember(name[user], member.hop, [name[step] for step in path_to(user, grounds.members)])
            for user, member in grounds.members.items()
        ],
        "window": [_window_purchase(bought, grounds, name, places) for bought in grounds.window],
    }


def _by_sigma(found: Explanation, then: Past) -> dict[str, Any]:
    """The explanation of a decision by sigma."""
    k, statistics = found.k, found.grounds.statistics
    away = abs(found.flips_at - found.grounds.amount) if found.flips_at is not None else None
    return {
        "k": shown_k(k),
        "verdict": _verdict(flagged=found.flagged),
        "threshold": statistics.threshold(k) if statistics.n else None,
        "d": str(found.d),
        "left": str((found.d * k.denominator) ** 2),
        "right": str(k.numerator**2 * statistics.spread),
        "flips_at": decimal(found.flips_at) if found.flips_at is not None else None,
        "cents_away": -(-away // CENT) if away is not None else None,
        "without": [_alternative(other, found, Names(then)) for other in found.flipped_by],
    }


def _by_another(again: JudgedAgain, grounds: Grounds, timestamp: int, own: list[Bought] | None) -> dict[str, Any]:
    """The explanation of a decision by another detector."""
    decision, scoring = again.decision, again.scoring
    return {
        **dict.fromkeys(("k", "threshold", "d", "left", "right", "flips_at", "cents_away", "without")),
        "verdict": _verdict(flagged=decision.flagged),
        "parameters": again.parameters,
        "score": f"{scoring.score:.6g}",
        "score_threshold": f"{scoring.threshold:.6g}",
        "model": scoring.model,
        "model_since": again.since,
        "severity": decision.severity,
        "features": features_of(grounds, timestamp, own) if again.live.learns else None,
    }


class Names(dict[int, str]):
    """The ids of dense users as text."""

    def __init__(self, then: Past) -> None:
        super().__init__()
        self._then = then

    def __missing__(self, user: int) -> str:
        self[user] = self._then.name(user).decode()
        return self[user]


def _window_purchase(
    bought: Bought, grounds: Grounds, name: dict[int, str], places: dict[int, Where]
) -> WindowPurchase:
    where = places[bought.seq]
    return WindowPurchase(
        bought.seq, where.file, where.line, name[bought.user], grounds.members[bought.user].hop,
        moment(bought.timestamp) or "", decimal(bought.amount),
    )  # fmt: skip


def _alternative(other: Without, found: Explanation, name: dict[int, str]) -> Alternative:
    statistics = other.statistics
    friendship = (name[other.friendship[0]], name[other.friendship[1]]) if other.friendship is not None else None
    return Alternative(
        friendship,
        other.purchase,
        statistics.n,
        statistics.mean() if statistics.n else None,
        statistics.sd() if statistics.n else None,
        _verdict(flagged=not found.flagged),
    )


def _verdict(*, flagged: bool) -> str:
    return "flagged" if flagged else "normal"


def as_text(record: ExplanationRecord) -> str:
    """The explanation as text for a person."""
    why = _scored(record) if isinstance(record, ScoredExplanation) else [*_rule(record), *_flips(record)]
    return "\n".join([rows([*_head(record), *why]), *_network(record), *_window(record)])


def _head(record: ExplanationRecord) -> list[tuple[str, str]]:
    parameters = record.parameters if isinstance(record, ScoredExplanation) else {"k": record.k}
    by = " ".join(f"{name}={value}" for name, value in {"D": record.D, "T": record.T, **parameters}.items())
    hops = by_hop(member.hop for member in record.network)
    head = [
        ("purchase", f"user {readable(record.user)} paid {record.amount} at {short(record.timestamp)}"),
        ("", f"{record.file}:{record.line}, event {record.seq:,}"),
        ("verdict", f"{record.verdict.upper()} by {record.detector} with {by}"),
        ("network", f"{len(record.network):,} users{hops}"),
        *(graph_lines(record.graph) if record.graph is not None else []),
    ]
    if record.n:
        head += [
            ("window", f"n = {record.n} latest purchases of the network; mean {record.mean}, sd {record.sd}"),
            ("", f"S = {record.S}  Q = {record.Q}  (sums of amounts and of their squares, in millionths)"),
        ]
    else:
        head.append(("window", "empty: nobody in the network had bought anything"))
    return head


def _scored(record: ScoredExplanation) -> list[tuple[str, str]]:
    """Score, model and features, as lines of text."""
    said = [("score", f"{record.score}; above {record.score_threshold} a purchase is flagged")]
    if record.score == "nan":
        said = [("score", "none: the window is too small, or its numbers too large")]
    if record.model == 0:
        said = [("score", "none: nothing had been learned yet")]
    elif record.model is not None:
        since = f", active from event {record.model_since:,} on" if record.model_since is not None else ""
        said.append(("model", f"{record.model}{since}"))
    if record.severity is not None:
        said.append(("severity", record.severity))
    table = aligned([(name, f"{value:.4g}") for name, value in (record.features or {}).items()], right=(1,))
    return [*said, *zip(["features", *[""] * len(table)], table, strict=False)]


def _rule(record: ExplanationRecord) -> list[tuple[str, str]]:
    """The inequality by which sigma decides, as lines of text."""
    if record.n < 2:
        return [("rule", "a window of fewer than two purchases never flags")]
    p, q = Fraction(record.k or 0).as_integer_ratio()
    left, right = ("d*d", f"{p * p}*(n*Q - S*S)") if q == 1 else (f"{q * q}*d*d", f"{p * p}*(n*Q - S*S)")
    sign = ">" if int(record.left or 0) > int(record.right or 0) else "<="
    return [
        ("rule", f"flagged above mean + k*sd = {record.threshold}, that is if d = n*x - S > 0 and {left} > {right}"),
        ("", f"d = {record.d}"),
        ("", f"{record.left} {sign} {record.right}" + (", but d is not above 0" if int(record.d or 0) <= 0 else "")),
    ]


def _flips(record: ExplanationRecord) -> list[tuple[str, str]]:
    other = "normal" if record.verdict == "flagged" else "flagged"
    if record.flips_at is None:
        found = [("flips", f"no amount would be {other}")]
    else:
        cents = f"{record.cents_away:,} cent{'s' * (record.cents_away != 1)}"
        less = "less" if record.verdict == "flagged" else "more"
        found = [("flips", f"at {record.flips_at} it would be {other}: {cents} {less}")]
    places = {bought.seq: bought for bought in record.window}
    for way in record.without or []:
        then = f"window {way.window_size}, mean {way.mean}, sd {way.sd}"
        if way.friendship is not None:
            a, b = map(readable, way.friendship)
            found.append(("", f"without the friendship of {a} and {b}: {other} ({then})"))
        elif way.purchase is not None:
            bought = places[way.purchase]
            what = f"{readable(bought.user)}'s purchase of {bought.amount} (event {bought.seq:,})"
            found.append(("", f"without {what}: {other} ({then})"))
    if not record.without:
        found.append(("", f"without any one friendship or purchase it would still not be {other}"))
    return found


def _network(record: ExplanationRecord) -> list[str]:
    hops = sorted({member.hop for member in record.network})
    return [listed(f"hop {hop}", [member.user for member in record.network if member.hop == hop]) for hop in hops]


def _window(record: ExplanationRecord) -> list[str]:
    if not record.window:
        return []
    paths = {member.user: " - ".join(map(readable, member.path)) for member in record.network}
    table = [("when", "amount", "event", "where", "who, by which friendships")]
    table += [
        (short(bought.timestamp), bought.amount, f"{bought.seq:,}", f"{bought.file}:{bought.line}", paths[bought.user])
        for bought in record.window
    ]
    return ["", *aligned(table, right=(1, 2))]

"""The naive reference: the contract written down as plainly as possible, with nothing of peerwatch in it.

Dictionaries, sets, sorted lists, `json`, `Decimal` and `datetime`; as slow as it likes.
"""

import json
import re
from datetime import datetime, timedelta, timezone
from decimal import Context, Decimal
from fractions import Fraction
from math import isqrt
from typing import Any, NamedTuple

EXACT = Context(prec=2000, Emax=10**6, Emin=-(10**6))


class Answer(NamedTuple):
    """The output's bytes and the numbers of the rejected lines of each log."""

    flagged: bytes
    batch_rejected: list[int]
    stream_rejected: list[int]


def amount_of(value: Any) -> int:
    """Millionths."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError(value)
    text = str(value)
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise ValueError(value)
    number = EXACT.create_decimal(text)
    micros = EXACT.multiply(number, Decimal(10**6))
    if number < 0 or number.adjusted() >= 308 or micros != micros.to_integral_value(context=EXACT):
        raise ValueError(value)
    return int(micros)


def time_of(value: Any) -> datetime:
    """With a time zone."""
    match = re.fullmatch(
        r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,6})?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?",
        value,
    )
    if not match:
        raise ValueError(value)
    day, clock, fraction, zone, _ = match.groups()
    moment = datetime.strptime(f"{day} {clock}Z", "%Y-%m-%d %H:%M:%S%z")
    moment += timedelta(microseconds=int((fraction or ".0")[1:].ljust(6, "0")))
    offset = timedelta(0)
    if zone and zone != "Z":
        hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
        if hours > 23 or minutes > 59:
            raise ValueError(value)
        offset = timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
    return moment.replace(tzinfo=timezone(offset))


def id_of(value: Any) -> str:
    """The user's id; 5 and "5" are the same."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(value)
    return str(value)


def own_part(line: bytes) -> bytes:
    """The line without the NUL bytes and byte-order marks that stand before it."""
    while line.startswith((b"\0", b"\xef\xbb\xbf")):
        line = line.removeprefix(b"\0").removeprefix(b"\xef\xbb\xbf")
    return line


def event_of(line: bytes) -> tuple[Any, ...]:
    """A tuple that begins with the event's type and time.

    Raises:
        ValueError, KeyError, TypeError: the line is not an event.
    """

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    fields = json.loads(line.decode(), parse_float=Decimal, parse_constant=refuse)
    if not isinstance(fields, dict):
        raise TypeError(fields)
    kind = fields["event_type"]
    when = time_of(fields["timestamp"])
    if kind == "purchase":
        return kind, when, id_of(fields["id"]), amount_of(fields["amount"])
    if kind not in {"befriend", "unfriend"}:
        raise ValueError(kind)
    a, b = id_of(fields["id1"]), id_of(fields["id2"])
    if a == b:
        raise ValueError(a)
    return kind, when, a, b


def network_of(friends: dict[str, set[str]], user: str, D: int) -> set[str]:
    """Everyone within D hops."""
    reached = {user}
    for _ in range(D):
        reached |= {friend for member in reached for friend in friends.get(member, ())}
    return reached - {user}


def judge(
    batch: bytes | None, stream: bytes, D: int, T: int, k: Fraction = Fraction(3), *, directed: bool = False,
    judge_batch: bool = False,
) -> Answer:  # fmt: skip
    """Judge the logs; `batch` has no header line."""
    friends: dict[str, set[str]] = {}
    purchases: list[tuple[datetime, int, str, int]] = []
    flagged: list[bytes] = []
    rejected: tuple[list[int], list[int]] = ([], [])
    for log, content in enumerate((batch or b"", stream)):
        for number, line in enumerate(content.split(b"\n"), 1):
            text = own_part(line).removesuffix(b"\r")
            if not text.strip(b" \t\r"):
                continue
            try:
                kind, when, a, b = event_of(text)
            except (ValueError, KeyError, TypeError, RecursionError):
                rejected[log].append(number)
                continue
            if kind == "purchase":
                if log == 1 or judge_batch:
                    members = network_of(friends, a, D)
                    window = [p[3] for p in sorted(p for p in purchases if p[2] in members)[-T:]]
                    verdict = verdict_of(window, b, k)
                    if verdict is not None:
                        brace = text.rindex(b"}")
                        verdict += ', "log": "batch"' if log == 0 else ""
                        flagged.append(text[:brace] + verdict.encode() + text[brace:] + b"\n")
                purchases.append((when, len(purchases), a, b))
            elif kind == "befriend":
                friends.setdefault(a, set()).add(b)
                if not directed:
                    friends.setdefault(b, set()).add(a)
            else:
                friends.get(a, set()).discard(b)
                if not directed:
                    friends.get(b, set()).discard(a)
    return Answer(b"".join(flagged), *rejected)


def verdict_of(window: list[int], amount: int, k: Fraction) -> str | None:
    """The fields to add if the amount is anomalous."""
    n = len(window)
    if n < 2:
        return None
    S, Q = sum(window), sum(a * a for a in window)
    d, variance = n * amount - S, n * Q - S * S
    if d <= 0 or d * d <= k * k * variance:
        return None
    mean, sd = S // n // 10**4, isqrt(variance) // n // 10**4
    return f', "mean": "{mean // 100}.{mean % 100:02}", "sd": "{sd // 100}.{sd % 100:02}"'

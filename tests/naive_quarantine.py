"""Quarantine by the plainest means: the log replayed in dictionaries, and what is flagged set aside until released."""

import json
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from naive_explanation import Bought, World, events_of
from reference import verdict_of

from peerwatch.judging.labels import Label


class Heard(NamedTuple):
    """Labels that are read before the first judged purchase from event `seq` on."""

    seq: int
    labels: list[Label]


class Scheduled:
    """Labels as a run gets them, as if it had been written down when each was read."""

    def __init__(self, heard: Sequence[Heard]) -> None:
        self._heard = heard

    def look(self) -> None:
        """There are no others."""

    def since(self, heard: int) -> int | None:
        """Before which event the next ones are read."""
        return self._heard[heard].seq if heard < len(self._heard) else None

    def has_more(self, heard: int) -> bool:  # noqa: ARG002
        """None beyond those that are written down."""
        return False

    def hear(self, seq: int, heard: int) -> tuple[list[Label], int]:
        """The next ones."""
        assert seq >= self._heard[heard].seq
        return self._heard[heard].labels, heard + 1


def heard_in(state: Path) -> list[Heard]:
    """The labels in a state directory, all of lines, as the run has read them by its journal."""
    heard, begin, labels = [], 0, b""
    with suppress(FileNotFoundError):
        labels = (state / "feedback.jsonl").read_bytes()
    for line in (state / "journal.jsonl").read_bytes().splitlines():
        entry = json.loads(line)
        if entry["what"] == "feedback":
            found = [json.loads(each) for each in labels[begin : entry["value"]].splitlines()]
            begin = entry["value"]
            heard.append(Heard(entry["seq"], [Label(None, one["line"], one["label"] == "anomaly") for one in found]))
    return heard


class Quarantined:
    """Friends and purchases after some events, without what is set aside."""

    def __init__(self, D: int, T: int, k: Fraction, heard: Sequence[Heard] = (), *, directed: bool = False) -> None:
        self.world, self.aside = World(directed=directed), list[Bought]()
        self.window: list[Bought] = []
        """That of the latest verdict, the oldest first."""
        self._D, self._T, self._k, self._heard = D, T, k, list(heard)

    def hear(self, seq: int) -> None:
        """Release what labels name that are read before event `seq`."""
        while self._heard and self._heard[0].seq <= seq:
            for label in self._heard.pop(0).labels:
                named = [
                    one
                    for one in self.aside
                    if one.seq == label.seq or (one.file == "stream" and one.line == label.line)
                ]
                if named and not label.anomaly:
                    self.aside.remove(named[-1])
                    self.world.purchases.append(named[-1])

    def verdict(self, bought: Bought) -> str | None:
        """The fields to add to a flagged purchase; None if it is not."""
        self.hear(bought.seq)
        members = self.world.hops(bought.user, self._D)
        self.window = sorted(p for p in self.world.purchases if p.user in members)[-self._T :]
        verdict = verdict_of([p.amount for p in self.window], bought.amount, self._k)
        (self.world.purchases if verdict is None else self.aside).append(bought)
        return verdict


def judge_with_quarantine(
    batch: bytes | None, stream: bytes, D: int, T: int, k: Fraction, heard: Sequence[Heard] = (), **options: bool
) -> bytes:
    """What is flagged, in the output's bytes; `batch` has no header line."""
    decisions = decide_with_quarantine(batch, stream, D, T, k, heard, **options)
    return b"".join(one.flagged for one in decisions if one.flagged is not None)


class NaiveDecision(NamedTuple):
    """A judged purchase, the lines of the stream log in its window, and the line to write if it is flagged."""

    line: int
    window: list[int]
    flagged: bytes | None


def decide_with_quarantine(
    batch: bytes | None, stream: bytes, D: int, T: int, k: Fraction, heard: Sequence[Heard] = (), *,
    directed: bool = False, judge_batch: bool = False,
) -> list[NaiveDecision]:  # fmt: skip
    """Every decision; `batch` has no header line."""
    naive, seq, decisions = Quarantined(D, T, k, heard, directed=directed), 0, list[NaiveDecision]()
    for file, content in (("batch", batch or b""), ("stream", stream)):
        for line, text, event in events_of(content):
            seq += 1
            if event[0] != "purchase" or (file == "batch" and not judge_batch):
                naive.world.apply(event, seq, file, line)
                continue
            verdict, flagged = naive.verdict(Bought(event[1], seq, event[2], event[3], file, line)), None
            if verdict is not None:
                verdict += ', "log": "batch"' if file == "batch" else ""
                brace = text.rindex(b"}")
                flagged = text[:brace] + verdict.encode() + text[brace:] + b"\n"
            window = [one.line for one in reversed(naive.window) if one.file == "stream"]
            decisions.append(NaiveDecision(line, window, flagged))
    return decisions

"""Judges purchases whose windows depend on the verdicts before them, because flagged ones are kept out.

Purchases are judged in the longest runs in which nobody's network holds a buyer of the same run: within such a run no
verdict depends on another.
"""

from collections.abc import Sequence

import numpy as np

from peerwatch.amounts import Amounts, united
from peerwatch.judging.judge import BatchVerdicts, Case, Judge, Mask, joined
from peerwatch.judging.quarantine import Purchases
from peerwatch.kernels import Int8s, Int32s, Int64s, grown, kernel
from peerwatch.network.networks import Networks, alone
from peerwatch.network.order_in_time import keep_latest
from peerwatch.network.windows import Windows


class TurnJudge:
    """Judges purchases in turn, so that none is in a window whose verdict is to keep it out."""

    def __init__(self, judge: Judge, T: int) -> None:
        """Windows of T purchases. The judge must decide each window by itself."""
        self._judge, self._T = judge, T
        self._bought: Int64s = np.zeros(0, np.int64)
        """For each user, the number of the latest run in which the user has bought."""
        self._newest: Int32s = np.zeros(0, np.int32)
        """For each user, the place of the latest purchase in hand that counts, -1 if there is none."""
        self._runs = 0

    def judged(self, case: Case, buyers: Int32s, networks: Networks, users: int) -> tuple[Case, BatchVerdicts]:
        """Judge q purchases; return them with their full windows, and the verdicts.

        The windows of `case` (and the buyers' own purchases, if it has them) are as of the first of the q. `networks`
        must hold members for each purchase. All dense users are below `users`.
        """
        self._reserve(users)
        q, older = len(case.seq), np.full(len(case.seq), -1, np.int32)
        windows: list[Windows] = []
        own: list[Windows] = []
        verdicts: list[BatchVerdicts] = []
        begin = 0
        while begin < q:
            self._runs += 1
            end = independent(
                begin, networks.offsets, networks.members, buyers, int(case.own is not None), self._runs, self._bought
            )
            rest = case.part(begin, end)
            windows.append(self._completed(begin, end, case, case.windows, networks, older))
            if case.own is not None:
                own.append(self._completed(begin, end, case, case.own, alone(buyers), older))
            verdicts.append(self._judge.verdicts(rest._replace(windows=windows[-1], own=own[-1] if own else None)))
            counted = ~verdicts[-1].flagged
            admit(begin, end, counted.astype(np.int8), buyers, older, self._newest)
            begin = end
        self._newest[buyers] = -1
        return case._replace(windows=in_a_row(windows), own=in_a_row(own) if own else None), joined(verdicts)

    def _reserve(self, users: int) -> None:
        known = len(self._newest)
        if users > known:
            self._bought, self._newest = grown(self._bought, users), grown(self._newest, users)
            self._newest[known:] = -1

    def _completed(
        self, begin: int, end: int, case: Case, windows: Windows, networks: Networks, older: Int32s
    ) -> Windows:
        """Windows with the purchases in hand that count: of each the T latest."""
        longest = int(np.diff(windows.offsets[begin : end + 1]).max(initial=0)) + begin
        most, T = min(longest, self._T), self._T
        scratch = np.empty(4 * longest + 1, np.int64)
        columns = np.empty((3, most * (end - begin)), np.int64)
        ends = np.zeros(end - begin + 1, np.int64)
        complete(
            begin, end, T, longest, networks.offsets, networks.members, self._newest, older, case.seq, case.timestamp,
            case.amount.held, windows.offsets, windows.seq, windows.timestamp, windows.amount.held, scratch, ends,
            columns[0], columns[1], columns[2],
        )  # fmt: skip
        seq, timestamp, amount = columns[:, : ends[-1]]
        return Windows(ends, seq, timestamp, Amounts(amount, united([windows.amount.large, case.amount.large])))


def in_a_row(parts: Sequence[Windows]) -> Windows:
    """The windows of consecutive purchases as one."""
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    seq, timestamp = (np.concatenate([part[place] for part in parts]) for place in (1, 2))
    return Windows(offsets, seq, timestamp, Amounts.joined([part.amount for part in parts]))


def split(case: Case, buyers: Int32s, flagged: Mask, *, in_batch_log: bool) -> tuple[Purchases, Purchases]:
    """The judged purchases that count from now on, and those that are kept out.

    Labels name lines of the stream log: the lines of purchases in the batch log are 0.
    """
    line = np.zeros_like(case.line) if in_batch_log else case.line
    purchases = Purchases(case.seq, line, buyers.astype(np.int64), case.timestamp, case.amount)
    return purchases.those(~flagged), purchases.those(flagged)


@kernel
def independent(
    begin: int, offsets: Int64s, members: Int32s, buyers: Int32s, once: int, run: int, bought: Int64s
) -> int:
    """The end of the longest run from `begin` on whose windows do not depend on each other's verdicts.

    If `once` is not 0 nobody buys twice in a run either. `run` is above all numbers in `bought`.
    """
    end = begin
    while end < len(buyers):
        if once and bought[buyers[end]] == run:
            return end
        for i in range(offsets[end], offsets[end + 1]):
            if bought[members[i]] == run:
                return end
        bought[buyers[end]] = run
        end += 1
    return end


@kernel
def admit(begin: int, end: int, counted: Int8s, buyers: Int32s, older: Int32s, newest: Int32s) -> None:
    """Chain the purchases of a run that count to their buyers' earlier ones."""
    for i in range(begin, end):
        if counted[i - begin]:
            older[i] = newest[buyers[i]]
            newest[buyers[i]] = i


@kernel
def complete(
    begin: int, end: int, T: int, room: int, offsets: Int64s, members: Int32s, newest: Int32s, older: Int32s,
    seq: Int64s, timestamp: Int64s, amount: Int64s, w_offsets: Int64s, w_seq: Int64s, w_timestamp: Int64s,
    w_amount: Int64s, scratch: Int64s, ends: Int64s, out_seq: Int64s, out_timestamp: Int64s, out_amount: Int64s,
) -> None:  # fmt: skip
    """Of each window of a run, and the purchases in hand by its network's members, write the T latest."""
    c_seq, c_timestamp, c_amount = scratch[:room], scratch[room : 2 * room], scratch[2 * room : 3 * room]
    spare = scratch[3 * room :]
    for q in range(begin, end):
        count = 0
        for i in range(w_offsets[q], w_offsets[q + 1]):
            c_seq[count], c_timestamp[count], c_amount[count] = w_seq[i], w_timestamp[i], w_amount[i]
            count += 1
        for i in range(offsets[q], offsets[q + 1]):
            place = newest[members[i]]
            while place >= 0:
                c_seq[count], c_timestamp[count], c_amount[count] = seq[place], timestamp[place], amount[place]
                count += 1
                place = older[place]
        if count > T:
            keep_latest(T, count, c_seq, c_timestamp, c_amount, spare)
            count = T
        to = ends[q - begin]
        for i in range(count):
            out_seq[to + i], out_timestamp[to + i], out_amount[to + i] = c_seq[i], c_timestamp[i], c_amount[i]
        ends[q - begin + 1] = to + count

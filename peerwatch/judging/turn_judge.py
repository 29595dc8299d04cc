"""Judges purchases whose windows depend on the verdicts before them, because flagged ones are kept out.

Purchases are judged in the longest runs in which nobody's network holds a buyer of the same run: within such a run no
verdict depends on another.
"""

from collections.abc import Callable, Sequence

import numpy as np

from peerwatch.amounts import Amounts, united
from peerwatch.judging.judge import BatchVerdicts, Case, Mask, joined
from peerwatch.judging.quarantine import Purchases
from peerwatch.kernels import Int8s, Int32s, Int64s, grown, kernel
from peerwatch.network.networks import Networks, alone
from peerwatch.network.order_in_time import keep_latest
from peerwatch.network.windows import Windows


class TurnJudge:
    """Has purchases judged in turn, so that none is in a window whose verdict is to keep it out."""

    def __init__(self, T: int) -> None:
        """Windows of T purchases."""
        self._T = T
        self._bought: Int64s = np.zeros(0, np.int64)
        """For each user, the number of the latest run in which the user has bought."""
        self._newest: Int32s = np.zeros(0, np.int32)
        """For each user, the place of the latest purchase in hand that counts, -1 if there is none."""
        self._runs = 0

    def judged(
        self, case: Case, buyers: Int32s, networks: Networks, users: int, judge: Callable[[Case], BatchVerdicts]
    ) -> tuple[Case, BatchVerdicts]:
        """Have q purchases judged; return them with their full windows, and the verdicts.

        `judge` gets one run after the other. All else as for `begin`.
        """
        turns = self.begin(case, buyers, networks, users)
        while (run := turns.next_run()) is not None:
            turns.put(judge(run))
        return turns.result()

    def begin(self, case: Case, buyers: Int32s, networks: Networks, users: int) -> "Turns":
        """Begin with q purchases, whose turns must be gone through before others begin.

        The windows of `case` (and the buyers' own purchases, if it has them) are as of the first of the q. `networks`
        must hold members for each purchase. All dense users are below `users`.
        """
        self._reserve(users)
        return Turns(self, case, buyers, networks)

    def end_of_run(self, begin: int, case: Case, buyers: Int32s, networks: Networks) -> int:
        """The end of the run that begins at this place."""
        self._runs += 1
        return independent(
            begin, networks.offsets, networks.members, buyers, int(case.own is not None), self._runs, self._bought
        )

    def admit(self, begin: int, end: int, counted: Mask, buyers: Int32s, older: Int32s) -> None:
        """Have the purchases of a run that are in the mask `counted` be in windows from now on."""
        admit(begin, end, counted.astype(np.int8), buyers, older, self._newest)

    def forget(self, buyers: Int32s) -> None:
        """Forget what has been admitted of these buyers."""
        self._newest[buyers] = -1

    def _reserve(self, users: int) -> None:
        known = len(self._newest)
        if users > known:
            self._bought, self._newest = grown(self._bought, users), grown(self._newest, users)
            self._newest[known:] = -1

    def completed(
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


class Turns:
    """The runs of some purchases, one after the other: `next_run`, then `put`, until there is none."""

    def __init__(self, turn_judge: TurnJudge, case: Case, buyers: Int32s, networks: Networks) -> None:
        self._turn_judge, self._case, self._buyers, self._networks = turn_judge, case, buyers, networks
        self._older: Int32s = np.full(len(case.seq), -1, np.int32)
        self._windows: list[Windows] = []
        self._own: list[Windows] = []
        self._verdicts: list[BatchVerdicts] = []
        self._begin = self._end = 0

    def next_run(self) -> Case | None:
        """The purchases that can be judged now, with their full windows; None if all have been."""
        case, buyers, begin = self._case, self._buyers, self._end
        if begin == len(case.seq):
            return None
        end = self._turn_judge.end_of_run(begin, case, buyers, self._networks)
        completed = self._turn_judge.completed
        self._windows.append(completed(begin, end, case, case.windows, self._networks, self._older))
        if case.own is not None:
            self._own.append(completed(begin, end, case, case.own, alone(buyers), self._older))
        self._begin, self._end = begin, end
        own = self._own[-1] if self._own else None
        return case.part(begin, end)._replace(windows=self._windows[-1], own=own)

    def put(self, verdicts: BatchVerdicts) -> None:
        """Take the verdicts on the run."""
        self._verdicts.append(verdicts)
        self._turn_judge.admit(self._begin, self._end, ~verdicts.flagged, self._buyers, self._older)

    def result(self) -> tuple[Case, BatchVerdicts]:
        """All purchases with their full windows, and the verdicts."""
        self._turn_judge.forget(self._buyers)
        own = in_a_row(self._own) if self._own else None
        return self._case._replace(windows=in_a_row(self._windows), own=own), joined(self._verdicts)


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

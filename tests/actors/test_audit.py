"""The audit's contract: every chosen decision is compared, and no difference goes by in silence."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from support import befriend, purchase

from peerwatch.actors.audit import AuditActor, Auditing
from peerwatch.actors.mailbox import Mailbox
from peerwatch.actors.messages import AuditBatch, AuditDecisions, AuditMessage, AuditNotices, Batch
from peerwatch.judging.audit import AuditedDecision, BruteForce, Difference
from peerwatch.judging.sampling import sampled
from peerwatch.network.decoder import Decoder
from peerwatch.network.statistics import Statistics

LOG = (
    befriend(1, 2) + purchase(2, "1e30") + purchase(2, "2") + purchase(1, "3") + befriend(1, 2, "unfriend")
    + purchase(1, "4")
)  # fmt: skip
AT = 1_497_353_581_000_000
"""2017-06-13 11:33:01."""
FOUR = [
    AuditedDecision(2, "log", 2, Statistics.of([]), flagged=False, timestamp=AT),
    AuditedDecision(3, "log", 3, Statistics.of([]), flagged=False, timestamp=AT),
    AuditedDecision(4, "log", 4, Statistics.of([10**36, 2 * 10**6]), flagged=False, timestamp=AT),
    AuditedDecision(6, "log", 6, Statistics.of([]), flagged=False, timestamp=AT),
]
"""What is to be decided on the purchases, by hand."""


async def compared(
    *said: list[AuditedDecision], share: float = 1.0, judged: bool = True
) -> tuple[list[Difference], int]:
    """What the actor reports if the coordinator says this, and how many decisions it has recomputed."""
    decoder, found = Decoder(), list[Difference]()
    events = decoder.decode(LOG, 1).events

    def alarm(differences: Sequence[Difference]) -> None:
        found.extend(differences)

    notices = Mailbox[AuditNotices]("differences", 100)
    batch = Batch(events, 1, LOG, "log", judged, len(decoder.interner), [])
    auditing = Auditing(BruteForce(1, 5, Fraction(3)), share, alarm)
    box = Mailbox[AuditMessage]("audit", 100)
    with box.sender as audit:
        await audit.send(AuditBatch(batch, *decoder.interner.columns()))
        for outcomes in said:
            await audit.send(AuditDecisions(outcomes, outcomes[-1].seq))
    actor = AuditActor(auditing, box.receiver, notices=notices.sender)
    await actor.run()
    with notices.receiver:
        told = [notice async for message in notices.receiver for notice in message.notices]
    assert [(notice.event, notice.details) for notice in told] == [(one.known.seq, one.fields()) for one in found]
    assert [notice.seq for notice in told] == sorted({notice.seq for notice in told})
    await actor.finish()
    assert actor.through == 6
    assert actor.tally.differences == len(found)
    assert actor.tally.first == (found[0] if found else None)
    return found, actor.tally.recomputed


async def test_what_is_right_is_no_difference() -> None:
    """In one message or several; amounts of any size; a friendship counts until it ends."""
    assert await compared(FOUR) == ([], 4)
    assert await compared(FOUR[:1], FOUR[1:]) == ([], 4)


async def test_a_wrong_sum_or_verdict_is_a_difference() -> None:
    """A window that is off by a millionth counts, even if the verdict is the same."""
    n, S, Q = FOUR[2].statistics
    for wrong in (FOUR[2]._replace(flagged=True), FOUR[2]._replace(statistics=Statistics(n, S + 1, Q))):
        assert await compared([*FOUR[:2], wrong, FOUR[3]]) == ([Difference(wrong, FOUR[2])], 4)


async def test_a_decision_that_never_comes_is_a_difference_and_so_is_one_too_many() -> None:
    """Whatever is missing at the end is reported."""
    assert await compared(FOUR[:3]) == ([Difference(None, FOUR[3])], 4)
    other = FOUR[3]._replace(seq=5)
    assert await compared([*FOUR[:2], other, FOUR[3]]) == ([Difference(None, FOUR[2]), Difference(other, None)], 4)
    assert await compared([*FOUR, other]) == ([Difference(other, None)], 4)
    assert (await compared([*FOUR, other]))[0][0].where == "event 5 (log:6)"


async def test_a_share_is_chosen_by_sequence_number_and_the_batch_log_never() -> None:
    """Only what was chosen is awaited."""
    chosen = sampled(np.array([outcome.seq for outcome in FOUR]), 0.5)
    assert 0 < chosen.sum() < 4
    said = [outcome for outcome, is_chosen in zip(FOUR, chosen, strict=True) if is_chosen]
    assert await compared(said, share=0.5) == ([], len(said))
    assert await compared(judged=False) == ([], 0)

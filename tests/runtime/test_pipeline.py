"""The pipeline as a whole: failures surface, nothing hangs, the loop stays free, kernels run where they should."""

import threading
from collections.abc import AsyncGenerator, Sequence
from fractions import Fraction
from typing import Any

import anyio
import pytest
from reference import judge
from support import MemoryLog, MemorySink, SilentLog, befriend, outlets, purchase

from peerwatch.actors import mailbox
from peerwatch.actors.audit import Auditing
from peerwatch.actors.coordinator import Judges
from peerwatch.actors.judges import LiveJudge
from peerwatch.connectors.records import Record
from peerwatch.connectors.source import Block
from peerwatch.errors import SinkError, SourceError
from peerwatch.judging.audit import BruteForce, Difference
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.judging.state import State
from peerwatch.network.decoder import Decoder
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.runtime.pipeline import Pipeline

STREAM = befriend(1, 2) + b"".join(purchase(1 + i % 2, str(i % 7)) for i in range(50)) + purchase(1, "99")


def pipeline_of(flagged: Any = None, rejects: Any = None, **options: Any) -> tuple[Pipeline, Any]:
    """A small pipeline and its sink."""
    flagged = flagged or MemorySink()
    return (
        Pipeline(
            State.fresh(1, 3, 2), Judges(LiveJudge(SigmaJudge(Sigma(Fraction(3))))), decisions=SilentLog(),
            outlets=outlets(flagged, rejects), **options,
        ),
        flagged,
    )  # fmt: skip


def auditing() -> Auditing:
    """An audit that recomputes every decision; none may differ, nor be missed when a run fails or is cancelled."""

    def differ(differences: Sequence[Difference]) -> None:
        raise AssertionError(differences)

    return Auditing(BruteForce(1, 3, Fraction(3)), 1.0, differ)


async def test_it_judges_to_the_end_and_counts() -> None:
    """Totals tell events, judged, flagged, users and friendships."""
    pipeline, sink = pipeline_of()
    totals = await pipeline.run([MemoryLog(STREAM[: len(befriend(1, 2))], STREAM[len(befriend(1, 2)) :])])
    assert sink.data == judge(None, STREAM, 1, 3).flagged
    assert totals[:4] == ((len(STREAM), 52, 51, 0, 2), sink.data.count(b"\n"), 1, 51)


class FullSink(MemorySink):
    """Accepts nothing."""

    async def write(self, records: Sequence[Record]) -> None:
        """Fail."""
        raise SinkError(f"cannot write {len(records)} records")


class FailingLog(MemoryLog):
    """Fails after its first block."""

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """One block, then a failure."""
        yield Block(STREAM, 0, 1, None)
        raise SourceError("cannot read stream any further")


async def test_a_failing_sink_ends_the_run_with_its_own_error() -> None:
    """Not a group, not a lost mailbox: the cause."""
    pipeline, _ = pipeline_of(flagged=FullSink())
    with pytest.raises(SinkError, match="cannot write"):
        await pipeline.run([MemoryLog(*[STREAM] * 50)])


async def test_a_failing_log_ends_the_run_with_its_own_error() -> None:
    """Reading errors come out as they are."""
    pipeline, _ = pipeline_of()
    with pytest.raises(SourceError, match="any further"):
        await pipeline.run([FailingLog()])


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (FriendGraph, "walk"),
        (PurchaseHistory, "append"),
        (PurchaseHistory, "windows"),
        (Sigma, "screen"),
        (BruteForce, "follow"),
    ],
)
async def test_a_bug_in_any_actor_surfaces_and_nothing_hangs(
    owner: type, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected failure of any state object ends the run with that failure."""

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError(method)

    monkeypatch.setattr(owner, method, broken)
    pipeline, _ = pipeline_of(batch_cap=3, auditing=auditing())
    with pytest.raises(ZeroDivisionError, match=method):
        await pipeline.run([MemoryLog(*[STREAM] * 50)])


async def test_it_can_be_cancelled_at_any_await() -> None:
    """Cancelled after each number of steps, it leaves no task, no open mailbox and no exception of its own."""

    class Cancelling(MemorySink):
        async def write(self, records: Sequence[Record]) -> None:
            await super().write(records)
            scope.cancel()
            await anyio.lowlevel.checkpoint()

    for batch_cap in (1, 2, 7, 1000):
        with anyio.CancelScope() as scope:
            pipeline, sink = pipeline_of(flagged=Cancelling(), batch_cap=batch_cap, auditing=auditing())
            await pipeline.run([MemoryLog(*[STREAM] * 20)])
        assert scope.cancelled_caught
        assert sink.data
        assert judge(None, STREAM * 20, 1, 3).flagged.startswith(sink.data)


async def test_a_blocked_sink_stops_the_reading() -> None:
    """Bounded mailboxes: with a sink that never returns, only so many blocks are ever read."""
    taken = 0

    class Endless(MemoryLog):
        async def blocks(self) -> AsyncGenerator[Block, None]:
            nonlocal taken
            while taken < 10_000:
                taken += 1
                yield Block(befriend(1, 2) + purchase(1, "1") + purchase(1, "1") + purchase(2, "99"), 0, 1, None)

    class Blocked(MemorySink):
        async def write(self, records: Sequence[Record]) -> None:
            await super().write(records)
            await anyio.sleep_forever()

    pipeline, _ = pipeline_of(flagged=Blocked())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pipeline.run, [Endless()])
        await anyio.wait_all_tasks_blocked()
        assert 1 <= taken < 10 * mailbox.CAPACITY
        tasks.cancel_scope.cancel()


async def test_large_kernel_calls_leave_the_event_loop() -> None:
    """Small work runs inline, large work on another thread."""
    here = threading.get_ident()
    assert await mailbox.run_kernel(mailbox.INLINE_WORK, threading.get_ident) == here
    assert await mailbox.run_kernel(mailbox.INLINE_WORK + 1, threading.get_ident) != here


async def test_every_kernel_of_a_loaded_run_is_called_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load decoding, walking, selecting and judging never hold the event loop."""
    here = threading.get_ident()
    called: dict[str, list[bool]] = {}
    for owner, method in ((Decoder, "decode"), (FriendGraph, "walk"), (PurchaseHistory, "windows"), (Sigma, "screen")):
        original = getattr(owner, method)

        def recording(*arguments: Any, _original: Any = original, _name: str = method, **named: Any) -> Any:
            small = _name == "windows" and len(arguments[1]) < 500  # of few decisions that scans have answered
            called.setdefault(_name, []).append(small or threading.get_ident() != here)
            return _original(*arguments, **named)

        monkeypatch.setattr(owner, method, recording)
    users = 60
    ties = b"".join(befriend(a, b) for a in range(users) for b in range(a))
    load = ties + b"".join(purchase(i % users, str(i % 97)) for i in range(4000))
    pipeline, _ = pipeline_of()
    await pipeline.run([MemoryLog(load, judged=False), MemoryLog(load), MemoryLog(load)])
    assert {name: any(off) for name, off in called.items()} == dict.fromkeys(called, True)
    assert called["walk"][-1]
    assert all(called["windows"])
    assert all(called["decode"])

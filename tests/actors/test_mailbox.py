"""Mailboxes, and how busy an actor is between its messages."""

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.actors.mailbox import BusyTime, Mailbox, measured, waiting, working


class Clock:
    """A clock that only the tests turn."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now

    def work(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now += seconds


SECONDS = st.lists(st.integers(1, 1000), max_size=8)


@given(SECONDS, SECONDS, st.integers(1, 4))
def test_work_between_messages_counts_and_waiting_does_not(
    producing: list[int], consuming: list[int], capacity: int
) -> None:
    """Whoever has to wait for whom: each actor's seconds are those of its own work, to the last one."""
    clock = Clock()
    producer, consumer = BusyTime(clock), BusyTime(clock)
    box = Mailbox[int]("box", capacity)

    async def produce() -> None:
        with box.sender as sender:
            for seconds in producing:
                clock.work(seconds)
                await sender.send(seconds)

    async def consume() -> None:
        left = list(consuming)
        with box.receiver as messages:
            async for _ in messages:
                clock.work(left.pop() if left else 0)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(measured, producer, produce)
            tasks.start_soon(measured, consumer, consume)

    anyio.run(main)
    assert producer.seconds == sum(producing)
    assert consumer.seconds == sum((consuming[::-1])[: len(producing)])


async def test_tasks_of_an_actor_that_work_at_once_count_once() -> None:
    """An actor is busy while any of its tasks is; a task that waits for the others is not."""
    clock = Clock()
    busy, started, done = BusyTime(clock), anyio.Event(), anyio.Event()

    async def first() -> None:
        clock.work(1)
        started.set()
        with waiting():
            await done.wait()
        clock.work(4)

    async def second() -> None:
        with waiting():
            await started.wait()
        clock.work(2)
        done.set()

    async def actor() -> None:
        with waiting():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(working, first)
                tasks.start_soon(working, second)

    await measured(busy, actor)
    assert busy.seconds == 7
    clock.work(1000)
    assert busy.seconds == 7


async def test_seconds_go_on_while_an_actor_works() -> None:
    """A kernel that never returns shows: its seconds are not only counted at its end."""
    clock = Clock()
    busy = BusyTime(clock)

    async def actor() -> None:
        clock.work(5)
        assert busy.seconds == 5
        await anyio.lowlevel.checkpoint()

    await measured(busy, actor)
    assert busy.seconds == 5


def failing() -> None:
    """Fail."""
    raise ZeroDivisionError


@pytest.mark.parametrize("end", [failing, lambda: None])
async def test_an_actor_that_has_ended_is_not_busy(end: Callable[[], None]) -> None:
    """However it ends."""
    clock = Clock()
    busy = BusyTime(clock)

    async def actor() -> None:
        clock.work(3)
        await anyio.lowlevel.checkpoint()
        end()

    try:
        await measured(busy, actor)
    except ZeroDivisionError:
        assert end is failing
    clock.work(1000)
    assert busy.seconds == 3

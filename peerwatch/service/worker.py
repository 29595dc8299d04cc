"""The process that does what takes long for the service: `python -m peerwatch.service.worker`.

It answers requests from its standard input, one after the other, at a lower priority than the pipeline's. It ends when
its standard input is closed, whatever it is doing then.

All workers together leave one processor to the pipeline. A lower priority alone does not: where every processor has
something to do, what wakes up waits for a while, and the pipeline's threads and event loop wake up a few times for each
purchase.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Final, Literal

import anyio
import msgspec
from anyio.to_thread import run_sync

from peerwatch import kernels
from peerwatch.errors import BadInput, PeerwatchError, UsageError
from peerwatch.replay.explain import ExplanationRecord, explained
from peerwatch.replay.follow_flagged import JudgedThrough, follow_flagged
from peerwatch.replay.user_timeline import state_of
from peerwatch.service.worker_messages import (
    Answer,
    Answered,
    Begun,
    DescribeDataset,
    DetectInDataset,
    DetectInRows,
    ExplainDecision,
    Explained,
    FollowFlagged,
    ProgressMade,
    Refused,
    Request,
    ShowBridges,
    ShowRadius,
    ShowUser,
    SweepSettings,
)
from peerwatch.studies.dataset_detection import dataset_detection, dataset_statistics
from peerwatch.studies.sweep import swept
from peerwatch.studies.sweep_table import SettingGrid
from peerwatch.studies.table_detection import detection

NICENESS: Final = 10
FOLLOWING_NICENESS: Final = 5
"""A follower needs little, but it should not fall behind the run while other workers are busy."""
PROGRESS_SECONDS: Final = 0.1
"""The least time between two reports of progress."""


class Channel:
    """Requests from standard input, and answers to what was standard output when the process began."""

    def __init__(self) -> None:
        self._requests: SimpleQueue[Request] = SimpleQueue()
        self._answers = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)  # whatever a library prints is no answer
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        decoder = msgspec.json.Decoder(Request)
        for line in sys.stdin.buffer:
            self._requests.put(decoder.decode(line))
        os._exit(0)  # the service is gone

    def receive(self) -> Request:
        """Return the next request."""
        return self._requests.get()

    def send(self, answer: Answer) -> None:
        """Send an answer."""
        rest = memoryview(msgspec.json.encode(answer) + b"\n")
        while rest:
            rest = rest[self._answers.write(rest) or 0 :]


class SweepProgress:
    """Tells the service how far a sweep has come."""

    has_bar = False

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._total = 0
        self._told = 0.0

    @contextmanager
    def progress(self, total: int | None) -> Iterator[None]:
        """Keep the total to compute shares of."""
        self._total = total or 0
        yield

    def moved(self, done: int, counts: str) -> None:  # noqa: ARG002
        """Tell the share, if the last time is long enough ago."""
        now = time.monotonic()
        if self._total and now - self._told > PROGRESS_SECONDS:
            self._told = now
            self._channel.send(ProgressMade(min(done / self._total, 1.0)))

    def warning(self, text: str) -> None:
        """Show it on standard error, which is the service's."""
        sys.stderr.write(f"{text}\n")

    urgent = last_words = warning

    def interrupted(self) -> None:
        """Never called: a sweep is cancelled by killing the worker."""


async def answered(request: Request, channel: Channel) -> bytes:
    """Carry out a request and return its result as JSON.

    Raises:
        PeerwatchError: it cannot be carried out.
    """
    found: object
    match request:
        case ExplainDecision(layers, seq):
            found = await explained(layers, seq=seq)
        case ShowUser(layers, user, at):
            found = await state_of(layers, user, at)
        case ShowRadius(layers, user, friend, at):
            from peerwatch.studies.radius import radius_of  # noqa: PLC0415 (for who asks)

            edge = (user, friend) if friend is not None else None
            found = await radius_of(layers, friendship=edge, user=user if edge is None else None, at=at)
        case ShowBridges(layers, most, at):
            from peerwatch.studies.radius import bridges_of  # noqa: PLC0415 (for who asks)

            found = await bridges_of(layers, most=most, at=at)
        case SweepSettings(layers, D, T, k):
            found = await swept(layers, SettingGrid(D, T, k), progress=SweepProgress(channel))
        case DetectInRows(columns, method, parameters):
            found = detection(columns, method, parameters)
        case DetectInDataset(name, method, parameters):
            found = dataset_detection(name, method, parameters)
        case DescribeDataset(name):
            found = dataset_statistics(name)
        case FollowFlagged(layers, run, first):
            judged, take = partial(judged_through, channel), partial(send_explanation, channel)
            await follow_flagged(layers, run, first, judged, take)
            found = None
        case JudgedThrough():
            found = None  # the following that it belonged to has ended
    return msgspec.json.encode(found)


async def judged_through(channel: Channel) -> JudgedThrough:
    """Return how far a follower may go, as soon as it may go further."""
    message = await run_sync(channel.receive)
    if not isinstance(message, JudgedThrough):
        raise UsageError("a worker that follows does nothing else")
    return message


async def send_explanation(channel: Channel, seq: int, record: ExplanationRecord) -> None:
    """Send an explanation that a follower has made."""
    channel.send(Explained(seq, msgspec.Raw(msgspec.json.encode(record))))


async def serve(channel: Channel) -> None:
    """Answer requests, until the process ends."""
    request = await run_sync(channel.receive)
    os.nice(FOLLOWING_NICENESS if isinstance(request, FollowFlagged) else NICENESS)
    while True:
        channel.send(Begun())
        try:
            answer: Answer = Answered(msgspec.Raw(await answered(request, channel)))
        except PeerwatchError as error:
            answer = Refused(_class_of(error), str(error))
        except Exception as error:  # noqa: BLE001 (a mistake in a detector of the user's own, or of ours: the next may do)
            traceback.print_exc()
            answer = Refused("RunError", f"{type(error).__name__}: {error}")
        channel.send(answer)
        request = await run_sync(channel.receive)


def _class_of(error: PeerwatchError) -> Literal["UsageError", "BadInput", "RunError"]:
    if isinstance(error, UsageError):
        return "UsageError"
    return "BadInput" if isinstance(error, BadInput) else "RunError"


def leave_a_processor() -> None:
    """Keep this process off one of the processors it may use, the same one in all workers, if there is another."""
    if sys.platform == "linux" and len(allowed := os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, allowed - {min(allowed)})


def main() -> None:
    """Answer requests until standard input is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the service decides what ends
    leave_a_processor()
    channel = Channel()
    kernels.load()
    anyio.run(partial(serve, channel))


if __name__ == "__main__":
    main()

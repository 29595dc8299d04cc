"""Routes about the run: whether it is well, how it is doing, and its event stream."""

from collections.abc import AsyncIterator
from typing import Final

import anyio
import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from peerwatch.service import decisions
from peerwatch.service.answers import JSON, answered
from peerwatch.service.hub import Item
from peerwatch.service.problems import Problem
from peerwatch.service.report import LiveStatus
from peerwatch.service.service import Service

router: Final = APIRouter(tags=["run"])
PAGE: Final = 1000
"""Flagged purchases that are read from the store at a time, for a client that comes back."""
GATHER_SECONDS: Final = 0.2
"""The pause behind what was sent: fifty clients that are woken for every purchase would keep the run waiting."""


class Health(msgspec.Struct, frozen=True):
    """Whether the service should be restarted: `ok`, `stuck` or `failed`, and why."""

    status: str
    reason: str | None = None


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


class Readiness(msgspec.Struct, frozen=True):
    """Whether verdicts are up to date, and what is being waited for otherwise."""

    ready: bool
    waiting_for: list[str]


@router.get("/health", responses=answered(Health, Health, 503))
async def health(request: Request) -> Response:
    """Whether the run is well: 503 if nothing has been judged for 30 seconds though something waits, or it failed."""
    service: Service = request.app.state.service
    problem = service.problem()
    found = Health("ok") if problem is None else Health(*problem)
    return Response(msgspec.json.encode(found), 200 if found.status == "ok" else 503, media_type=JSON)


@router.get("/ready", responses=answered(Readiness, Readiness, 503))
async def ready(request: Request) -> Response:
    """Whether the logs have been read to their ends and every server answers; 503 with what is missing otherwise."""
    service: Service = request.app.state.service
    status, waiting = service.status, []
    if status is None:
        waiting.append("the run to begin")
    else:
        waiting += [f"{server.name}: {server.away}" for server in status.servers if server.away is not None]
        if status.lag_bytes:
            waiting.append(f"{status.lag_bytes:,} bytes of the log")
        if status.lag_records:
            waiting.append(f"{status.lag_records:,} messages of the stream")
        if service.ended is None and not service.has_caught_up:
            waiting.append("the logs to be read to their ends")
    found = Readiness(not waiting, waiting)
    return Response(msgspec.json.encode(found), 200 if found.ready else 503, media_type=JSON)


@router.get("/status", responses=answered(LiveStatus, 503))
async def status(request: Request) -> Response:
    """How the run is doing."""
    service: Service = request.app.state.service
    if service.status is None:
        raise Problem(503, "the run has not begun yet", headers={"retry-after": "1"})
    return Response(msgspec.json.encode(service.status), media_type=JSON)


@router.get("/events", response_class=EventStream, responses=answered(422, 503))
async def events(
    request: Request,
    after: int | None = Query(
        None, ge=0, le=2**62, description="The number of the last flagged purchase that is known."
    ),
    last_event_id: str | None = Header(None),
) -> Response:
    """Flagged purchases, the status once a second, and notices, as server-sent events, as they come.

    With `Last-Event-ID`, or `after`, first all those that were flagged behind that number. A client that is too slow
    is told by an event `dropped` how many events it has missed; `/decisions?flagged=true` has them.
    """
    service: Service = request.app.state.service
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19:
        after = int(last_event_id)
    headers = {"x-accel-buffering": "no"}  # a proxy must not collect it
    before = await _missed(service, after) if after is not None else []
    return EventStream(_stream(service, after, before), headers=headers)


async def _missed(service: Service, after: int) -> list[Item]:
    """The flagged purchases behind a number that are in the store, or the first page of them."""
    found = await service.decisions(decisions.Query(flagged=True, after=after, limit=PAGE))
    return [Item("flagged", msgspec.json.encode(each), each.seq) for each in found]


async def _stream(service: Service, after: int | None, before: list[Item]) -> AsyncIterator[bytes]:
    sent = after or 0
    yield b"retry: 1000\n\n"
    while before and not (len(before) < PAGE and service.hub.reaches_back_to(before[-1].id)):
        yield b"".join(item.encoded for item in before)
        sent = before[-1].id
        before = await _missed(service, sent)
    with service.hub.client() as client:  # nothing may be waited for between the last look at the store and this
        before += [item for item in service.hub.recent if after is not None and item.id > sent]
        sent = max((sent, *(item.id for item in before)))
        # what the store has comes before what has just been judged, and some of it is in both
        if before:
            yield b"".join(item.encoded for item in {item.id: item for item in before}.values())
        while (items := await client.take()) is not None:
            fresh = [item for item in items if not item.id or item.id > sent]
            sent = max((sent, *(item.id for item in fresh)))
            if fresh:
                yield b"".join(item.encoded for item in fresh)
            await anyio.sleep(GATHER_SECONDS)

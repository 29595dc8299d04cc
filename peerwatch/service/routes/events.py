"""The route by which events are submitted."""

from typing import Any, Final

import anyio
import msgspec
from fastapi import APIRouter, Request, Response

from peerwatch.connectors.records import DecisionRow
from peerwatch.errors import BadEvent, UsageError
from peerwatch.network.events import Event, Kind, parse_event
from peerwatch.service.answers import JSON, answered
from peerwatch.service.problems import Problem
from peerwatch.service.service import Service

router: Final = APIRouter(tags=["events"])
MOST: Final = 1000
"""Events in one request."""
WAIT_SECONDS: Final = 30.0
"""How long a request waits for verdicts."""
NDJSON: Final = "application/x-ndjson"
BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            NDJSON: {"schema": {"type": "string"}},
            JSON: {"schema": {"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}},
        },
    }
}


class SubmittedEvent(msgspec.Struct, frozen=True):
    """What became of one event: a purchase is `judged`, a befriending or unfriending `accepted`.

    `seq` is the event's number, by which it can be explained; for a friendship it is null.
    """

    status: str
    line: int
    seq: int | None = None
    flagged: bool | None = None
    window_size: int | None = None
    mean: str | None = None
    sd: str | None = None
    severity: str | None = None
    score: float | None = None
    threshold: float | None = None
    model: int | None = None


class SubmittedEvents(msgspec.Struct, frozen=True):
    """What became of all events, in their order."""

    events: list[SubmittedEvent]


@router.post("/events", openapi_extra=BODY, responses=answered(SubmittedEvents, 400, 409, 413, 415, 422, 503, 504))
async def submit(request: Request) -> Response:
    """Submit purchases and friendships, as a JSON object, an array, or lines; answers when they have been judged.

    They are first appended to the log that the run follows, and are on its disk before they are judged: so they are
    judged once, whatever happens to the service meanwhile. If one of them is invalid, nothing is appended.
    """
    service: Service = request.app.state.service
    if service.submissions is None:
        raise Problem(409, "events are taken only by a run that follows a file (follow: true)")
    if service.ended is not None:
        raise Problem(409, "the run has ended")
    lines = _lines(await request.body(), request.headers.get("content-type", ""))
    events = [_event(line, number, service) for number, line in enumerate(lines)]
    try:
        submission = await service.submissions.submit(lines, events)
    except UsageError as error:
        raise Problem(503, str(error), headers={"retry-after": "1"}) from None
    judged = False
    try:
        with anyio.move_on_after(WAIT_SECONDS):
            judged = await submission.wait()
    finally:
        service.submissions.done(submission)
    if not judged:
        raise Problem(
            504,
            f"the events are in the log, from line {submission.first:,} on, but have not been judged yet; do not send"
            " them again: look for them in /decisions",
            line=submission.first,
        )
    found = [
        _judged(submission.decisions[place])
        if event.kind is Kind.PURCHASE
        else SubmittedEvent("accepted", submission.first + place)
        for place, event in enumerate(events)
    ]
    return Response(msgspec.json.encode(SubmittedEvents(found)), media_type=JSON)


def _lines(body: bytes, content_type: str) -> list[bytes]:
    if content_type.partition(";")[0].strip().lower() == NDJSON:
        lines = [line for line in body.replace(b"\r\n", b"\n").split(b"\n") if line.strip()]
    else:
        try:
            found: Any = msgspec.json.decode(body, type=msgspec.Raw)
            objects = msgspec.json.decode(body, type=list[msgspec.Raw]) if bytes(found)[:1] == b"[" else [found]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem(400, f"the body is not JSON: {error}") from None
        except RecursionError:
            raise Problem(400, "the body is not JSON that can be read: it is nested too deep") from None
        lines = [bytes(each).replace(b"\r", b" ").replace(b"\n", b" ") for each in objects]
    if not 1 <= len(lines) <= MOST:
        raise Problem(422, f"expected 1 to {MOST:,} events, got {len(lines):,}")
    return lines


def _event(line: bytes, number: int, service: Service) -> Event:
    try:
        return parse_event(line, service.settings.input.names())
    except BadEvent as error:
        raise Problem(422, f"event {number}: {error}; nothing has been appended", index=number) from None


def _judged(row: DecisionRow) -> SubmittedEvent:
    return SubmittedEvent(
        "judged", row.line, row.seq, row.flagged, row.window_size, row.mean, row.sd,
        row.severity, row.score, row.threshold, row.model,
    )  # fmt: skip

"""Routes about decisions: the list, one of them, why it came out so, and its user's state."""

from typing import Annotated, Final, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response

from peerwatch.connectors.tables import time_of
from peerwatch.errors import BadEvent
from peerwatch.network.events import parse_micros
from peerwatch.network.statistics import decimal
from peerwatch.service import decisions
from peerwatch.service.answers import JSON, answered
from peerwatch.service.decisions import Notice, StoredDecision
from peerwatch.service.problems import Problem
from peerwatch.service.service import Service
from peerwatch.service.store_rows import Moment

router: Final = APIRouter(tags=["decisions"])
DISAGREEMENT: Final = "disagreement"
TIME: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}"
AMOUNT: Final = r"^[0-9+.]"
Seq = Annotated[int, Path(ge=1, le=2**62, description="The number of an event.")]
Bound = Annotated[int | None, Query(ge=0, le=2**62, description="The number of an event.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
Time = Annotated[str | None, Query(max_length=40, pattern=TIME, description="A time, as events have them.")]


class DecisionPage(msgspec.Struct, frozen=True):
    """Some decisions, and the number to go on with: as `after`, or with the newest first as `before`."""

    decisions: list[StoredDecision]
    next: int | None


class NoticePage(msgspec.Struct, frozen=True):
    """Some notices."""

    notices: list[Notice]


@router.get("/decisions", responses=answered(DecisionPage, 422, 503))
async def list_decisions(
    request: Request,
    flagged: Annotated[bool | None, Query(description="Only flagged purchases, or only others.")] = None,
    limit: Limit = 100,
    after: Bound = None,
    before: Bound = None,
    user: Annotated[str | None, Query(max_length=1000)] = None,
    since: Time = None,
    until: Time = None,
    severity: Literal["warning", "critical", "emergency"] | None = None,
    min_amount: Annotated[str | None, Query(max_length=400, pattern=AMOUNT, description="The least amount.")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="The oldest first, or the newest.")] = "asc",
) -> Response:
    """Decisions by number, user, time and severity."""
    service: Service = request.app.state.service
    query = decisions.Query(
        flagged=flagged, after=after, before=before, user=user, since=_moment("since", since),
        until=_moment("until", until), severity=severity, min_amount=_amount(min_amount),
        newest_first=order == "desc", limit=limit,
    )  # fmt: skip
    found = await service.decisions(query)
    page = DecisionPage(found, found[-1].seq if len(found) == limit else None)
    return Response(msgspec.json.encode(page), media_type=JSON)


@router.get("/decisions/{seq}", responses=answered(StoredDecision, 404, 422, 503))
async def one_decision(request: Request, seq: Seq) -> Response:
    """The decision on one purchase."""
    service: Service = request.app.state.service
    found = await service.decision(seq)
    if found is None:
        raise Problem(404, f"there is no decision on event {seq:,}: it is no purchase, not judged, or no longer kept")
    return Response(msgspec.json.encode(found), media_type=JSON)


@router.get("/notices", responses=answered(NoticePage, 422, 503))
async def notices(request: Request, after: Bound = None, limit: Limit = 100) -> Response:
    """The newest notices: drift, labels that were read, models, differences that an audit has found."""
    service: Service = request.app.state.service
    return Response(msgspec.json.encode(NoticePage(await service.store.notices(after or 0, limit))), media_type=JSON)


@router.get("/challenger", responses=answered(NoticePage, 422, 503))
async def challenger(request: Request, after: Bound = None, limit: Limit = 100) -> Response:
    """The newest purchases on which champion and challenger disagree."""
    service: Service = request.app.state.service
    found = await service.store.notices(after or 0, limit, DISAGREEMENT)
    return Response(msgspec.json.encode(NoticePage(found)), media_type=JSON)


def _moment(name: str, text: str | None) -> Moment | None:
    if text is None:
        return None
    try:
        return Moment(time_of(text))
    except BadEvent as error:
        raise Problem(422, f"{name}: {error}", pointer=name) from None


def _amount(text: str | None) -> str | None:
    """An amount, as an event has it, in plain digits."""
    if text is None:
        return None
    try:
        return decimal(parse_micros(text))
    except ValueError as error:
        raise Problem(422, f"min_amount {error}", pointer="min_amount") from None

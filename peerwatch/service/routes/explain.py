"""Routes that look into the past: why a decision came out so, and a user's state at any moment."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response

from peerwatch.errors import UsageError
from peerwatch.replay.event_selectors import time_of
from peerwatch.replay.explain import ExplanationRecord
from peerwatch.replay.user_timeline import UserState
from peerwatch.service.answers import JSON, answered
from peerwatch.service.problems import Problem
from peerwatch.service.routes.decisions import Seq
from peerwatch.service.service import Service
from peerwatch.studies.radius_table import BridgesRecord, RadiusRecord

router: Final = APIRouter(tags=["explain"])


@router.get("/explain/{seq}", responses=answered(ExplanationRecord, 404, 409, 422, 503))
async def explain(request: Request, seq: Seq) -> Response:
    """Why a purchase was flagged, or not: its network, the window, the inequality, and what would turn the verdict.

    That of a flagged purchase is kept; any other is found by reading the logs again, which may take seconds. With
    another detector than sigma there are also its score, its threshold and its model.
    """
    service: Service = request.app.state.service
    kept = await service.explanation(seq)
    if kept is None:
        _check_judged(service, seq)
        try:
            kept = await service.workers.explain(seq)
        except UsageError as error:
            raise Problem(404, str(error)) from None
    return Response(kept, media_type=JSON)


@router.get("/users/{user:path}", responses=answered(UserState, 404, 409, 422, 503))
async def user_state(
    request: Request,
    user: Annotated[str, Path(max_length=1000, description="The id of a user.")],
    at: Annotated[str | None, Query(max_length=40, description="An event's number, or a time. Default: now.")] = None,
) -> Response:
    """A user's friends, network, purchases and window as of a moment; the logs are read again up to it."""
    service: Service = request.app.state.service
    try:
        found = await service.workers.user(user, _moment(service, at))
    except UsageError as error:
        raise Problem(404, str(error)) from None
    return Response(found, media_type=JSON)


@router.get("/radius", responses=answered(RadiusRecord, 404, 409, 422, 503))
async def radius(
    request: Request,
    user: Annotated[str, Query(max_length=1000, description="The id of a user.")],
    friend: Annotated[str | None, Query(max_length=1000, description="A friend: then the friendship alone.")] = None,
    at: Annotated[str | None, Query(max_length=40, description="An event's number, or a time. Default: now.")] = None,
) -> Response:
    """Whose networks, windows and verdicts a user, or a friendship, takes part in as of a moment.

    The logs are read again up to it. They are compared with what they would be without the user's friendships, or
    without the one with `friend`.
    """
    service: Service = request.app.state.service
    try:
        found = await service.workers.radius(user, friend, _moment(service, at))
    except UsageError as error:
        raise Problem(404, str(error)) from None
    return Response(found, media_type=JSON)


@router.get("/bridges", responses=answered(BridgesRecord, 404, 409, 422, 503))
async def bridges(
    request: Request,
    most: Annotated[int, Query(ge=1, le=1000, description="How many friendships.")] = 20,
    at: Annotated[str | None, Query(max_length=40, description="An event's number, or a time. Default: now.")] = None,
) -> Response:
    """The friendships without which the most verdicts would be others as of a moment, then the most windows.

    The logs are read again up to it. Friendships without which every window would be the same are not listed.
    """
    service: Service = request.app.state.service
    try:
        found = await service.workers.bridges(most, _moment(service, at))
    except UsageError as error:
        raise Problem(404, str(error)) from None
    return Response(found, media_type=JSON)


def _moment(service: Service, at: str | None) -> str:
    """The moment that a request names, or else that of the last event.

    Raises:
        Problem: it is no moment, or an event that has not been judged yet.
    """
    if at is None:
        return str(service.run.through)
    if at.isascii() and at.isdigit():
        _check_judged(service, int(at))
    else:
        try:
            time_of(at)
        except UsageError:
            expected = "expected the number of an event, or a time as YYYY-MM-DD HH:MM:SS"
            raise Problem(422, f"at is {at!r}; {expected}", pointer="at") from None
    return at


def _check_judged(service: Service, seq: int) -> None:
    """See that an event has been judged.

    Raises:
        Problem: it has not.
    """
    if seq > service.run.through:
        raise Problem(409, f"event {seq:,} has not been judged yet: the run has come to event {service.run.through:,}")

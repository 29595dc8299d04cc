"""Routes of sweeps: what other choices of D, T and k would have flagged."""

from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Path, Request, Response
from msgspec import Meta

from peerwatch.service.answers import JSON, answered
from peerwatch.service.bodies import DirectRoute, body_of, takes
from peerwatch.service.problems import Problem
from peerwatch.service.service import Service
from peerwatch.service.sweeps import SweepJob
from peerwatch.settings.model import SIGMA, Deviations

router: Final = APIRouter(tags=["sweep"], route_class=DirectRoute)
MOST_SETTINGS: Final = 256
Job = Annotated[str, Path(max_length=64, description="The name of a sweep.")]


class SweepBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The values to combine. A parameter without values keeps that of the run."""

    D: Annotated[list[Annotated[int, Meta(ge=1, le=10)]], Meta(max_length=10)] = []
    T: Annotated[list[Annotated[int, Meta(ge=2, le=10_000)]], Meta(max_length=32)] = []
    k: Annotated[list[Deviations], Meta(max_length=32)] = []


@router.post(
    "/sweep",
    status_code=202,
    openapi_extra=takes(SweepBody),
    responses=answered(SweepJob, 202, 400, 409, 413, 415, 422),
)
async def ask_for_sweep(request: Request) -> Response:
    """Ask for a sweep: every combination of D, T and k, in one pass over the logs. At most 256 combinations."""
    service: Service = request.app.state.service
    body = await body_of(request, SweepBody)
    settings = max(len({*body.D}), 1) * max(len({*body.T}), 1) * max(len({*body.k}), 1)
    if settings > MOST_SETTINGS:
        raise Problem(422, f"these are {settings} combinations; at most {MOST_SETTINGS} are tried at once")
    if service.settings.detector.name != SIGMA:
        raise Problem(
            409, f"a sweep varies sigma's D, T and k, and this run judges by {service.settings.detector.name}"
        )
    job = service.sweeps.ask(body.D, body.T, body.k)
    return Response(msgspec.json.encode(job), 202, {"location": f"/sweep/{job.job}"}, JSON)


@router.get("/sweep/{job}", responses=answered(SweepJob, 404, 422))
async def sweep(request: Request, job: Job) -> Response:
    """How far a sweep is, and its results when it is done. The last 32 are remembered."""
    return Response(msgspec.json.encode(_found(request, job)), media_type=JSON)


@router.delete("/sweep/{job}", responses=answered(SweepJob, 404, 422))
async def cancel_sweep(request: Request, job: Job) -> Response:
    """Cancel a sweep that waits or runs, and forget it; returns how it was in the end."""
    service: Service = request.app.state.service
    found = _found(request, job)
    service.sweeps.remove(found)
    return Response(msgspec.json.encode(found), media_type=JSON)


def _found(request: Request, job: str) -> SweepJob:
    service: Service = request.app.state.service
    found = service.sweeps.get(job)
    if found is None:
        raise Problem(404, "there is no such sweep, or it is no longer remembered")
    return found

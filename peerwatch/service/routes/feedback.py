"""The route by which analysts label purchases."""

from typing import Final, Literal

import msgspec
from fastapi import APIRouter, Request, Response

from peerwatch.errors import UsageError
from peerwatch.service.answers import JSON, answered
from peerwatch.service.bodies import body_of, takes
from peerwatch.service.problems import Problem
from peerwatch.service.service import Service
from peerwatch.storage.feedback import Number

router: Final = APIRouter(tags=["feedback"])


class FeedbackBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A label on one purchase."""

    seq: Number
    label: Literal["anomaly", "normal"]


@router.post(
    "/feedback",
    status_code=202,
    openapi_extra=takes(FeedbackBody),
    responses=answered(FeedbackBody, 202, 400, 409, 413, 415, 422, 503),
)
async def feedback(request: Request) -> Response:
    """Label a purchase. The run reads labels about once a second; with `adapt.precision` its threshold follows them."""
    service: Service = request.app.state.service
    label = await body_of(request, FeedbackBody)
    judged = service.run.through
    try:
        await service.labels.add(label.seq, label.label, judged)
    except UsageError as error:
        raise Problem(409, str(error)) from None
    return Response(msgspec.json.encode(label), 202, media_type=JSON)

"""The route from which Prometheus reads."""

from typing import Any, Final

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response

from peerwatch.service.answers import answered
from peerwatch.service.metrics import CONTENT_TYPE, RunCollector, exposition
from peerwatch.service.service import Service

router: Final = APIRouter(tags=["run"])
TEXT: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/metrics", responses={**answered(503), **TEXT}, response_class=Response)
async def metrics(request: Request) -> Response:
    """Metrics of the run in Prometheus' text format."""
    service: Service = request.app.state.service
    status = await service.present()
    return Response(await run_sync(exposition, RunCollector(lambda: status)), media_type=CONTENT_TYPE)

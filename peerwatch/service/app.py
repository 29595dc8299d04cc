"""The HTTP application: routes, the page, and what guards them."""

import time
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

import peerwatch
from peerwatch.service.answers import JSON
from peerwatch.service.problems import answer_with_problems
from peerwatch.service.routes import decisions, detect, events, explain, feedback, metrics, run, sweep
from peerwatch.service.security import OPEN, Limits, Security
from peerwatch.service.service import Service

PAGE: Final = Path(str(files("peerwatch.service") / "page"))


def application(service: Service, *, hosts: frozenset[str] | None, token: str | None) -> ASGIApp:
    """The application of a service; without a token nobody needs one."""
    app = FastAPI(title="peerwatch", version=peerwatch.__version__, openapi_url=None)
    app.state.service = service
    for routes in (detect, run, metrics, decisions, explain, feedback, events, sweep):  # looked through in this order
        app.include_router(routes.router)
    app.mount("/static", StaticFiles(directory=PAGE))
    app.add_api_route("/", _page, include_in_schema=False)
    answer_with_problems(app)
    description = msgspec.json.encode(
        _openapi(app, has_token=token is not None)
    )  # now, because it would keep the run waiting later

    async def openapi(_: Request) -> Response:
        return Response(description, media_type=JSON)

    app.add_api_route("/openapi.json", openapi, include_in_schema=False)
    limits = Limits(service.settings.serve.max_body, service.settings.serve.requests_per_second)
    return Security(app, hosts=hosts, token=token, limits=limits, clock=time.monotonic)


async def _page(_: Request) -> Response:
    return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})


def _openapi(app: FastAPI, *, has_token: bool) -> dict[str, Any]:
    """The description of the API, with the schemas that routes name."""
    found = get_openapi(title=app.title, version=app.version, description=peerwatch.__doc__, routes=app.routes)
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for path, operations in found["paths"].items():
        for operation in operations.values():
            for response in operation["responses"].values():
                schemas |= response.pop("x-components", {})
            schemas |= operation.pop("x-components", {})
            if has_token and path not in OPEN:
                operation["security"] = [{"token": []}]
            else:
                operation["responses"].pop("401", None)
    schemas["Problem"] = {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
    }
    if has_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return found

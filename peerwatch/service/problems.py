"""Errors as `application/problem+json` (RFC 9457)."""

import re
from http import HTTPStatus
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from peerwatch.errors import BadInput, Busy, PeerwatchError, UsageError

PROBLEM: Final = "application/problem+json"
RETRY_SECONDS: Final = 5
"""After how long somebody who was turned away may ask again."""


class Problem(Exception):  # noqa: N818 (it is called so in the standard)
    """A request that cannot be answered: the status, one sentence for the user, and members of the problem's own."""

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.members = members


def problem_body(status: int, detail: str, **members: Any) -> bytes:
    """The document of a problem."""
    title = HTTPStatus(status).phrase
    return msgspec.json.encode({"type": "about:blank", "title": title, "status": status, "detail": detail, **members})


def response_of(problem: Problem) -> Response:
    """A problem as a response."""
    body = problem_body(problem.status, problem.detail, **problem.members)
    return Response(body, problem.status, problem.headers, PROBLEM)


def answer_with_problems(app: FastAPI) -> None:
    """Have every error of an application answered as a problem."""

    async def ours(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101 (registered for it)
        return response_of(error)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = _allowed(request) or headers.get("Allow", "")
        return response_of(Problem(error.status_code, _sentence(error), headers=headers))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        found = error.errors()[0]
        where = ".".join(str(part) for part in found["loc"][1:]) or str(found["loc"][0])
        return response_of(Problem(422, f"{where}: {found['msg']}", pointer=where))

    async def known(_: Request, error: Exception) -> Response:
        status = 422 if isinstance(error, BadInput) else 400 if isinstance(error, UsageError) else 503
        return response_of(Problem(status, str(error)))

    async def busy(_: Request, error: Exception) -> Response:
        return response_of(Problem(429, str(error), headers={"retry-after": str(RETRY_SECONDS)}))

    async def unknown(_: Request, __: Exception) -> Response:
        return response_of(Problem(500, "the service has a defect; what it wrote to standard error says where"))

    app.add_exception_handler(Exception, unknown)
    app.add_exception_handler(Problem, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(PeerwatchError, known)
    app.add_exception_handler(Busy, busy)


def _allowed(request: Request) -> str:
    """The methods of all routes at a path; the router knows those of the first one."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    found = [
        methods for path, methods in paths.items() if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.url.path)
    ]
    return ", ".join(sorted(method.upper() for methods in found for method in methods))


def _sentence(error: HTTPException) -> str:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return "there is nothing at this path; /openapi.json lists what there is"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return "this path does not take the method; the Allow header lists those it takes"
    return str(error.detail)

"""Who may ask for what: the token, where a request comes from, how large and how frequent requests may be.

A service on loopback has no token, but any page that its user visits can send requests there. So the Host must be a
name of this service (against DNS rebinding) and an Origin, if there is one, must be the service's own.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peerwatch.service.problems import Problem, response_of

SAFE: Final = {"GET", "HEAD", "OPTIONS"}
OPEN: Final = {"/health", "/ready"}
"""Paths that need no token: what asks for them decides about restarts, and learns nothing else."""
PAGE: Final = ("/", "/static/")
"""The page itself needs none either: it asks for the token."""
JSON_TYPES: Final = {"application/json", "application/x-ndjson"}
"""A form on another page cannot send these without being asked whether it may."""
CLIENTS: Final = 10_000
"""The most clients whose rate is kept."""
HEADERS: Final = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    b" img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}


class Limits(NamedTuple):
    """How many bytes a request's body may have, and how many requests a second one client may send; 0 is any number."""

    body: int
    rate: float


class Security:
    """ASGI middleware that refuses what must not be answered, as a problem."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: frozenset[str] | None,
        token: str | None,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        """`hosts` are the names by which the service may be called, with their ports; None if any will do."""
        self._app = app
        self._hosts = hosts
        self._token = token.encode() if token is not None else None
        self._limits = limits
        self._clock = clock
        self._rates: dict[str, tuple[float, float]] = {}
        """For each client the requests that it may still send at once, and when that was so."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in HEADERS.items() if pair[0] not in there)]
            await send(message)

        headers = _headers(scope)
        try:
            self._check(scope, headers)
            await self._app(scope, self._limited(scope, headers, receive), send_with_headers)
        except Problem as problem:
            await response_of(problem)(scope, receive, send_with_headers)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if self._hosts is not None and host.lower() not in self._hosts:
            raise Problem(421, f"this service is not called {host[:100]!r}; add the name to serve.hosts")
        origin = headers.get("origin")
        if origin is not None and _place(origin) != host.lower():
            raise Problem(403, "requests from pages of other origins are refused")
        if scope["method"] not in SAFE and headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            raise Problem(403, "requests from pages of other origins are refused")
        self._check_rate(scope)
        self._check_token(scope["path"], headers)
        length = headers.get("content-length", "0").lstrip("0")
        if len(length) > 18 or int(length or "0") > self._limits.body:
            raise self._too_large()

    def _check_token(self, path: str, headers: Mapping[str, str]) -> None:
        if self._token is None or path in OPEN or path == PAGE[0] or path.startswith(PAGE[1]):
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), self._token):
            raise Problem(401, "a bearer token is needed: Authorization: Bearer TOKEN",
                          headers={"www-authenticate": "Bearer"})  # fmt: skip

    def _check_rate(self, scope: Scope) -> None:
        rate = self._limits.rate
        if not rate:
            return
        client, now = (scope.get("client") or ("", 0))[0], self._clock()
        if len(self._rates) >= CLIENTS:
            del self._rates[next(iter(self._rates))]  # the one that has been silent for the longest
        burst = max(1.0, rate)
        left, at = self._rates.pop(client, (burst, now))
        left = min(burst, left + (now - at) * rate)
        if left < 1:
            self._rates[client] = (left, now)
            raise Problem(429, f"more than {rate:g} requests a second", headers={"retry-after": "1"})
        self._rates[client] = (left - 1, now)

    def _limited(self, scope: Scope, headers: Mapping[str, str], receive: Receive) -> Receive:
        taken = 0

        async def limited() -> Any:
            nonlocal taken
            if scope["method"] not in SAFE | {"DELETE"}:  # looked at here, so that what is not there is still a 404
                kind = headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind not in JSON_TYPES:
                    raise Problem(415, "the body must be application/json or application/x-ndjson, and be called so")
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self._limits.body:
                    raise self._too_large()
            return message

        return limited

    def _too_large(self) -> Problem:
        return Problem(413, f"the body may have {self._limits.body:,} bytes; send it in parts, or raise serve.max_body")


def _headers(scope: Scope) -> dict[str, str]:
    """A request's headers; of one that is repeated the first counts. Quicker to make than Starlette's."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def _place(origin: str) -> str | None:
    """The host and port of an origin."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None

"""Who may ask for what: over a real server on a loopback port, with a clock that the test turns."""

import os
import re
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.to_thread import run_sync
from fastapi import FastAPI
from served import LIVE, served, write_logs
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from peerwatch.errors import UsageError
from peerwatch.service.problems import answer_with_problems
from peerwatch.service.security import CLIENTS, HEADERS, Limits, Security
from peerwatch.service.server import is_loopback, listen, names_of, parse_address, server_of, token_in, url_of

JSON = {"content-type": "application/json"}


async def answer(request: Request) -> Response:
    """The size of the body."""
    return PlainTextResponse(str(len(await request.body())))


async def quick(_: Request) -> Response:
    """An answer that does not read the body."""
    return PlainTextResponse("here")


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


CLOCK = Clock()


@asynccontextmanager
async def guarded(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a small application behind the guard, on a real port."""
    listener = await run_sync(listen, "127.0.0.1:0")
    with listener:
        given = {"hosts": names_of(listener, ()), "token": None, "limits": Limits(1000, 0.0), "clock": CLOCK}
        app = FastAPI(openapi_url=None)
        for path in ("/", "/health", "/ready", "/secret", "/static/x"):
            app.add_route(path, quick)
        app.add_route("/size", answer, methods=["POST"])
        app.add_route("/gone", quick, methods=["DELETE"])
        answer_with_problems(app)
        server = server_of(Security(app, **(given | options)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            async with httpx.AsyncClient(base_url=url_of(listener), trust_env=False) as client:
                yield client
            server.should_exit = True


async def test_a_host_that_is_not_the_service_s_is_refused() -> None:
    """So a name that somebody points at loopback (DNS rebinding) reaches nothing; the service's own names do."""
    async with guarded() as client:
        port = client.base_url.port
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", "localhost", f"[::1]:{port}"):
            assert (await client.get("/secret", headers={"host": host})).status_code == 200, host
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1:1", "", "localhost.evil.example", "[::1"):
            refused = await client.get("/secret", headers={"host": host})
            assert (refused.status_code, refused.headers["content-type"]) == (421, "application/problem+json"), host
            assert "serve.hosts" in refused.json()["detail"]
            assert (await client.get("/health", headers={"host": host})).status_code == 421


async def test_a_page_of_another_origin_is_refused() -> None:
    """Neither reads nor writes: a page that the user visits must not label purchases."""
    async with guarded() as client:
        own = f"http://127.0.0.1:{client.base_url.port}"
        assert (await client.post("/size", headers={"origin": own, **JSON})).status_code == 200
        for origin in (
            "http://evil.example",
            "null",
            "http://127.0.0.1:1",
            "http://[",
            "file://",
            "chrome-extension://x",
        ):
            for method, path in (("GET", "/secret"), ("POST", "/size"), ("DELETE", "/gone")):
                refused = await client.request(method, path, headers={"origin": origin, **JSON})
                assert refused.status_code == 403, (origin, method)
        for site in ("cross-site", "same-site"):
            assert (await client.post("/size", headers={"sec-fetch-site": site, **JSON})).status_code == 403
            assert (await client.request("DELETE", "/gone", headers={"sec-fetch-site": site})).status_code == 403
        for site in ("same-origin", "none"):
            assert (await client.post("/size", headers={"sec-fetch-site": site, **JSON})).status_code == 200


async def test_a_form_s_content_type_is_refused() -> None:
    """A form of another page can send nothing without a browser asking first; what is not there is still not there."""
    async with guarded() as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonx"):
            refused = await client.post("/size", headers={"content-type": kind} if kind else {}, content=b"{}")
            assert refused.status_code == 415, kind
        for kind in ("application/json", "Application/JSON; charset=utf-8", "application/x-ndjson"):
            assert (await client.post("/size", headers={"content-type": kind}, content=b"{}")).text == "2"
        assert (await client.post("/secret", content=b"x")).status_code == 405
        assert (await client.post("/nowhere", content=b"x")).status_code == 404


async def test_the_token_is_needed_but_for_health_and_the_page() -> None:
    """401 without it, with another one, under another scheme."""
    async with guarded(token="s\u00e9same", hosts=None) as client:  # noqa: S106
        for path in ("/health", "/ready", "/", "/static/x"):
            assert (await client.get(path)).status_code == 200
        for given in (None, "Basic s\u00e9same", "Bearer", "Bearer wrong", "Bearer s\u00e9sam", "s\u00e9same"):
            headers: dict[bytes, bytes] = {} if given is None else {b"authorization": given.encode()}
            refused = await client.get("/secret", headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), given
        assert (await client.get("/secret", headers={"authorization": "bearer  wrong"})).status_code == 401
        for path in ("/static/../secret", "/health/", "/Health", "/static"):
            assert (await client.get(path)).status_code in {401, 404}, path
    async with guarded(token="sesame") as client:  # noqa: S106
        assert (await client.get("/secret", headers={"authorization": "bearer sesame"})).status_code == 200


async def test_a_large_body_is_refused_whatever_it_says_about_its_length() -> None:
    """By its Content-Length before it is read, and in chunks as soon as there is too much of it."""

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 100

    async with guarded() as client:
        assert (await client.post("/size", headers=JSON, content=b"x" * 1000)).text == "1000"
        assert (await client.post("/size", headers=JSON, content=chunks(10))).text == "1000"
        for content in (b"x" * 1001, chunks(11)):
            refused = await client.post("/size", headers=JSON, content=content)
            assert (refused.status_code, "1,000 bytes" in refused.json()["detail"]) == (413, True)
        for length in ("1001", "9" * 19, "00001001"):
            reading, writing = await _raw(client, f"content-length: {length}\r\n")
            assert b" 413 " in await reading(), length
            await writing.aclose()
        reading, writing = await _raw(client, "content-length: " + "9" * 5000 + "\r\n")
        assert re.search(rb"^HTTP/1.1 4\d\d ", await reading())
        await writing.aclose()


async def _raw(client: httpx.AsyncClient, headers: str) -> tuple[Any, Any]:
    """Send a POST without its body, byte by byte as given."""
    port = client.base_url.port or 0
    stream = await anyio.connect_tcp("127.0.0.1", port)
    await stream.send(
        f"POST /size HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n{headers}\r\n".encode()
    )
    return stream.receive, stream


async def test_a_client_that_asks_too_often_is_told_to_wait() -> None:
    """As many requests at once as it may send a second, then one for each that has passed; by the clock alone."""
    async with guarded(limits=Limits(1000, 4.0)) as client:
        for _ in range(4):
            assert (await client.get("/secret")).status_code == 200
        for _ in range(3):
            refused = await client.get("/secret")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        CLOCK.now += 0.25
        assert [(await client.get("/secret")).status_code for _ in range(2)] == [200, 429]
        CLOCK.now += 1000
        assert [(await client.get("/secret")).status_code for _ in range(5)] == [200, 200, 200, 200, 429]
    async with guarded(limits=Limits(1000, 0.5)) as client:
        assert [(await client.get("/secret")).status_code for _ in range(2)] == [200, 429]
        CLOCK.now += 2
        assert [(await client.get("/secret")).status_code for _ in range(2)] == [200, 429]


async def test_no_number_of_clients_fills_the_memory() -> None:
    """The rates of so many clients are kept, those that asked last; another one's is its own."""

    async def nothing(*_: Any) -> None:
        """An application that says nothing."""

    guard = Security(nothing, hosts=None, token=None, limits=Limits(1000, 1.0), clock=CLOCK)
    for number in range(CLIENTS + 100):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": (str(number), 1)}
        await guard(scope, nothing, nothing)  # type: ignore[arg-type]
    assert len(guard._rates) == CLIENTS  # noqa: SLF001
    assert str(CLIENTS + 99) in guard._rates  # noqa: SLF001


async def test_every_answer_has_the_headers() -> None:
    """Those that are refused as well: nothing is executed, framed, guessed or kept."""
    async with guarded(token="x") as client:  # noqa: S106
        for path, headers in (
            ("/", {}),
            ("/secret", {}),
            ("/nowhere", {"authorization": "Bearer x"}),
            ("/", {"host": "x"}),
        ):
            found = await client.get(path, headers=headers)
            for name, value in HEADERS.items():
                assert found.headers[name.decode()] == value.decode(), (path, name)


def test_a_token_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """With mode 0600 and enough of randomness, once; one that others may read, or that is none, is refused."""
    path = tmp_path / "token"
    token = token_in(path)
    assert len(token) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token_in(path) == token
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        token_in(path)
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        token_in(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="it is not text"):
        token_in(path)
    with pytest.raises(UsageError, match="No such file"):
        token_in(tmp_path / "nowhere" / "token")
    with pytest.raises(UsageError, match="Is a directory"):
        token_in(tmp_path)


def test_addresses_are_read_as_people_write_them() -> None:
    """With a host or without, IPv6 in brackets; what is none is refused with an example."""
    assert parse_address("127.0.0.1:8000") == ("127.0.0.1", 8000)
    assert parse_address(":80") == ("127.0.0.1", 80)
    assert parse_address("[::1]:80") == ("::1", 80)
    for text in ("", "8000", "localhost", "localhost:", "localhost:http", "localhost:65536", "localhost:-1", "::1"):
        if text != "::1":
            with pytest.raises(UsageError, match="expected HOST:PORT"):
                parse_address(text)


def test_where_it_cannot_listen_is_said_in_a_sentence() -> None:
    """A port that is taken, an address that is not this machine's, a name that nobody has or could have."""
    with listen("127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"cannot listen at {address}: .*name another port with --serve"):
            listen(address)
    with pytest.raises(UsageError, match="name another address with --serve"):
        listen("192.0.2.1:8000")
    for host in ("no-such-host.invalid", "a..b", "x" * 300, "a\0b"):
        with pytest.raises(UsageError, match=r"cannot listen at .*; name another address with --serve"):
            listen(f"{host}:8000")


def test_what_listens_elsewhere_has_a_token_and_any_name() -> None:
    """On all addresses of the machine; with `serve.hosts` only under those and from the machine itself."""
    with listen("0.0.0.0:0") as listener:
        assert not is_loopback(listener)
        assert names_of(listener, ()) is None
        names = names_of(listener, ("Watch.example",))
        port = listener.getsockname()[1]
        assert names is not None
        assert {"watch.example", f"watch.example:{port}", f"127.0.0.1:{port}"} <= names
        assert "evil.example" not in names
    with listen("127.0.0.1:0") as listener:
        assert is_loopback(listener)
    if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):  # noqa: PTH110
        with listen("[::1]:0") as listener:
            assert is_loopback(listener)
            assert url_of(listener).startswith("http://[::1]:")


def test_a_service_that_listens_elsewhere_prints_where_its_token_is(tmp_path: Path) -> None:
    """The file is made in the state directory, or where the config says; without it nothing but health is told."""
    write_logs(tmp_path)
    with served(tmp_path, *LIVE, "--serve", "0.0.0.0:0") as service:
        assert "requests need the bearer token in state/token" in service.said()
        path = tmp_path / "state" / "token"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        token = path.read_text().strip()
        assert token not in service.said()
        service.until_ready()
        assert service.http.get("/health").status_code == 200
        for path_ in ("/status", "/decisions", "/openapi.json", "/events", "/feedback"):
            assert service.http.get(path_).status_code == 401, path_
        service.http.headers["authorization"] = f"Bearer {token}"
        assert service.http.get("/status").status_code == 200
        assert service.http.get("/openapi.json").status_code == 200
        assert service.stop() == 0
    (tmp_path / "c.yaml").write_text("serve: {token_file: here/t, hosts: [watch.example]}\n")
    (tmp_path / "here").mkdir()
    with served(tmp_path, "-c", "c.yaml", *LIVE, "--serve", "0.0.0.0:0") as service:
        assert service.http.get("/health", headers={"host": "evil.example"}).status_code == 421
        assert service.http.get("/health", headers={"host": "watch.example"}).status_code == 200
        assert stat.S_IMODE((tmp_path / "here" / "t").stat().st_mode) == 0o600

"""Webhooks: each record reaches a receiver that keeps keys once, in order, whatever happens to the requests."""

import base64
import json
import logging
import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync
from certificates import certificates
from http_servers import Faults, Kills, Quiet, serving
from receiver import SECRET, Received, handler
from strategies import often
from support import ROOT

from peerwatch.connectors.checks import flagged
from peerwatch.connectors.exactly_once import StoreSink
from peerwatch.connectors.records import FLAGGED, REJECT, Kind, Record, Rejection, encoded, payload
from peerwatch.connectors.store import EXACTLY_ONCE, StoreContext, unheard
from peerwatch.connectors.webhook import WebhookStore, signature
from peerwatch.errors import SinkError, UsageError
from peerwatch.network.rejects import RejectedLine
from peerwatch.studies.generate import Recipe, generate
from peerwatch.urls import parsed

RUN = "0123456789abcdef"


@pytest.fixture
def received(tmp_path: Path) -> Iterator[Received]:
    """What a receiver has got."""
    kept = Received(tmp_path / "received.db")
    yield kept
    kept.close()


def context(*kinds: Kind) -> StoreContext:
    """What a store is told."""
    return StoreContext(RUN, frozenset(kinds or {FLAGGED}), timeout=60.0)


def send(
    url: str,
    *batches: Sequence[Record],
    patience: float | None = None,
    warn: Callable[[str], None] = unheard,
    give_up: float = 60.0,
) -> StoreSink:
    """Send batches, as a run does; an answer to them may take so many seconds."""

    async def process() -> StoreSink:
        store = await run_sync(WebhookStore, parsed(url), context(FLAGGED, REJECT))
        sink = StoreSink(store, delivery=EXACTLY_ONCE, give_up=give_up, warn=warn)
        async with AsyncExitStack() as stack:
            await sink.open(stack)
            await sink.start()
            if patience is not None:
                store._client._timeout = patience  # noqa: SLF001
            for batch in batches:
                await sink.write(batch)
        return sink

    return anyio.run(process)


def rejection(seq: int) -> Rejection:
    """A rejected line."""
    return Rejection(seq, RejectedLine("stream", seq, 0, "no event", b"\xff"))


class Kept:
    """The requests that a server has got."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    def handler(self, status: int = 204, content: bytes = b"", **headers: str) -> type[Quiet]:
        """What keeps them, and answers each in the same way."""
        requests = self.requests

        class Keeping(Quiet):
            def do_POST(self) -> None:
                requests.append((self.path, {**self.headers}, self.body()))
                self.answer(status, content, **headers)

        return Keeping


def test_signatures_are_those_of_standard_webhooks() -> None:
    """The example that its own libraries are tested with."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_docs_say_how_to_check_a_signature() -> None:
    """Their code takes what is sent, and nothing else."""
    pages = [path.read_text() for path in (ROOT / "docs").rglob("*.md")]
    codes = [code for page in pages for code in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]
    names: dict[str, Any] = {}
    exec(next(code for code in codes if "def is_genuine" in code), names)  # noqa: S102 (our own docs)
    kept = Kept()
    with serving(kept.handler()) as port:
        send(f"http://127.0.0.1:{port}/?secret={SECRET}", [flagged(1)])
    _, headers, body = kept.requests[0]
    lowered = {name.lower(): value for name, value in headers.items()}
    assert names["is_genuine"](lowered, body, SECRET)
    assert not names["is_genuine"](lowered, body + b" ", SECRET)
    assert not names["is_genuine"](lowered | {"webhook-timestamp": "1614265330"}, body, SECRET)
    assert not names["is_genuine"](lowered | {"webhook-id": "another"}, body, SECRET)


def test_proxies_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """For hosts that are not excepted."""
    kept = Kept()
    with serving(kept.handler()) as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        send("http://receiver.invalid/hook?insecure=true", [flagged(1)])
        send(f"http://127.0.0.1:{port}/hook", [flagged(2)])
    assert [path for path, _, _ in kept.requests] == ["http://receiver.invalid/hook", "/hook"]


def test_what_a_request_holds() -> None:
    """Address, headers and body of one record; peerwatch's own options are not passed on, the receiver's are."""
    kept = Kept()
    with serving(kept.handler()) as port:
        url = f"http://ann:pw@127.0.0.1:{port}/a%2Fb/hook?batch=1&x=1%202&secret={SECRET}&y&x=2"
        send(url.replace("batch=1&", ""), [flagged(7)], [rejection(7)])
        send(url, [flagged(7)])
    paths, headers, bodies = zip(*kept.requests, strict=True)
    assert {*paths} == {"/a%2Fb/hook?x=1%202&y&x=2"}
    assert json.loads(bodies[0]) == payload(flagged(7), RUN)
    assert json.loads(bodies[2]) == [payload(flagged(7), RUN)]
    assert [each["Idempotency-Key"] for each in headers] == [
        f"{RUN}:flagged:7",
        f"{RUN}:reject:7",
        f"{RUN}:flagged:7-7",
    ]
    assert all(each["webhook-id"] == each["Idempotency-Key"] for each in headers)
    assert all(each["Authorization"] == "Basic YW5uOnB3" for each in headers)
    assert all(each["Content-Type"] == "application/json" for each in headers)


def test_without_a_secret_there_is_no_signature() -> None:
    """Nor does one record a request stand in an array."""
    kept = Kept()
    with serving(kept.handler()) as port:
        send(f"http://127.0.0.1:{port}", [flagged(7), flagged(8)])
    assert len(kept.requests) == 2
    assert all("webhook-signature" not in headers for _, headers, _ in kept.requests)


@pytest.mark.parametrize("options", ["", pytest.param("&batch=2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", range(often(1, 3)))
def test_one_request_in_five_fails(received: Received, options: str, seed: int) -> None:
    """Half of those before it is processed, half after: the receiver has each record once, and in order."""
    records = [flagged(3 * number + 1) for number in range(150)]
    faults = Faults(seed)
    with serving(handler(received, faults)) as port:
        sink = send(f"http://127.0.0.1:{port}/hook?secret={SECRET}{options}", records[:20], records[20:])
    assert received.lines("/hook") == encoded(records)
    assert sink.retries == faults.count > 3
    assert sink.written == len(records)


def test_a_request_that_fails_is_repeated_alone(received: Received) -> None:
    """The records before it, which were accepted, are not sent again; nor is a server away that fails once a while."""
    count = 0

    def fault(moment: str) -> int | None:
        nonlocal count
        count += moment == "before"
        return 503 if moment == "before" and count % 3 == 0 else None

    warnings: list[str] = []
    records = [flagged(number) for number in range(1, 31)]
    with serving(handler(received, fault)) as port:
        send(f"http://127.0.0.1:{port}/hook?secret={SECRET}", records, warn=warnings.append)
    assert received.lines("/hook") == encoded(records)
    assert received.repeats == 0
    assert count == 30 + 14
    assert warnings == []


def test_an_answer_that_does_not_come_is_not_waited_for(received: Received) -> None:
    """The record was processed, so the request is repeated, and the receiver knows it again."""
    processed = threading.Event()

    class Hanging(handler(received)):  # type: ignore[misc]
        def answer(self, code: int, *_: Any) -> None:
            if self.command == "POST" and not processed.is_set():
                processed.set()
                self.connection.recv(1)  # until the client has gone
                code = 0
            super().answer(code)

    warnings: list[str] = []
    with serving(Hanging) as port:
        send(f"http://127.0.0.1:{port}/hook?secret={SECRET}", [flagged(1)], patience=0.2, warn=warnings.append)
    assert received.lines("/hook") == flagged(1).encode()
    assert received.repeats >= 1
    assert "does not answer: no answer within 0.2 seconds; waiting for it" in warnings[0]


class Endless(Quiet):
    """Answers with success, and a body that never ends."""

    def do_POST(self) -> None:
        """Answer until nobody reads."""
        self.body()
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            self.close_connection = True


def test_an_answer_without_an_end_is_cut() -> None:
    """It is its status that counts."""
    with serving(Endless) as port:
        assert send(f"http://127.0.0.1:{port}", [flagged(1), flagged(2)]).written == 2


def test_a_wait_that_the_receiver_asks_for_is_kept(received: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds or as a date; but not beyond the time after which the run gives up."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("peerwatch.connectors.exactly_once.anyio.sleep", sleep)
    waits = iter(["7", "Wed, 01 Jan 2200 00:00:00 GMT", "Wed, 01 Jan 2020 00:00:00 GMT", "soon"])

    class Busy(handler(received)):  # type: ignore[misc]
        def do_POST(self) -> None:
            if (wait := next(waits, None)) is None:
                super().do_POST()
                return
            self.body()
            self.answer(429, Retry_After=wait)

    with serving(Busy) as port:
        send(f"http://127.0.0.1:{port}/hook?secret={SECRET}", [flagged(1)])
    assert received.lines("/hook") == flagged(1).encode()
    assert pauses[0] == 7
    assert 10 < pauses[1] <= 60
    assert max(pauses[2:]) < 5
    assert len(pauses) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 410, 413, 422])
def test_a_record_that_is_refused_ends_the_run(status: int) -> None:
    """The sentence names it, the status, the beginning of what the receiver says, and the way out."""
    kept = Kept()
    with serving(kept.handler(status, b"no\n\x1b[31m such  field" + b"!" * 10_000)) as port:
        message = rf"/hook refuses flagged record 4: {status} no \[31m such field!+\.\.\.; fix that and run again"
        with pytest.raises(SinkError, match=message) as raised:
            send(f"http://127.0.0.1:{port}/hook", [flagged(4), flagged(5)])
        assert len(str(raised.value)) < 500
        with pytest.raises(SinkError, match=rf"refuses flagged record 4-5: {status}"):
            send(f"http://127.0.0.1:{port}/hook?batch=10", [flagged(4), flagged(5)])
    assert len(kept.requests) == 2


def test_a_redirect_is_not_followed() -> None:
    """Records go nowhere but where they were told to go."""
    kept = Kept()
    with (
        serving(kept.handler()) as other,
        serving(kept.handler(307, Location=f"http://127.0.0.1:{other}/")) as port,
        pytest.raises(SinkError, match="redirects flagged record 4: 307; name the address that it redirects to"),
    ):
        send(f"http://127.0.0.1:{port}/hook", [flagged(4)])
    assert len(kept.requests) == 1


def test_why_a_server_is_not_reached_is_said() -> None:
    """In the words of the system."""
    with serving(Quiet) as port:
        pass
    with pytest.raises(UsageError, match=r"cannot reach .*: Connection refused; start the server, or name another"):
        send(f"http://127.0.0.1:{port}/hook", [flagged(4)])


def test_a_server_that_stays_away_is_given_up() -> None:
    """Each failure at the same record counts, whatever went before."""
    kept = Kept()
    with (
        serving(kept.handler(503, b"maintenance")) as port,
        pytest.raises(SinkError, match="has been away for 0 seconds: 503 maintenance; start it and run again"),
    ):
        send(f"http://127.0.0.1:{port}/hook", [flagged(4)], give_up=0.0)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.org/hook", "would travel unencrypted; use https://, or add the option insecure=true"),
        ("http://example.org/hook?insecure=false", "would travel unencrypted"),
        ("http://127.0.0.1/hook?insecure=yes", "insecure is 'yes'; expected one of true, false"),
        ("https://example.org/hook?batch=0", "batch is '0'; expected a number from 1 to 1000"),
        ("https://example.org/hook?batch=many", "batch is 'many'; expected a number"),
        ("https://example.org/hook?secret=hunter22", 'the secret must be "whsec_" and 24 to 64 random bytes'),
        ("https://example.org/hook?secret=whsec_c2hvcnQ=", 'the secret must be "whsec_"'),
        ("https://example.org/hook?secret=whsec_?", 'the secret must be "whsec_"'),
        ("https:///hook", "the host is missing"),
        ("https://example.org/${NOT_THERE}", "NOT_THERE is not set"),
        ("https://example.org/\x01hook", "is not a URL"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, message: str) -> None:
    """Before anything is connected; no secret is in it."""
    with pytest.raises(UsageError, match=message) as raised:
        WebhookStore(parsed(url), context())
    assert "hunter22" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["http://localhost/", "http://[::1]:8080/hook", "http://127.1.2.3", "http://receiver:8080/hook?insecure=true"],
)
def test_what_stays_on_the_machine_needs_no_encryption(url: str) -> None:
    """Nor a network that the user trusts."""
    WebhookStore(parsed(url), context())


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(UsageError, match=r"needs httpx; install it: pip install 'peerwatch\[http\]'"):
        WebhookStore(parsed("https://example.org/hook"), context())


def test_secrets_are_nowhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A path, a query, a password and a signature's secret from the environment are sent, but not told."""
    caplog.set_level(logging.DEBUG)
    secrets = {"PATH_PART": "T0/p4th-s3cret", "CODE": "c0de s3cret", "PASSWORD": "p4ss-s3cret", "KEY": SECRET}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    kept = Kept()
    told: list[str] = []

    class Echo(kept.handler()):  # type: ignore[misc]
        def do_POST(self) -> None:
            kept.requests.append((self.path, {**self.headers}, self.body()))
            self.answer(500 if len(kept.requests) < 3 else 400, f"{self.path} {self.headers}".encode())

    with serving(Echo) as port:
        place = f"ann:${{PASSWORD}}@127.0.0.1:{port}/${{PATH_PART}}?code=${{CODE}}&literal=l1teral-s3cret"
        with pytest.raises(SinkError) as raised:
            send(f"http://{place}&secret=${{KEY}}", [flagged(1)], warn=told.append)
    assert {path for path, _, _ in kept.requests} == {"/T0/p4th-s3cret?code=c0de%20s3cret&literal=l1teral-s3cret"}
    assert len(told) == 1
    text = "\n".join([str(raised.value), *told, caplog.text])
    assert "s3cret" not in text.replace("${", "")
    assert SECRET not in text


def test_servers_prove_who_they_are(tmp_path: Path) -> None:
    """A certificate that nobody vouches for is refused, and the way out named."""
    made = certificates(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made.authority))
    server.load_cert_chain(made.server, made.server_key)
    kept = Kept()
    with serving(kept.handler(), server) as port:
        with pytest.raises(UsageError, match=r"certificate is not trusted: .*; name the file of its author"):
            send(f"https://127.0.0.1:{port}/hook", [flagged(1)])
        send(f"https://127.0.0.1:{port}/hook?tls_ca={made.authority}", [flagged(1)])
        with pytest.raises(UsageError, match="there is no file /nowhere"):
            send(f"https://127.0.0.1:{port}/hook?tls_ca=/nowhere", [flagged(1)])
        with pytest.raises(UsageError, match=f"cannot use {made.server_key}"):
            send(f"https://127.0.0.1:{port}/hook?tls_ca={made.server_key}", [flagged(1)])
        server.verify_mode = ssl.CERT_REQUIRED
        client = f"tls_ca={made.authority}&tls_cert={made.client}&tls_key={made.client_key}"
        send(f"https://127.0.0.1:{port}/hook?{client}", [flagged(2)])
        with pytest.raises(UsageError, match="cannot reach"):
            send(f"https://127.0.0.1:{port}/hook?tls_ca={made.authority}", [flagged(3)])
    assert [json.loads(body)["seq"] for _, _, body in kept.requests] == [1, 2]


@pytest.mark.parametrize("options", ["", pytest.param("&batch=4", marks=pytest.mark.slow)])
def test_a_run_that_is_killed_sends_each_record_once(received: Received, tmp_path: Path, options: str) -> None:
    """The real command, killed before and after requests are processed: what arrives is the file's bytes."""
    batch, stream, _ = generate(Recipe(users=300, batch_events=3000, stream_events=3000, seed=5))
    (tmp_path / "batch.json").write_text("".join(batch))
    (tmp_path / "stream.json").write_text("".join(stream))
    (tmp_path / "config.yaml").write_text("state: {directory: state, seconds: 0.01, events: 100}\n")
    places = [(2, "after"), (3, "before"), (5, "after"), (9, "before"), (12, "after"), (13, "after"), (14, "before")]
    kills = Kills(places[: often(3, 7)])
    command = [sys.executable, "-m", "peerwatch", "run", "--quiet", "batch.json", "stream.json"]
    with serving(handler(received, kills)) as port:
        url = f"http://127.0.0.1:{port}/hook?secret={SECRET}{options}"
        kills.run([*command, url, "--config", "config.yaml"], tmp_path)
    assert kills.count == often(3, 7)
    kills.run([*command, "expected.json"], tmp_path)
    assert received.lines("/hook") == (tmp_path / "expected.json").read_bytes() != b""
    assert received.repeats >= often(1, 3)

"""One connection to NATS and the API of its JetStream, whose errors are peerwatch's.

The client library is not to reconnect by itself: a connection that is lost ends what waits for it.
"""

import asyncio
import json
import math
import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.registry import missing_library
from peerwatch.errors import Unavailable, UsageError
from peerwatch.readable import path_of
from peerwatch.urls import ConnectorUrl

if TYPE_CHECKING:
    from nats.aio.client import Client as Connection
    from nats.aio.msg import Msg

PORT: Final = 4222
API: Final = "$JS.API."
FILES: Final = ("tlsca", "tlscert", "tlskey")
"""Options that name files, as the command `nats` calls them."""
NO_RESPONDERS: Final = "503"
NOT_FOUND: Final = 404
CLOSE_SECONDS: Final = 1.0
"""How long a connection is given to send what it has when it is closed."""


class Refusal(NamedTuple):
    """An error that JetStream answers: the code of HTTP, its own, and the text."""

    code: int
    number: int
    text: str


class Message(NamedTuple):
    """A message to be kept by a stream."""

    subject: str
    headers: dict[str, str]
    content: bytes


class NatsConnection:
    """A connection, used by one task at a time."""

    def __init__(self, url: ConnectorUrl, timeout: float) -> None:
        """Read the URL.

        Raises:
            UsageError: it lacks something, or the library is missing.
        """
        try:
            from nats import errors  # noqa: PLC0415 (nobody else waits for it)
            from nats.aio.client import Client as Connection  # noqa: PLC0415
        except ImportError:
            raise missing_library(url, "nats-py", "nats") from None
        self._errors = errors
        self._make = Connection
        self._url = url
        self._timeout = timeout
        self._secure = url.scheme == "tls"
        self._connection: Connection | None = None
        self._why = "it is not connected"
        self._numbers = count()
        self._inbox = ""
        self._received: asyncio.Queue[Msg | None] = asyncio.Queue()
        """What has arrived; None is the end of the connection."""
        if not url.path:
            raise UsageError(f"{url} names no subject; add one, as in nats://host:4222/flagged")
        if any(not token or token != "".join(token.split()) for token in url.path.split(".")):
            raise UsageError(f"{url}: {url.path!r} is no subject; expected words that are separated by dots")

    def check_written(self) -> None:
        """See that the subject is one that can be written to.

        Raises:
            UsageError: it stands for many.
        """
        subject = self._url.path
        if "*" in subject or ">" in subject:
            raise UsageError(f"{self._url}: {subject} stands for many subjects; name one to write to")

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, in bytes."""
        return self._connected.max_payload

    async def connect(self) -> None:
        """Connect.

        Raises:
            UsageError: the server refuses the user, or its certificate is not trusted.
            Unavailable: it does not answer.
        """
        await self.close()
        context = await run_sync(self._context)
        secret = await run_sync(self._url.secret)
        url, connection = self._url, self._make()
        received: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._received, told = received, _Told()

        async def lost() -> None:
            self._why = told.text or "the connection was lost"
            received.put_nowait(None)

        async def failed(error: Exception) -> None:
            told.hear(error)
            await lost()  # whatever it is, something may not have arrived

        async def arrived(message: "Msg") -> None:
            received.put_nowait(message)

        def guarded(value: str | None) -> Any:
            return (lambda: self._over_tls(connection, value)) if value is not None else None

        has_password = secret is not None
        try:
            with anyio.fail_after(self._timeout):
                await connection.connect(
                    f"nats://{_host(url)}:{url.port or PORT}", error_cb=failed, closed_cb=lost, allow_reconnect=False,
                    max_reconnect_attempts=1, reconnect_time_wait=0, connect_timeout=math.ceil(self._timeout),
                    name="peerwatch", tls=context, user=guarded(url.user if has_password else None),
                    password=guarded(secret), token=guarded(None if has_password else url.user),
                )  # fmt: skip
                self._connection = connection
                self._over_tls(connection, None)
                self._inbox = connection.new_inbox()
                await connection.subscribe(f"{self._inbox}.*", cb=arrived)
        except (OSError, TimeoutError, self._errors.Error) as error:
            told.hear(error)
            self._connection = connection
            await self.close()
            raise self._failure(told) from None

    def _over_tls(self, connection: "Connection", value: str | None) -> str | None:
        """A secret, if it may be sent: nats-py itself speaks without TLS to a server that does not ask for it."""
        if self._secure and not connection._server_info.get("tls_required"):  # noqa: SLF001 (not told otherwise)
            raise self._errors.SecureConnWantedError
        return value

    def _context(self) -> ssl.SSLContext:
        """For tls://, and for nats:// with a server that asks for it."""
        files: dict[str, str | None] = {}
        for name in FILES:
            value = self._url.option(name)
            files[name] = path_of(value) if value is not None else None
        try:
            context = ssl.create_default_context(cafile=files["tlsca"])
            if files["tlscert"] is not None:
                context.load_cert_chain(files["tlscert"], files["tlskey"])
        except OSError as error:
            raise UsageError(f"{self._url}: cannot read its certificates: {error.strerror or error}") from None
        return context

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with anyio.move_on_after(CLOSE_SECONDS), suppress(Exception):  # whatever the library finds to say about it
            await connection.close()
        with suppress(Exception):  # it leaves that off if the socket fails meanwhile
            for subscription in connection._subs.values():  # noqa: SLF001
                subscription._stop_processing()  # noqa: SLF001
            transport: Any = connection._transport  # noqa: SLF001
            transport.close()

    async def api(self, name: str, request: Mapping[str, Any] | None = None) -> dict[str, Any] | Refusal:
        """What JetStream's API answers.

        Raises:
            Unavailable: there is no answer.
        """
        reply = await self._publish(API + name, json.dumps(request).encode() if request is not None else b"")
        while (message := await self._next()).subject != reply:
            pass  # an answer that somebody else waited for
        if _status(message) is not None:
            raise Unavailable("JetStream does not answer; is it enabled?")
        answer: dict[str, Any] = json.loads(message.data)
        return _refusal(answer) or answer

    async def told(self, name: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What JetStream's API answers, for a request that it ought not to refuse.

        Raises:
            UsageError: it refuses.
            Unavailable: there is no answer.
        """
        answer = await self.api(name, request)
        if isinstance(answer, Refusal):
            raise self.refused(answer)
        return answer

    async def streams(self, subject: str) -> list[str]:
        """The names of the streams that keep messages of a subject.

        Raises:
            UsageError: JetStream refuses to tell.
            Unavailable: there is no answer.
        """
        return (await self.told("STREAM.NAMES", {"subject": subject})).get("streams") or []

    async def make(self, subject: str) -> str:
        """Make a stream for a subject, which keeps all its messages in a file; its name.

        Raises:
            UsageError: JetStream refuses.
            Unavailable: there is no answer.
        """
        name = "".join("_" if char in ".*>/\\" else char for char in subject)
        config = {"name": name, "subjects": [subject], "storage": "file", "retention": "limits", "num_replicas": 1}
        await self.told(f"STREAM.CREATE.{name}", config)
        return name

    def refused(self, refusal: Refusal) -> UsageError | Unavailable:
        """The error for a refusal."""
        if refusal.code >= 500:
            return Unavailable(refusal.text)
        return UsageError(f"{self._url}: JetStream answers: {refusal.text}")

    async def keep(self, messages: Sequence[Message]) -> list[dict[str, Any] | Refusal]:
        """Send messages at once; what their streams answer.

        Raises:
            Unavailable: there is no answer, or no stream.
        """
        answers: dict[str, Any] = {}
        replies = [await self._publish(message.subject, message.content, message.headers) for message in messages]
        wanted = set(replies)
        while wanted:
            message = await self._next()
            if message.subject in wanted:
                wanted.remove(message.subject)
                answers[message.subject] = message
        found: list[dict[str, Any] | Refusal] = []
        for reply in replies:
            if _status(answers[reply]) == NO_RESPONDERS:
                raise Unavailable(f"no stream takes messages of {messages[0].subject}")
            answer = json.loads(answers[reply].data)
            found.append(_refusal(answer) or answer)
        return found

    async def pull(self, stream: str, consumer: str, request: Mapping[str, Any]) -> list["Msg"]:
        """Messages that a consumer gives for a request.

        Raises:
            Unavailable: there is no answer, or the consumer is gone.
        """
        messages: list[Msg] = []
        wait = request.get("expires", 0) / 1e9
        name = f"{API}CONSUMER.MSG.NEXT.{stream}.{consumer}"
        reply = await self._publish(name, json.dumps(request).encode())
        while len(messages) < request["batch"]:
            message = await self._next(wait)
            if message.reply.startswith("$JS.ACK."):
                messages.append(message)
            elif message.subject == reply:
                status, text = _status(message), (message.headers or {}).get("Description", "")
                if status == NO_RESPONDERS:
                    raise Unavailable("the consumer is gone")
                if status == "409" and "MaxBytes" not in text and not messages:
                    raise Unavailable(f"JetStream ends the reading: {text}")
                break
        return messages

    async def _next(self, wait: float = 0.0) -> "Msg":
        """What arrives next."""
        with self._bounded(wait):
            message = await self._received.get()
            if message is None:
                raise self._errors.ConnectionClosedError
            return message

    async def _publish(self, subject: str, content: bytes, headers: dict[str, str] | None = None) -> str:
        reply = f"{self._inbox}.{next(self._numbers)}"
        with self._bounded():
            await self._connected.publish(subject, content, reply=reply, headers=headers)
        return reply

    @contextmanager
    def _bounded(self, wait: float = 0.0) -> Iterator[None]:
        """See that it takes no longer than the time that is set and `wait`."""
        errors = self._errors
        try:
            with anyio.fail_after(self._timeout + wait):
                yield
        except errors.ConnectionClosedError:
            if "permissions violation" in self._why.lower():
                raise UsageError(f"{self._url}: NATS does not let this user do that: {self._why}") from None
            raise Unavailable(self._why) from None
        except TimeoutError:
            raise Unavailable(f"no answer within {self._timeout:g} seconds") from None
        except (OSError, errors.Error) as error:
            raise Unavailable(_text(error)) from None

    @property
    def _connected(self) -> "Connection":
        if self._connection is None:
            raise Unavailable("it is not connected")
        return self._connection

    def _failure(self, told: "_Told") -> UsageError | Unavailable:
        url, text = self._url, told.text
        if told.certificate is not None:
            return UsageError(f"{url}: no TLS connection: {told.certificate}")
        if isinstance(told.error, self._errors.SecureConnWantedError):
            return UsageError(f"{url}: the server does not ask for TLS; set it up there, or write nats:// for tls://")
        if "authorization violation" in text.lower() or "authentication" in text.lower():
            return UsageError(f"{url}: NATS refuses the user or the password")
        if isinstance(told.error, BrokenPipeError | ConnectionResetError):  # its last words may be lost with it
            return Unavailable(f"{text}; so it ends, too, if the server refuses the user or the password")
        if isinstance(told.error, TimeoutError):
            return Unavailable(f"no answer within {self._timeout:g} seconds")
        return Unavailable(text)


class _Told:
    """What the library has said of a connection: the last error that says something."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.text = ""
        self.certificate: str | None = None

    def hear(self, error: BaseException) -> None:
        """Take what it says."""
        if isinstance(error, ssl.SSLError) and self.certificate is None:
            self.certificate = getattr(error, "verify_message", None) or error.reason or str(error)
        if self.error is None or type(error).__name__ != "NoServersError":
            self.error, self.text = error, _text(error)


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    if type(error).__name__ == "UnexpectedEOF":
        return "it has ended the connection"
    return str(error).removeprefix("nats: ").strip("'") or type(error).__name__


def _host(url: ConnectorUrl) -> str:
    host = url.host or "localhost"
    return f"[{host}]" if ":" in host else host


def _status(message: "Msg") -> str | None:
    """The status of a message that has one in place of a content."""
    return message.headers.get("Status") if message.headers is not None and not message.data else None


def _refusal(answer: Mapping[str, Any]) -> Refusal | None:
    error = answer.get("error")
    if error is None:
        return None
    return Refusal(error.get("code", 0), error.get("err_code", 0), error.get("description", "it refuses"))

"""HTTP for stores: one connection, answers that are bounded in size and time, failures in words without secrets."""

import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.registry import missing_library
from peerwatch.connectors.store import StoreContext
from peerwatch.errors import Unavailable, UsageError
from peerwatch.urls import HIDDEN, ConnectorUrl

if TYPE_CHECKING:
    import httpx

TLS_OPTIONS: Final = ("tls_ca", "tls_cert", "tls_key")
"""Query parameters that name files: the authority to trust, and a certificate and key to show."""
LARGEST_ANSWER: Final = 1 << 16
"""Bytes of an answer that are read; a sink needs its status, and what is wrong."""
LARGEST_BODY: Final = 1 << 20
"""Bytes of a request that holds several records."""
LONGEST_TEXT: Final = 300
"""Characters of an answer that a message shows."""

SHORTEST_SECRET: Final = 6
"""Characters of a text that is worth hiding: a shorter one may be part of any word."""


class Answer(NamedTuple):
    """The status, the headers, and what the server says in its body, as one line."""

    status: int
    headers: "httpx.Headers"
    text: str

    @property
    def retry_after(self) -> float:
        """How many seconds the server wants us to wait: 0 if it does not say."""
        asked = self.headers.get("Retry-After", "")
        if re.fullmatch(r"[0-9]{1,9}", asked):
            return float(asked)
        try:
            return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
        except (ValueError, OverflowError):
            return 0.0

    def __str__(self) -> str:
        return f"{self.status} {self.text}".rstrip()


class HttpClient:
    """Sends requests to one server, one after the other."""

    def __init__(
        self,
        url: ConnectorUrl,
        base: str,
        *,
        timeout: float,
        account: tuple[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        """Talk to the server at `base`, the beginning of each address; no message shows one of the `secrets`.

        Raises:
            UsageError: a library is missing, or the URL is malformed.
        """
        try:
            import httpx  # noqa: PLC0415 (an extra, and slow to import)
        except ImportError:
            raise missing_library(url, "httpx", "http") from None
        self._httpx = httpx
        self._url = url
        self._timeout = timeout
        self._account = account
        hidden = {secret for secret in (*secrets, *(account or ())[1:]) if len(secret) >= SHORTEST_SECRET}
        self._secrets = sorted(hidden, key=len, reverse=True)
        self._client: httpx.AsyncClient | None = None
        try:
            address = httpx.URL(base)
        except httpx.InvalidURL as error:
            raise UsageError(f"{url} is not a URL: {self._shown(str(error))}") from None
        if not address.host:
            raise UsageError(f"{url}: the host is missing")
        self._base = str(address)

    async def open(self) -> None:
        """Make ready to connect, which the first request does.

        Raises:
            UsageError: a certificate cannot be read.
        """
        if self._client is None:
            self._client = await run_sync(self._made)
            logging.getLogger("httpx").addFilter(self._is_loggable)

    def _is_loggable(self, record: logging.LogRecord) -> bool:
        """Whether a message of the library's log does not name the address, which may hold secrets."""
        return self._base not in record.getMessage()

    def _made(self) -> "httpx.AsyncClient":
        return self._httpx.AsyncClient(
            auth=self._account,
            verify=self._tls() if self._base.startswith("https:") else False,
            timeout=self._timeout,
            limits=self._httpx.Limits(max_connections=1),
            headers={"User-Agent": "peerwatch", "Accept-Encoding": "identity"},
        )

    def _tls(self) -> ssl.SSLContext:
        authority, certificate, key = (self._url.option(name) for name in TLS_OPTIONS)
        for file in (authority, certificate, key):
            if file is not None and not Path(file).is_file():
                raise UsageError(f"{self._url}: there is no file {file}")
        try:
            context = ssl.create_default_context(cafile=authority) if authority else self._httpx.create_ssl_context()
            if certificate is not None:
                context.load_cert_chain(certificate, key)
        except OSError as error:
            files = ", ".join(file for file in (authority, certificate, key) if file is not None)
            raise UsageError(f"{self._url}: cannot use {files}: {error.strerror or error}") from None
        return context

    async def close(self) -> None:
        """Close the connection. Never raises."""
        client, self._client = self._client, None
        if client is not None:
            logging.getLogger("httpx").removeFilter(self._is_loggable)
            with anyio.move_on_after(self._timeout, shield=True), suppress(self._httpx.HTTPError, OSError):
                await client.aclose()

    async def send(
        self, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request to base and path, and return what is answered, whatever its status.

        Raises:
            Unavailable: nothing is answered in time, or the connection breaks.
            UsageError: the server's certificate is not to be trusted.
        """
        if self._client is None:
            raise Unavailable("it is not connected")
        try:
            with anyio.fail_after(self._timeout):
                async with self._client.stream(
                    method, f"{self._base}{path}", content=content, headers=headers, follow_redirects=False
                ) as response:
                    body = b""
                    async for chunk in response.aiter_raw():
                        body += chunk
                        if len(body) >= LARGEST_ANSWER:
                            break
                    return Answer(response.status_code, response.headers, self._shown(body.decode(errors="replace")))
        except (TimeoutError, self._httpx.TimeoutException):
            raise Unavailable(f"no answer within {self._timeout:g} seconds") from None
        except (self._httpx.HTTPError, OSError) as error:
            raise self._failed(error) from None

    def _failed(self, error: BaseException) -> Unavailable | UsageError:
        """What went wrong, in the words of the system: libraries wrap its error in theirs."""
        why = str(error) or type(error).__name__
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return UsageError(
                    f"{self._url}: the server's certificate is not trusted: {cause.verify_message}; name the file of"
                    " its authority with tls_ca=FILE"
                )
            if isinstance(cause, OSError) and cause.strerror:
                own_numbers = isinstance(cause, ssl.SSLError | socket.gaierror)
                why = cause.strerror if own_numbers or not cause.errno else os.strerror(cause.errno)
                break
            group = isinstance(cause, BaseExceptionGroup)
            cause = cause.exceptions[0] if group else cause.__cause__ or cause.__context__  # type: ignore[attr-defined]
        return Unavailable(self._shown(why))

    def _shown(self, text: str) -> str:
        """Text of a server, as the part of a message: one short line, without secrets that it may have repeated."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}..."


class HttpStore:
    """What stores that are reached by HTTP have in common: a repeat is harmless, and nobody says what is there."""

    def __init__(
        self,
        url: ConnectorUrl,
        context: StoreContext,
        base: str,
        *,
        account: tuple[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        """Talk to the server at `base`, as `HttpClient` does; nothing is connected."""
        self.url = url
        self.memory: Any = None
        self._run = context.run
        self._client = HttpClient(url, base, timeout=context.timeout, account=account, secrets=secrets)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def other_run(self) -> None:
        """Records name their run, so those of all runs can stay."""

    async def prepare(self, *, anew: bool) -> None:
        """Nothing is to be created."""

    async def marks(self) -> None:
        """A repeat is harmless."""


def pieces(parts: Sequence[bytes], count: int) -> Iterator[tuple[int, int]]:
    """Cut the parts of requests into runs of at most so many, and of a bounded size: where each begins and ends."""
    begin, size = 0, 0
    for place, part in enumerate(parts):
        size += len(part)
        if place > begin and (place - begin >= count or size > LARGEST_BODY):
            yield begin, place
            begin, size = place, len(part)
    if parts:
        yield begin, len(parts)


def authority(url: ConnectorUrl, default_port: int | None = None) -> str:
    """Host and port of a URL, as they stand in an address."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = url.port if url.port is not None else default_port
    return host if port is None else f"{host}:{port}"

"""One connection to Redis, whose errors are peerwatch's."""

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.registry import missing_library
from peerwatch.errors import Unavailable, UsageError
from peerwatch.urls import ConnectorUrl

if TYPE_CHECKING:
    from redis.asyncio import Connection

PORT: Final = 6379
CERTIFICATES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""Options that name files, as redis-py calls them."""
PASSING: Final = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "OOM", "MISCONF", "BUSY")
"""The first words of refusals that pass: it starts, it is a replica until a failover ends, memory or disk are full."""


class RedisConnection:
    """One connection, whose errors are peerwatch's."""

    def __init__(self, url: ConnectorUrl, timeout: float) -> None:
        """Read the URL.

        Raises:
            UsageError: it lacks something, or the library is missing.
        """
        try:
            from redis import asyncio, exceptions  # noqa: PLC0415 (nobody else waits for it)
        except ImportError:
            raise missing_library(url, "redis", "redis") from None
        self._errors = exceptions
        self._kinds = asyncio.Connection, asyncio.SSLConnection
        self._url = url
        self._timeout = timeout
        self._connection: Connection | None = None
        if not url.path:
            raise UsageError(f"{url} names no key; add one, as in redis://host:6379/flagged")
        database = url.option("db") or "0"
        if not database.isdecimal():
            raise UsageError(f"{url}: db is {database!r}; expected the number of a database")
        self._database = int(database)
        named = [name for name in CERTIFICATES if name in url.query]
        if named and url.scheme != "rediss":
            raise UsageError(f"{url}: {named[0]} is for TLS; write rediss:// in place of redis://")

    async def connect(self) -> None:
        """Connect.

        Raises:
            UsageError: the server refuses the user or the database, or its certificate is not trusted.
            Unavailable: it does not answer.
        """
        await self.close()
        self._connection = await run_sync(self._made)
        connect: Callable[[], Awaitable[None]] = self._connection.connect
        try:
            with anyio.fail_after(self._timeout):
                await connect()
        except (OSError, TimeoutError, self._errors.RedisError) as error:
            raise self._failure(error) from None

    def _made(self) -> "Connection":
        """The connection, not connected yet. Files are read, for the password, for TLS and by the library itself."""
        url, (plain, secure) = self._url, self._kinds
        options: dict[str, Any] = {
            "host": url.host or "localhost", "port": url.port or PORT, "db": self._database, "username": url.user,
            "password": url.secret(), "protocol": 2, "socket_timeout": None, "socket_connect_timeout": self._timeout,
        }  # fmt: skip
        if url.scheme != "rediss":
            return plain(**options)
        files: dict[str, Any] = {name: url.option(name) for name in CERTIFICATES}
        connection = secure(ssl_check_hostname=True, **files, **options)
        try:
            connection.ssl_context.get()
        except OSError as error:
            raise UsageError(f"{url}: cannot read its certificates: {error.strerror or error}") from None
        return connection

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError, self._errors.RedisError):
                await connection.disconnect(nowait=True)

    async def ask(self, *commands: tuple[Any, ...], wait: float = 0.0) -> list[Any]:
        """Send commands at once; the answers.

        Raises:
            UsageError: one is refused.
            Unavailable: there is no answer within the time that is set and `wait`.
        """
        connection = self._connection
        if connection is None or not connection.is_connected:
            raise Unavailable("it is not connected")
        answers: list[Any] = []
        refused: Exception | None = None
        try:
            with anyio.fail_after(self._timeout + wait):
                await connection.send_packed_command(connection.pack_commands(commands))
                for _ in commands:
                    try:
                        answers.append(await connection.read_response())
                    except self._errors.ResponseError as error:
                        refused = refused or error
        except (OSError, TimeoutError, self._errors.RedisError) as error:
            raise self._failure(error) from None
        if refused is not None:
            raise self._failure(refused)
        return answers

    async def together(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands that Redis runs as one step; the answers. That there is no such key is an answer, an error.

        Raises:
            UsageError: one is refused.
            Unavailable: there is no answer.
        """
        *_, answers = await self.ask(("MULTI",), *commands, ("EXEC",))
        for answer in answers:
            if isinstance(answer, Exception) and "no such key" not in str(answer):
                raise self._failure(answer)
        found: list[Any] = answers
        return found

    async def settings(self, *names: str) -> dict[str, str]:
        """Settings of the server; none if it does not tell them to this user.

        Raises:
            UsageError: it tells this user nothing at all.
            Unavailable: there is no answer.
        """
        try:
            answers = await self.ask(*(("CONFIG", "GET", name) for name in names))
        except UsageError:
            if self._connection is not None and self._connection.is_connected:
                return {}
            raise
        return {pair[0].decode(): pair[1].decode() for pair in answers if pair}

    def _failure(self, error: Exception) -> UsageError | Unavailable:
        errors, url = self._errors, self._url
        if isinstance(error, TimeoutError | errors.TimeoutError):
            return Unavailable(f"no answer within {self._timeout:g} seconds")
        text = str(error).partition(" script: ")[0].rstrip(".")
        if isinstance(error, errors.NoPermissionError):
            return UsageError(f"{url}: Redis does not let this user do that: {text}")
        if isinstance(error, errors.AuthenticationError | errors.AuthorizationError):
            return UsageError(f"{url}: Redis refuses the user or the password: {text}")
        cause: BaseException | None = error
        while cause is not None:
            reason = getattr(cause, "reason", None) or ""
            if reason == "CERTIFICATE_VERIFY_FAILED" or "_ALERT_" in reason:
                return UsageError(f"{url}: no TLS connection: {getattr(cause, 'verify_message', None) or reason}")
            if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
                return Unavailable(os.strerror(cause.errno))
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, errors.MovedError | errors.AskError):
            return UsageError(f"{url}: it is a part of a Redis Cluster that has other keys; name the one that has this")
        passing = errors.ConnectionError | errors.ReadOnlyError | errors.OutOfMemoryError | errors.ClusterDownError
        if isinstance(error, OSError | passing) or text.startswith(PASSING):
            return Unavailable(text)
        if "WRONGTYPE" in text:
            return UsageError(f"{url}: a key of that name is there, and is no stream; name another key")
        if isinstance(error, errors.InvalidResponse):
            return UsageError(f"{url}: what answers there is no Redis")
        return UsageError(f"{url}: Redis answers: {text}")

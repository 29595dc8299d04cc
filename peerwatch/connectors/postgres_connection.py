"""Connections to PostgreSQL: names, passwords and TLS as psql has them, and what the server's errors mean."""

import getpass
import os
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from anyio.to_thread import run_sync

from peerwatch.connectors.registry import missing_library
from peerwatch.errors import PeerwatchError, SinkError, Unavailable, UsageError
from peerwatch.urls import ConnectorUrl

OPTIONS: Final = ("host", "sslmode", "sslrootcert", "sslcert", "sslkey")
"""The query parameters that say how to connect, named as in libpq."""
MODES: Final = ("disable", "prefer", "require", "verify-ca", "verify-full")
CLOSING_SECONDS: Final = 1.0
"""How long the server may take to say goodbye."""
PASSING: Final = ("08", "40", "53", "57", "55P03", "25006")
"""The beginnings of the codes of errors that may pass: a lost connection, a deadlock, too many clients, a shutdown, a
lock, a server that is being replaced by its standby. The code of a full disk begins with one of them and is none."""
DISK_FULL: Final = "53100"


class Access(NamedTuple):
    """Whom to connect as, where, and how: each way of `tls` is tried in turn, False is without TLS."""

    host: str | None
    port: int
    user: str
    database: str
    password: str | None
    tls: list[ssl.SSLContext | bool]
    note: str
    """What a user should know if the password is refused."""


class PostgresClient:
    """Connects to the server of a URL."""

    def __init__(self, url: ConnectorUrl, timeout: float) -> None:
        """No answer may take longer than `timeout` seconds.

        Raises:
            UsageError: the library is missing, or the URL has something that no such URL has.
        """
        try:
            import asyncpg  # noqa: PLC0415 (only whoever names a database needs it)
        except ImportError:
            raise missing_library(url, "asyncpg", "postgres") from None
        url.option("sslmode", MODES)
        self.url = url
        self._lost = (asyncpg.InterfaceError, asyncpg.InternalClientError)
        self.errors = (OSError, TimeoutError, asyncpg.PostgresError, *self._lost)
        """What the library raises."""
        self._timeout = timeout
        self._asyncpg = asyncpg

    async def connect(self) -> Any:
        """A connection.

        Raises:
            UsageError: the server does not let the user in, there is no such database, or the files for TLS are wrong.
            Unavailable: it does not answer.
        """
        access = await run_sync(self._access)

        async def password() -> str | None:  # given as a function, so that the library does not look for files itself
            return access.password

        for attempt, tls in enumerate(access.tls, 1):
            try:
                return await self._asyncpg.connect(
                    host=access.host,
                    port=access.port,
                    user=access.user,
                    database=access.database,
                    password=password,
                    ssl=tls,
                    timeout=self._timeout,
                    command_timeout=self._timeout,
                    server_settings={"application_name": "peerwatch"},
                )
            except self.errors as error:
                if attempt < len(access.tls) and _is_about_tls(error):
                    continue
                raise self._refusal(error, access) from None
        raise AssertionError

    async def close(self, connection: Any) -> None:
        """Close a connection. Never raises."""
        with suppress(*self.errors):
            await connection.close(timeout=min(CLOSING_SECONDS, self._timeout))

    def meaning(self, error: Exception, doing: str, kind: type[PeerwatchError] = SinkError) -> PeerwatchError:
        """What an error means that came up while `doing` something with the server, as in "write" or "read".

        One that may pass is `Unavailable`, another is of this kind.
        """
        code = getattr(error, "sqlstate", None)
        if code == DISK_FULL:
            return kind(f"cannot {doing} {self.url}: its disk is full ({_said(error)}); make room and run again")
        if code is None and isinstance(error, self._lost):
            return Unavailable("the connection is lost")  # the library says which of its states that came up in
        if code is None or code.startswith(PASSING):
            return Unavailable(_said(error))
        if code == "42501":
            user = self.url.user or "the user"
            return kind(f"cannot {doing} {self.url}: {_said(error)}; grant {user} that and run again")
        return kind(f"cannot {doing} {self.url}: {_said(error)}; fix that and run again")

    def _refusal(self, error: Exception, access: Access) -> PeerwatchError:
        """What it means that no connection came about."""
        code = getattr(error, "sqlstate", None) or ""
        if code == "28P01":
            places = "as ${NAME} in the URL, in PGPASSWORD, or in ~/.pgpass"
            return UsageError(f"{self.url}: {_said(error)}; give the password {places}{access.note}")
        if code.startswith("28"):
            return UsageError(f"{self.url}: {_said(error)}; ask the server's administrator to let that user in")
        if code == "3D000":
            return UsageError(f"{self.url}: {_said(error)}; create it, or name another")
        if code == "42501":
            return UsageError(f"{self.url}: {_said(error)}; grant {access.user} the right to connect")
        if code and not code.startswith(PASSING):
            return UsageError(f"cannot connect to {self.url}: {_said(error)}")
        if isinstance(error, ssl.SSLError):
            return UsageError(f"{self.url}: no TLS with that server: {_why_no_tls(error)}")
        if _is_about_tls(error):
            return UsageError(f"{self.url}: the server has no TLS; set it up there, or choose sslmode=prefer")
        return Unavailable(_said(error))

    def _access(self) -> Access:
        url = self.url
        host = url.option("host") or url.host or os.environ.get("PGHOST") or None
        port = url.port or _port(url)
        user = url.user or os.environ.get("PGUSER") or getpass.getuser()
        database = url.path or os.environ.get("PGDATABASE") or user
        is_local = host is None or host.startswith("/")
        password, note = url.secret() or os.environ.get("PGPASSWORD"), ""
        if password is None:
            listed = "localhost" if host is None or host.startswith("/") else host
            password, note = password_from_file((listed, str(port), database, user))
        return Access(host, port, user, database, password, [False] if is_local else self._tls(), note)

    def _tls(self) -> list[ssl.SSLContext | bool]:
        url = self.url
        mode = url.option("sslmode") or os.environ.get("PGSSLMODE") or "prefer"
        if mode not in MODES:
            raise UsageError(f"{url}: PGSSLMODE is {mode!r}; expected one of {', '.join(MODES)}")
        if mode == "disable":
            return [False]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        root = self._file("sslrootcert", "PGSSLROOTCERT", "root.crt")
        certificate = self._file("sslcert", "PGSSLCERT", "postgresql.crt")
        key = self._file("sslkey", "PGSSLKEY", "postgresql.key")
        try:
            if root is not None and mode != "prefer":  # as in libpq, `require` verifies where there is something to
                context.load_verify_locations(root)
                context.verify_mode = ssl.CERT_REQUIRED
                context.check_hostname = mode == "verify-full"
            elif mode.startswith("verify"):
                raise UsageError(
                    f"{url}: sslmode={mode} needs the certificate of the server's authority; name it with sslrootcert,"
                    " or put it at ~/.postgresql/root.crt"
                )
            if certificate is not None:
                context.load_cert_chain(certificate, key, password=lambda: "")  # otherwise OpenSSL asks at the terminal
        except OSError as error:
            raise UsageError(f"{url}: cannot use the files for TLS: {error.strerror or error}") from None
        return [context, False] if mode == "prefer" else [context]

    def _file(self, option: str, variable: str, default: str) -> str | None:
        """The path of a file for TLS, None if there is none. One that is named and is not there is an error.

        Raises:
            UsageError: it is not there.
        """
        named = self.url.option(option) or os.environ.get(variable)
        path = Path(named).expanduser() if named else Path.home() / ".postgresql" / default
        if named and not path.exists():
            raise UsageError(f"{self.url}: {option} is {named}, and there is no such file")
        return str(path) if path.exists() else None


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def password_from_file(wanted: Sequence[str]) -> tuple[str | None, str]:
    """The password for host, port, database and user from ~/.pgpass or PGPASSFILE, and why that was not read.

    The first line that matches counts; `*` matches anything, and a backslash takes the special sense from a character.
    """
    path = Path(os.environ.get("PGPASSFILE") or "~/.pgpass").expanduser()
    try:
        if path.stat().st_mode & 0o077:
            return None, f"; {path} is not read, because others may read it too: chmod 600 {path}"
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None, ""
    for line in lines:
        fields = [re.sub(r"\\(.)", r"\1", field) for field in re.findall(r"(?:^|:)((?:\\.|[^\\:])*)", line)]
        raw = re.findall(r"(?:^|:)((?:\\.|[^\\:])*)", line)
        if line.startswith("#") or len(fields) < 5:
            continue
        if all(raw[place] == "*" or fields[place] == value for place, value in enumerate(wanted)):
            return fields[4], ""
    return None, ""


def _port(url: ConnectorUrl) -> int:
    text = os.environ.get("PGPORT") or "5432"
    if not text.isdecimal():
        raise UsageError(f"{url}: PGPORT is {text!r}; expected a number like 5432")
    return int(text)


def _said(error: Exception) -> str:
    """What an error says, in one line and without details, which may hold data."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = getattr(error, "message", None) or str(error)
    return str(text).partition("\n")[0] or type(error).__name__


def _is_about_tls(error: Exception) -> bool:
    """Whether a connection did not come about because of TLS."""
    return isinstance(error, ssl.SSLError) or "rejected SSL upgrade" in str(error)


def _why_no_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); name its authority's with sslrootcert"
    return str(error.reason or error)

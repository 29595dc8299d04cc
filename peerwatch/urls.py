"""URLs of sources and sinks: what they name, and how they are shown without their secrets."""

import os
import re
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec

from peerwatch.errors import UsageError

_URL: Final = re.compile(r"[a-z][a-z0-9+]*://|sqlite:")
_SECRET: Final = re.compile(r"\$\{(?:(?P<env>[A-Za-z_][A-Za-z0-9_]*)|file:(?P<file>[^}]+))\}")
HIDDEN: Final = "***"


class ConnectorUrl(msgspec.Struct, frozen=True):
    """The parts of a URL, percent-decoded; `text` is all of it, as it was given, and must not be shown.

    In a password `${NAME}` stands for an environment variable, `${file:PATH}` for the content of a file.
    """

    text: str
    scheme: str
    host: str = ""
    port: int | None = None
    user: str | None = None
    password: str | None = None
    path: str = ""
    query: dict[str, str] = {}

    @property
    def has_literal_password(self) -> bool:
        """Whether the password itself is in the URL."""
        return self.password is not None and _SECRET.fullmatch(self.password) is None

    def secret(self) -> str | None:
        """The password, from where it is kept.

        Raises:
            UsageError: the environment variable or the file is missing.
        """
        return _SECRET.sub(self._read_secret, self.password) if self.password is not None else None

    def _read_secret(self, found: re.Match[str]) -> str:
        name, file = found["env"], found["file"]
        if name is not None:
            if name not in os.environ:
                raise UsageError(f"{self}: the environment variable {name} is not set; set it to the password")
            return os.environ[name]
        try:
            return Path(file).expanduser().read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UsageError(f"{self}: cannot read the password from {file}: {why}") from None

    def option(self, name: str, choices: tuple[str, ...] = ()) -> str | None:
        """The value of a query parameter, None if it is not there.

        Raises:
            UsageError: it is none of the choices.
        """
        value = self.query.get(name)
        if value is not None and choices and value not in choices:
            raise UsageError(f"{self}: {name} is {value!r}; expected one of {', '.join(choices)}")
        return value

    def check_options(self, *known: str) -> None:
        """See that there are no other query parameters than these.

        Raises:
            UsageError: there is one.
        """
        for name in self.query:
            if name not in known:
                options = f"known are {', '.join(known)}" if known else "there are none"
                raise UsageError(f"{self}: there is no option {name!r}; {options}")

    def __str__(self) -> str:
        return redacted(self.text)


def is_url(text: str) -> bool:
    """Whether a text that may name a file names a source or sink by URL."""
    return _URL.match(text) is not None


def parsed(text: str) -> ConnectorUrl:
    """The parts of a URL.

    Raises:
        UsageError: it is malformed.
    """
    from urllib.parse import parse_qsl, unquote, urlsplit  # noqa: PLC0415 (most runs have no URL)

    scheme, _, rest = text.partition(":")
    if not rest.startswith("//"):
        path, _, query = rest.partition("?")
        return ConnectorUrl(text, scheme, path=path, query=dict(parse_qsl(query, keep_blank_values=True)))
    # a `${file:/path}` would end the host
    held = [found[0] for found in _SECRET.finditer(text)]
    numbers = count()
    safe = _SECRET.sub(lambda _: f"secret-{next(numbers)}-", text)
    try:
        parts = urlsplit(safe)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{redacted(text)} is not a URL: {error}") from None
    password = unquote(parts.password) if parts.password is not None else None
    if password is not None:
        password = re.sub(r"secret-(\d+)-", lambda found: held[int(found[1])], password)
    return ConnectorUrl(
        text,
        scheme,
        parts.hostname or "",
        port,
        unquote(parts.username) if parts.username else None,
        password,
        unquote(parts.path).removeprefix("/"),
        dict(parse_qsl(parts.query, keep_blank_values=True)),
    )


def without_secrets(value: Any) -> Any:
    """A value as JSON or YAML has it, without the secrets of the URLs in it."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, list | tuple):
        return [without_secrets(each) for each in value]
    if isinstance(value, dict):
        return {key: without_secrets(each) for key, each in value.items()}
    return value


def redacted(text: str) -> str:
    """A URL without its password; another text as it is."""
    if not is_url(text) or "://" not in text:
        return text
    scheme, _, rest = text.partition("://")
    place, slash, path = _split_authority(rest)
    account, at, host = place.rpartition("@")
    user, colon, password = account.partition(":")
    if not at or not colon or _SECRET.fullmatch(password):
        return text
    return f"{scheme}://{user}:{HIDDEN}@{host}{slash}{path}"


def _split_authority(rest: str) -> tuple[str, str, str]:
    """Authority, separator and path: a secret may hold slashes, so the last @ before the path counts."""
    masked = _SECRET.sub(lambda found: "x" * len(found[0]), rest)
    end = next((place for place, char in enumerate(masked) if char in "/?#"), len(rest))
    return rest[:end], rest[end : end + 1], rest[end + 1 :]

"""URLs of sources and sinks: what they name, and how they are shown without their secrets."""

import os
import re
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec

from peerwatch.errors import UsageError

# Patterns are compiled when they are first used: most runs have no URL, and compiling takes a hundredth of a start.
_URL: Final = r"[A-Za-z][A-Za-z0-9+.-]*://|sqlite:"
_MISSPELT: Final = r"(rediss?|kafka|nats|tls|postgres(?:ql)?|(?:influx\+)?https?)(?::/?|//)"
"""What begins like a URL of one of our own connectors, and lacks the colon or a slash. It may hold a password."""
_REFERENCE: Final = r"\$\{(?:(?P<env>[A-Za-z_][A-Za-z0-9_]*)|file:(?P<file>[^}]+))\}"
_HELD: Final = "\ue000([0-9]+)\ue001"
_CONFIDENTIAL: Final = r".*(token|secret|passw|passphrase|credential|signature).*|sig|code|((api|access)[-_]?)?key"
_SHOWN_OPTIONS: Final = ("batch", "insecure", "tls_ca", "tls_cert", "tls_key")
"""The query parameters of a webhook that are peerwatch's own and no secrets."""
HIDDEN: Final = "***"


class ConnectorUrl(msgspec.Struct, frozen=True):
    """The parts of a URL, percent-decoded; `text` is all of it, as it was given, and must not be shown.

    Several servers, `host:port,host:port`, are all in `host`, with their ports.
    In secrets `${NAME}` stands for an environment variable, `${file:PATH}` for the content of a file; `references` are
    those that the text has. Written with percent signs, `%24%7BNAME%7D`, they are the secret itself.
    """

    text: str
    scheme: str
    host: str = ""
    port: int | None = None
    user: str | None = None
    password: str | None = None
    path: str = ""
    query: dict[str, str] = {}
    references: frozenset[str] = frozenset()

    @property
    def target(self) -> str:
        """What follows the host, path and query, as it was given."""
        _, path, query = _split(self.text.partition("://")[2])
        return path + query

    @property
    def has_literal_password(self) -> bool:
        """Whether the password itself, or another secret, is in the URL."""
        options = [value for name, value in self.query.items() if re.fullmatch(_CONFIDENTIAL, name.lower())]
        return any(value not in self.references for value in (self.password, *options) if value is not None)

    def secret(self, option: str | None = None) -> str | None:
        """The password, or the secret that a query parameter holds, from where it is kept; None if there is none.

        Raises:
            UsageError: the environment variable or the file is missing.
        """
        value = self.password if option is None else self.query.get(option)
        return re.sub(_REFERENCE, self._read_secret, value) if value is not None else None

    def secrets_in(self, text: str) -> dict[str, str]:
        """What each `${...}` in a part of the URL stands for.

        Raises:
            UsageError: the environment variable or the file is missing.
        """
        found = re.finditer(_REFERENCE, text)
        return {reference[0]: self._read_secret(reference) for reference in found if reference[0] in self.references}

    def _read_secret(self, found: re.Match[str]) -> str:
        name, file = found["env"], found["file"]
        if found[0] not in self.references:
            return found[0]
        if name is not None:
            if name not in os.environ:
                raise UsageError(f"{self}: the environment variable {name} is not set; set it to the secret")
            return os.environ[name]
        try:
            return Path(file).expanduser().read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UsageError(f"{self}: cannot read the secret from {file}: {why}") from None

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
    """Whether a text that may name a file names a source or sink by URL, or is meant to."""
    return ":" in text and re.match(f"{_URL}|{_MISSPELT}", text) is not None


def parsed(text: str) -> ConnectorUrl:
    """The parts of a URL.

    Raises:
        UsageError: it is malformed.
    """
    from urllib.parse import parse_qsl, unquote, urlsplit  # noqa: PLC0415 (most runs have no URL)

    scheme, _, rest = text.partition(":")
    held = [found[0] for found in re.finditer(_REFERENCE, text)]
    if misspelt := _misspelt(text):
        raise UsageError(f"{redacted(text)} is not a URL: write {misspelt[1]}://, or ./ before the name of a file")
    if not rest.startswith("//"):
        path, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        return ConnectorUrl(text, scheme, path=path, query=options, references=frozenset(held))
    # a `${file:/path}` would end the host
    numbers = count()
    safe = re.sub(_REFERENCE, lambda _: f"\ue000{next(numbers)}\ue001", text)
    if "#" in safe:
        raise UsageError(f"{redacted(text)}: what follows the # belongs to no server; write %23 where a # is meant")
    try:
        parts = urlsplit(safe)
        servers = parts.netloc.rpartition("@")[2]
        several = "," in servers
        port = None if several else parts.port
    except ValueError:  # which quotes what may be a part of the password
        raise UsageError(
            f"{redacted(text)} is not a URL: expected HOST or HOST:PORT, and in a user or password %2F for a /, %3F for"
            " a ? and %40 for an @"
        ) from None

    def restored(part: str) -> str:
        return re.sub(_HELD, lambda found: held[int(found[1])], part) if held else part

    return ConnectorUrl(
        text,
        scheme,
        servers if several else parts.hostname or "",
        port,
        restored(unquote(parts.username)) if parts.username else None,
        restored(unquote(parts.password)) if parts.password is not None else None,
        restored(unquote(parts.path).removeprefix("/")),
        {name: restored(value) for name, value in parse_qsl(parts.query, keep_blank_values=True)},
        frozenset(held),
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
    """A URL without its password and the secrets among its query parameters; another text as it is."""
    if misspelt := _misspelt(text):
        _, at, rest = text[misspelt.end() :].rpartition("@")
        place, path, query = _split(rest)
        return f"{misspelt[0]}{HIDDEN * bool(at)}{at}{place}{path}{_redacted_query(misspelt[1], query)}"
    if not is_url(text) or "://" not in text:
        return text
    scheme, _, rest = text.partition("://")
    place, path, query = _split(rest)
    account, at, host = place.rpartition("@")
    user, colon, password = account.partition(":")
    if at and colon and not re.fullmatch(_REFERENCE, password):
        place = f"{user}:{HIDDEN}@{host}"
    return f"{scheme}://{place}{path}{_redacted_query(scheme, query)}"


def _misspelt(text: str) -> re.Match[str] | None:
    return re.match(_MISSPELT, text) if ":" in text and not re.match(_URL, text) else None


def _redacted_query(scheme: str, query: str) -> str:
    """A query, with its question mark, whose secrets are hidden; all that a webhook's receiver is told is one."""
    from urllib.parse import unquote  # noqa: PLC0415 (likewise)

    options = query.removeprefix("?").split("&")
    for number, option in enumerate(options):
        name, sign, value = option.partition("=")
        plain = unquote(name).lower()
        hides = re.fullmatch(_CONFIDENTIAL, plain) is not None and value != ""
        if scheme in {"http", "https"}:
            hides = option != "" and plain not in _SHOWN_OPTIONS
        if hides and not re.fullmatch(_REFERENCE, value):
            options[number] = f"{name}={HIDDEN}" if sign else HIDDEN
    return query[:1] + "&".join(options)


def _split(rest: str) -> tuple[str, str, str]:
    """Authority, path and query of what follows the scheme.

    A secret may hold slashes, as a `${file:...}` or because somebody forgot to write them as %2F: where no port can
    follow the first colon, the last @ of all ends the account.
    """
    masked = re.sub(_REFERENCE, lambda found: "x" * len(found[0]), rest)
    end = next((place for place, char in enumerate(masked) if char in "/?#"), len(rest))
    _, colon, port = masked[:end].rpartition(":")
    no_port = colon and not re.fullmatch(r"[0-9]*(,.*)?|.*\]", port)
    if "@" in masked[end:] and "@" not in masked[:end] and (no_port or masked[end] == "#"):
        end = masked.rindex("@") + 1
        end += next((place for place, char in enumerate(masked[end:]) if char in "/?#"), len(rest) - end)
    begin = masked.find("?", end)
    begin = begin if begin >= 0 else len(rest)
    return rest[:end], rest[end:begin], rest[begin:]

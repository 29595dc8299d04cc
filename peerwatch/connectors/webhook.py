"""Records sent to somebody's HTTP server, each with a key by which a repeat is known, and a signature.

Headers are those of Standard Webhooks 1.0 (https://www.standardwebhooks.com), and `Idempotency-Key` with the same key.
"""

import hmac
import re
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote, unquote

import orjson

from peerwatch.connectors.http_client import TLS_OPTIONS, Answer, HttpStore, authority, pieces
from peerwatch.connectors.records import Kind, Record, payload
from peerwatch.connectors.store import StoreContext
from peerwatch.errors import SinkError, Unavailable, UsageError
from peerwatch.urls import ConnectorUrl

OPTIONS: Final = ("batch", "insecure", "secret", *TLS_OPTIONS)
"""Query parameters that are not passed on to the receiver."""
PASSING: Final = frozenset({408, 409, 425, 429})
"""Statuses after which the same request may succeed, besides those from 500 on; 409 says that it is at work on it."""
PREFIX: Final = "whsec_"
MOST_IN_BATCH: Final = 1000


class WebhookStore(HttpStore):
    """`https://host/hook`: one POST a record, in order, each after the answer to the one before."""

    def __init__(self, url: ConnectorUrl, context: StoreContext) -> None:
        """Name the receiver; nothing is connected.

        Raises:
            UsageError: the URL, an option or the secret is malformed, or records would travel unencrypted.
        """
        self._batch = _batch(url)
        if url.scheme == "http" and url.option("insecure", ("true", "false")) != "true" and not _is_loopback(url.host):
            raise UsageError(
                f"{url}: records would travel unencrypted; use https://, or add the option insecure=true if the network"
                " is one that you trust"
            )
        secret = url.secret("secret")
        self._key = _key(url, secret) if secret is not None else None
        address, secrets = _address(url)
        account = (url.user or "", url.secret() or "") if url.user or url.password is not None else None
        super().__init__(url, context, address, account=account, secrets=secrets)
        self._reached = False
        self._accepted: dict[Kind, int] = {}
        """The number of the last record of each kind that this process has sent with success."""

    async def connect(self) -> None:
        """See that the server answers, whatever it is, to a HEAD request.

        Raises:
            UsageError: its certificate is not to be trusted.
        """
        await self._client.open()
        if not self._reached:
            await self._client.send("HEAD", "")
            self._reached = True

    async def append(self, records: Sequence[Record]) -> None:
        """Send records, and wait until each is accepted.

        Raises:
            SinkError: one is refused.
        """
        kind, progressed = records[0].kind, False
        new = [record for record in records if record.seq > self._accepted.get(kind, 0)]
        bodies = [orjson.dumps(payload(record, self._run)) for record in new]
        for begin, end in pieces(bodies, self._batch or 1):
            first, last = new[begin].seq, new[end - 1].seq
            body = bodies[begin] if self._batch is None else b"[" + b",".join(bodies[begin:end]) + b"]"
            key = f"{self._run}:{kind}:{first}" + (f"-{last}" if self._batch is not None else "")
            try:
                answer = await self._client.send("POST", "", body, self._headers(key, body))
            except Unavailable as error:
                raise Unavailable(str(error), progressed=progressed) from None
            self._check(answer, key, progressed=progressed)
            self._accepted[kind] = last
            progressed = True

    def _headers(self, key: str, body: bytes) -> Mapping[str, str]:
        stamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "webhook-id": key,
            "webhook-timestamp": str(stamp),
        }
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, key, stamp, body)
        return headers

    def _check(self, answer: Answer, key: str, *, progressed: bool) -> None:
        if 200 <= answer.status < 300:
            return
        if answer.status in PASSING or answer.status >= 500:
            raise Unavailable(str(answer), progressed=progressed, retry_after=answer.retry_after)
        _, kind, numbers = key.rsplit(":", 2)
        what = "redirects" if 300 <= answer.status < 400 else "refuses"
        way = "name the address that it redirects to" if what == "redirects" else "fix that and run again"
        raise SinkError(f"{self.url} {what} {kind} record {numbers}: {answer}; {way}")


def signature(key: bytes, name: str, stamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: the HMAC-SHA256 of name, seconds since 1970 and body, joined by dots."""
    signed = b"%b.%d.%b" % (name.encode(), stamp, body)
    return f"v1,{b64encode(hmac.digest(key, signed, 'sha256')).decode()}"


def _key(url: ConnectorUrl, secret: str) -> bytes:
    """The bytes that a secret of Standard Webhooks stands for."""
    try:
        key = b64decode(secret.removeprefix(PREFIX).replace(" ", "+"), validate=True)  # a + in a query means a space
    except (Base64Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
        raise UsageError(
            f'{url}: the secret must be "{PREFIX}" and 24 to 64 random bytes in base64, as Standard Webhooks has it;'
            f' make one with: echo "{PREFIX}$(openssl rand -base64 32)"'
        )
    return key


def _batch(url: ConnectorUrl) -> int | None:
    """How many records one request may hold; None if it holds one, which stands in no array."""
    text = url.option("batch")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_IN_BATCH:
        raise UsageError(f"{url}: batch is {text!r}; expected a number from 1 to {MOST_IN_BATCH}")
    return int(text)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _address(url: ConnectorUrl) -> tuple[str, list[str]]:
    """The address that requests go to, with what each `${...}` in it stands for, and what no message may show of it."""
    path, _, query = url.target.partition("?")
    passed_on = [each for each in query.split("&") if unquote(each.partition("=")[0]) not in OPTIONS]
    target = path + ("?" + "&".join(passed_on) if passed_on != [""] and passed_on else "")
    secrets = [*(unquote(each.partition("=")[2]) for each in passed_on), *passed_on]
    for name, value in url.secrets_in(target).items():
        target = target.replace(name, quote(value, safe="/"))
        secrets += [value, quote(value, safe="/")]
    return f"{url.scheme}://{authority(url)}{target}", secrets

"""A webhook as a way to administrators: JSON by POST, signed, over TLS that is verified."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from treq.client import HTTPClient
from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseFailed,
    ResponseNeverReceived,
)

from compass.assembly.outside import secret_now, trust_of
from compass.server.alerts import Undelivered
from compass.server.telling import Message
from compass.server.wording import json_of

ID_HEADER = "Compass-Message"
TIME_HEADER = "Compass-Time"
SIGNATURE_HEADER = "Compass-Signature"
CONNECT_SECONDS = 10.0
"""To reach the receiver: two lost packets and a TLS handshake."""
_FINAL = frozenset({400, 413, 415, 422})
"""What a receiver answers that will never take this very message. Everything else may be put right meanwhile."""


def signature_of(secret: bytes, id: str, time: str, body: bytes) -> str:
    """What stands in the header: HMAC-SHA256 of `id.time.body` in hexadecimal digits, with its version in front."""
    signed = b".".join((id.encode(), time.encode(), body))
    return "v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()


def webhook(
    reactor: Any, url: str, secret_file: str, authority: str, now: Callable[[], float], server: str
) -> Callable[[Message], Deferred[None]]:
    """One attempt of a way. In errors the receiver is called by its host: its path may be a secret."""
    place = urlsplit(url).netloc.rpartition("@")[2]

    async def deliver(message: Message) -> None:
        body = msgspec.json.encode(json_of(message, server))
        time = str(int(now()))
        headers: dict[bytes | str, bytes | str] = {
            "Content-Type": "application/json",
            "User-Agent": "compass",
            ID_HEADER: message.id,
            TIME_HEADER: time,
        }
        if secret_file:
            headers[SIGNATURE_HEADER] = signature_of(secret_now(secret_file), message.id, time, body)
        # A new agent each time: no connection is kept for months, and a new authority's file counts at once.
        policy = BrowserLikePolicyForHTTPS(trust_of(authority))
        agent: Any = Agent(reactor, policy, connectTimeout=CONNECT_SECONDS, pool=_Pool(reactor, persistent=False))
        client = HTTPClient(agent)
        try:
            response = await client.post(url, data=body, headers=headers, allow_redirects=False, unbuffered=True)
        except (ConnectError, DNSLookupError) as error:
            raise Undelivered(f"{place} cannot be reached: {error}") from None
        except (ResponseNeverReceived, ResponseFailed) as failed:
            why = "; ".join(_told(reason.value) for reason in failed.reasons)
            raise Undelivered(f"{place} gave no answer: {why}", perhaps=True) from None
        response.deliverBody(_Ignore())
        if not 200 <= response.code < 300:
            moved = "; follow it in `url`" if 300 <= response.code < 400 else ""
            text = f"{place} answers {response.code}{moved}"
            raise Undelivered(text, final=response.code in _FINAL, perhaps=response.code >= 500)

    return lambda message: Deferred.fromCoroutine(deliver(message))


class _Pool(HTTPConnectionPool):
    """Says nothing in the log of each connection."""

    class _factory(HTTPConnectionPool._factory):  # noqa: N801
        noisy = False


def _told(error: BaseException | None) -> str:
    """OpenSSL's errors are lists of triples."""
    found = error.args[0] if error is not None and error.args else ""
    if isinstance(found, list):
        return "TLS: " + ", ".join(str(one[-1]) for one in found)
    return str(error) or type(error).__name__


class _Ignore(protocol.Protocol):
    """What else it answers, which could be without an end."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()

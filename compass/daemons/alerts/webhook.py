"""Webhook channel: JSON by POST, signed, over verified TLS."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from OpenSSL import SSL
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from compass.daemons.alerts.outbound_tls import secret_now, trust_of
from compass.server.alerts.notifier import DeliveryFailed
from compass.server.alerts.outbox import Message
from compass.server.alerts.render import render_json

ID_HEADER = "Compass-Message"
TIME_HEADER = "Compass-Time"
SIGNATURE_HEADER = "Compass-Signature"
CONNECT_SECONDS = 10.0
"""Time limit for connecting to the receiver: two lost packets and a TLS handshake."""
_FINAL = frozenset({400, 413, 415, 422})
"""Statuses by which a receiver rejects the message for good. Every other failure may be corrected meanwhile."""


def signature_of(secret: bytes, id: str, time: str, body: bytes) -> str:
    """Return the value of the signature header: its version, then HMAC-SHA256 of `id.time.body` in hexadecimal."""
    signed = b".".join((id.encode(), time.encode(), body))
    return "v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()


def webhook_channel(
    reactor: Any, url: str, secret_file: str, authority: str, now: Callable[[], float], server: str
) -> Callable[[Message], Deferred[None]]:
    """Return the delivery of one message. Errors name the receiver by its host only: its path may be a secret."""
    receiver = urlsplit(url).netloc.rpartition("@")[2]

    async def deliver(message: Message) -> None:
        body = msgspec.json.encode(render_json(message, server))
        time = str(int(now()))
        headers = {"Content-Type": "application/json", "User-Agent": "compass"}
        headers |= {ID_HEADER: message.id, TIME_HEADER: time}
        if secret_file:
            headers[SIGNATURE_HEADER] = signature_of(secret_now(secret_file), message.id, time, body)
        # A new agent for each message: no connection is kept for months, and a replaced authority is effective at once.
        pool = _Pool(reactor, persistent=False)
        agent: Any = Agent(reactor, BrowserLikePolicyForHTTPS(trust_of(authority)), CONNECT_SECONDS, pool=pool)
        fields = Headers({name: [value] for name, value in headers.items()})
        try:
            response = await agent.request(b"POST", url.encode("ascii"), fields, _Body(body))
        except (ConnectError, DNSLookupError) as error:
            raise DeliveryFailed(f"{receiver} cannot be reached: {error}") from None
        except (ResponseNeverReceived, ResponseFailed) as failed:
            if any(reason.check(CancelledError) for reason in failed.reasons):
                raise CancelledError from None
            why = "; ".join(_reason(reason.value) for reason in failed.reasons)
            raise DeliveryFailed(f"{receiver} did not answer: {why}", perhaps=True) from None
        response.deliverBody(_Ignore())
        if not 200 <= response.code < 300:
            moved = "; change `url` accordingly" if 300 <= response.code < 400 else ""
            text = f"{receiver} answers {response.code}{moved}"
            raise DeliveryFailed(text, final=response.code in _FINAL, perhaps=response.code >= 500)

    return lambda message: Deferred.fromCoroutine(deliver(message))


@implementer(IBodyProducer)
class _Body:
    """Short body, written at once. Twisted's own producers, and so treq's, run on the global reactor only."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Write the whole body."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: the body is already written."""

    def resumeProducing(self) -> None:
        """Do nothing: the body is already written."""

    def stopProducing(self) -> None:
        """Do nothing: the body is already written."""


_Factory: Any = cast(Any, HTTPConnectionPool)._factory


class _Pool(HTTPConnectionPool):
    """Connection pool that does not log each connection."""

    class _factory(_Factory):  # type: ignore[misc]  # noqa: N801
        noisy = False


def _reason(error: BaseException | None) -> str:
    """Return the text of an error; OpenSSL's errors are lists of triples."""
    if isinstance(error, SSL.Error) and error.args:
        return "TLS: " + ", ".join(str(one[-1]) for one in error.args[0])
    return str(error) or type(error).__name__


class _Ignore(protocol.Protocol):
    """Body of an answer, which is not read: it could be endless."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()

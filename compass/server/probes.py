"""Probes: whether a listener really serves, asked the way its category says."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from compass.model.names import show_endpoint
from compass.model.rows import Policy

HTTP_FAILING = 500
"""Statuses from here on say that the listener cannot serve (RFC 9110 section 15.6)."""


class Prober:
    """Asks listeners over the network."""

    def __init__(self, reactor: Any, software: str) -> None:
        self._reactor = reactor
        self._agent = Agent(reactor)
        self._headers = Headers({"User-Agent": [software], "Connection": ["close"]})

    def probe(self, policy: Policy, address: str, port: int) -> Deferred[str]:
        """An empty string when it serves, or why not; never later than the policy's timeout."""
        kind, _, path = policy.probe.partition(":")
        asked = self._http(address, port, path) if kind == "http" else self._tcp(address, port)
        asked.addTimeout(policy.probe_timeout_seconds, self._reactor)
        return asked.addErrback(_why, policy.probe_timeout_seconds)

    def _tcp(self, address: str, port: int) -> Deferred[str]:
        endpoint = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        factory: Any = Factory.forProtocol(Protocol)
        connected = endpoint(self._reactor, address, port).connect(factory)

        def close(protocol: Any) -> str:
            protocol.transport.loseConnection()
            return ""

        return connected.addCallback(close)

    def _http(self, address: str, port: int, path: str) -> Deferred[str]:
        url = f"http://{show_endpoint(address, port)}{path}".encode("ascii")
        return Deferred.fromCoroutine(self._get(url))

    async def _get(self, url: bytes) -> str:
        response: Any = await self._agent.request(b"GET", url, self._headers)
        if response.code >= HTTP_FAILING:
            return f"HTTP status {response.code}"
        response.deliverBody(_Discard())
        return ""


class _Discard(Protocol):
    """The status is all that is asked; the body is not worth its memory."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()


def _why(failure: Any, timeout_seconds: float) -> str:
    if failure.check(TimeoutError, error.TimeoutError, CancelledError, error.ConnectingCancelledError):
        return f"no answer within {timeout_seconds:g} s"
    if failure.check(error.ConnectionRefusedError):
        return "connection refused"
    return str(failure.getErrorMessage()) or str(failure.type.__name__)

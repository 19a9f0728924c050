"""Probes: whether a listener really serves, asked the way its category says.

A listener is asked for one thing, a connection or the status line of an HTTP answer, and left at once: whatever else
it would send is neither awaited nor kept (P10).
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from compass.model.names import format_endpoint
from compass.model.rows import Policy

HTTP_FAILING = 500
"""Statuses from here on say that the listener cannot serve (RFC 9110 section 15.6)."""
STATUS_LINE_OCTETS_MAX = 1024
"""Version, status and a reason phrase; one that goes on beyond this is no HTTP."""
NOT_HTTP = "the answer is not HTTP"

_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})(?: .*)?")


class Prober:
    """Asks listeners over the network."""

    def __init__(self, reactor: Any, software: str) -> None:
        self._reactor = reactor
        self._software = software

    def probe(self, policy: Policy, address: str, port: int) -> Deferred[str]:
        """An empty string when it serves, or why not; never later than the policy's timeout."""
        kind, _, path = policy.probe.partition(":")
        asked = Deferred.fromCoroutine(self._ask(address, port, path if kind == "http" else ""))
        asked.addTimeout(policy.probe_timeout_seconds, self._reactor)
        return asked.addErrback(_why, policy.probe_timeout_seconds)

    async def _ask(self, address: str, port: int, path: str) -> str:
        endpoint = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        factory: Any = Factory.forProtocol(_Asking)
        factory.noisy = False
        asking: Any = await endpoint(self._reactor, address, port).connect(factory)
        try:
            return "" if not path else await asking.get(format_endpoint(address, port), path, self._software)
        finally:
            asking.transport.abortConnection()


class _Asking(Protocol):
    """A connection to the listener, and what it says in the first line."""

    def __init__(self) -> None:
        self._heard = b""
        self._answered: Deferred[str] = Deferred()

    def get(self, host: str, path: str, software: str) -> Deferred[str]:
        """Ask for `path`; an empty string, or what is wrong with the answer."""
        lines = (f"GET {path} HTTP/1.1", f"Host: {host}", f"User-Agent: {software}", "Accept: */*", "Connection: close")
        transport: Any = self.transport
        transport.write("".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii"))
        return self._answered

    def dataReceived(self, data: bytes) -> None:
        self._heard += data[:STATUS_LINE_OCTETS_MAX]
        line, ended, _ = self._heard[:STATUS_LINE_OCTETS_MAX].partition(b"\n")
        if ended:
            self._answer(_judged(line.removesuffix(b"\r")))
        elif len(self._heard) >= STATUS_LINE_OCTETS_MAX:
            self._answer(NOT_HTTP)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._answer("the connection was closed without an answer")

    def _answer(self, problem: str) -> None:
        if not self._answered.called:
            self._answered.callback(problem)


def _judged(line: bytes) -> str:
    status = _STATUS_LINE.fullmatch(line)
    if status is None:
        return NOT_HTTP
    return f"HTTP status {int(status[1])}" if int(status[1]) >= HTTP_FAILING else ""


def _why(failure: Failure, timeout_seconds: float) -> str:
    if failure.check(TimeoutError, error.TimeoutError, error.ConnectingCancelledError):
        return f"no answer within {timeout_seconds:g} s"
    if failure.check(error.ConnectionRefusedError):
        return "connection refused"
    return str(failure.getErrorMessage()) or str(failure.type)

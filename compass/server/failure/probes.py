"""Probes: whether a listener really serves, found out as its category says.

The prober asks a listener for one thing, a connection or the status line of an HTTP answer, and disconnects: what else
the listener would send is neither awaited nor kept (P10).
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from compass.model.names import format_endpoint
from compass.model.rows import Policy
from compass.model.rules.networks import NoProbe, ProbeDenied, ProbeNetworks

HTTP_FAILING = 500
"""Lowest status that says that the listener cannot serve (RFC 9110 section 15.6)."""
STATUS_LINE_OCTETS_MAX = 1024
"""Longest status line: version, status and a reason phrase. A longer line is not HTTP."""
NOT_HTTP = "the answer is not HTTP"

_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})(?: .*)?")


class Prober:
    """Probes listeners over the network."""

    def __init__(
        self, reactor: Any, software: str, networks: ProbeNetworks, failing_status: int = HTTP_FAILING
    ) -> None:
        """`failing_status`: the lowest status of HTTP that is a failure."""
        self._reactor = reactor
        self._software = software
        self._networks = networks
        self._failing_status = failing_status

    def probe(self, policy: Policy, address: str, port: int) -> Deferred[str]:
        """Return an empty string if the listener serves, or why not, within the policy's timeout.

        ProbeDenied: the address is in no network that this daemon probes, and no packet was sent.
        """
        if policy.probe == "none":
            return succeed(NoProbe("not probed: the policy of its category has no probe"))
        denied = self._networks.refusal(address)
        if denied:
            return succeed(ProbeDenied(f"not probed: {denied}"))
        kind, _, path = policy.probe.partition(":")
        asked = Deferred.fromCoroutine(self._ask(address, port, path if kind == "http" else ""))
        asked.addTimeout(policy.probe_timeout_seconds, self._reactor)
        return asked.addErrback(_explain, policy.probe_timeout_seconds)

    async def _ask(self, address: str, port: int, path: str) -> str:
        endpoint = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        factory: Any = Factory.forProtocol(lambda: _Asking(self._failing_status))
        factory.noisy = False
        asking: Any = await endpoint(self._reactor, address, port).connect(factory)
        try:
            return "" if not path else await asking.get(format_endpoint(address, port), path, self._software)
        finally:
            asking.transport.abortConnection()


class _Asking(Protocol):
    """A connection to a listener, up to the first line of its answer."""

    def __init__(self, failing_status: int) -> None:
        self._failing_status = failing_status
        self._received = b""
        self._answered: Deferred[str] = Deferred()

    def get(self, host: str, path: str, software: str) -> Deferred[str]:
        """Ask for `path`. Returns an empty string, or what is wrong with the answer."""
        lines = (f"GET {path} HTTP/1.1", f"Host: {host}", f"User-Agent: {software}", "Accept: */*", "Connection: close")
        transport: Any = self.transport
        transport.write("".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii"))
        return self._answered

    def dataReceived(self, data: bytes) -> None:
        self._received += data[:STATUS_LINE_OCTETS_MAX]
        line, ended, _ = self._received[:STATUS_LINE_OCTETS_MAX].partition(b"\n")
        if ended:
            self._answer(_problem_of(line.removesuffix(b"\r"), self._failing_status))
        elif len(self._received) >= STATUS_LINE_OCTETS_MAX:
            self._answer(NOT_HTTP)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._answer("the connection was closed without an answer")

    def _answer(self, problem: str) -> None:
        if not self._answered.called:
            self._answered.callback(problem)


def _problem_of(line: bytes, failing_status: int) -> str:
    status = _STATUS_LINE.fullmatch(line)
    if status is None:
        return NOT_HTTP
    return f"HTTP status {int(status[1])}" if int(status[1]) >= failing_status else ""


def _explain(failure: Failure, timeout_seconds: float) -> str:
    if failure.check(TimeoutError, error.TimeoutError, error.ConnectingCancelledError):
        return f"no answer within {timeout_seconds:g} s"
    if failure.check(error.ConnectionRefusedError):
        return "connection refused"
    return str(failure.getErrorMessage()) or str(failure.type)

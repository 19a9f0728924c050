"""Indirect probes: this host probes a listener when a server asks, so that no server decides from its own probe alone.

The host probes only what it depends on, at the address of its own replica and as the category's policy says there: an
inquiry names a listener, never an address of the server's choice or a path. The number of probes at once is bounded;
further inquiries get no answer, and the server decides without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from compass.agent.replica.replica import Replica
from compass.model.limits import DETAIL_MAX
from compass.model.names import category_of
from compass.model.replies import Reply
from compass.model.requests import Findings, Request
from compass.model.rows import Policy
from compass.model.rules.networks import ProbeDenied
from compass.model.text import escape_line
from compass.wire.messages import Inquiry

INQUIRIES_MAX = 8
"""Probes under way at once: probing must not keep this host from its own work."""

Probe = Callable[[Policy, str, int], Deferred[str]]
"""Function that probes an address and port; fires with an empty string, or with why it does not serve."""


class Server(Protocol):
    """The server that this host has a session with; `upstream.Upstream`."""

    def ask(self, request: Request) -> Deferred[Reply]:
        """Send a request."""


class ProbeResponder:
    """Prober on behalf of servers: answers each inquiry with findings."""

    def __init__(self, replica: Replica, probe: Probe, server: Server) -> None:
        self._replica = replica
        self._probe = probe
        self._server = server
        self._under_way = 0

    def inquired(self, inquiry: Inquiry) -> None:
        """Probe the listener once and send the result; an unknown listener gets no answer."""
        catalogue = self._replica.catalogue
        row = catalogue.listener(inquiry.service, inquiry.address, inquiry.port)
        category = catalogue.categories.get(category_of(inquiry.service))
        if row is None or category is None or self._under_way >= INQUIRIES_MAX:
            return
        self._under_way += 1

        def found(problem: str) -> None:
            self._under_way -= 1
            if isinstance(problem, ProbeDenied):
                # No evidence: the server decides without this host.
                return
            self._server.ask(Findings(inquiry.id, alive=not problem, detail=escape_line(problem, DETAIL_MAX)))

        asked = self._probe(category.policy, row.address, row.port)
        asked.addErrback(lambda failure: f"the probe failed: {failure.getErrorMessage()}").addCallback(found)

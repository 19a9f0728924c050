"""The host as a witness: it probes a listener when the server asks, so that no server condemns on its own word.

It probes only what it depends on, as its own replica has it, in the way that the category says there: an inquiry
names a listener, never an address of the server's choice or a path. A few at once; what comes beyond is left
unanswered, and the server judges without.
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
from compass.model.text import escape_line
from compass.wire.messages import Inquiry

INQUIRIES_MAX = 8
"""Probes under way at once: this host has other things to do than to prove what is dead."""

Probe = Callable[[Policy, str, int], Deferred[str]]
"""Asks an address and port whether it serves: an empty string, or why not."""


class Server(Protocol):
    """The server that this host has a session with; `upstream.Upstream`."""

    def ask(self, request: Request) -> Deferred[Reply]:
        """Send a request."""


class ProbeResponder:
    """Answers inquiries with findings."""

    def __init__(self, replica: Replica, probe: Probe, server: Server) -> None:
        self._replica = replica
        self._probe = probe
        self._server = server
        self._under_way = 0

    def inquired(self, inquiry: Inquiry) -> None:
        """Probe the listener once and say what came of it; nothing is said about one that is not known here."""
        catalogue = self._replica.catalogue
        row = catalogue.listener(inquiry.service, inquiry.address, inquiry.port)
        category = catalogue.categories.get(category_of(inquiry.service))
        if row is None or category is None or self._under_way >= INQUIRIES_MAX:
            return
        self._under_way += 1

        def found(problem: str) -> None:
            self._under_way -= 1
            self._server.ask(Findings(inquiry.id, alive=not problem, detail=escape_line(problem, DETAIL_MAX)))

        asked = self._probe(category.policy, row.address, row.port)
        asked.addErrback(lambda failure: f"the probe failed: {failure.getErrorMessage()}").addCallback(found)

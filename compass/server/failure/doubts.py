"""Doubtful deaths: a host reports that a process ended, and cannot have observed it (`validation.is_doubtful`).

Such a report changes nothing by itself. The server probes the listener before it replies: one that answers stays as it
is, and one that does not is suspect, and is checked like any other suspect listener.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from compass.model.names import category_of, parse_address, parse_service_id
from compass.model.replies import Deregistered, Refusal, Reply, Reported
from compass.model.requests import Deregister, Suspect, Undecided
from compass.model.rows import FAILING, Listener, Policy
from compass.model.rules.draft import Principal
from compass.model.rules.networks import ProbeDenied
from compass.server.commit.replica import Replica
from compass.server.failure.checks import CAUSE_MAX
from compass.server.failure.local_health import LocalHealthMonitor

EVIDENCE = "its host does not know whether its process lives"
"""Cause of a suspicion that begins with a doubtful death."""
RETRY_SECONDS = 5.0
"""Pause until a server that doubts its own probes is asked again."""


class Detector(Protocol):
    """Part of the failure detector that probes."""

    local_health: LocalHealthMonitor

    @property
    def has_sessions(self) -> bool:
        """Flag: some host has a session here."""

    def probe(self, policy: Policy, row: Listener) -> Deferred[str]:
        """Probe a listener. Returns an empty string, or why it does not serve."""

    def submit(self, request: Undecided) -> Deferred[Reply]:
        """Have a request of the server itself decided."""


class Registrations(Protocol):
    """Component that has deregistrations decided."""

    def submit(self, request: Deregister, principal: Principal) -> Deferred[Reply]:
        """Have a deregistration decided."""


class DoubtfulDeaths:
    """Deregistrations, of which some are only a reason to probe."""

    def __init__(self, replica: Replica, registrations: Registrations, detector: Detector) -> None:
        self._replica = replica
        self._registrations = registrations
        self._detector = detector

    def deregister(self, request: Deregister, principal: Principal) -> Deferred[Reply]:
        """Have a deregistration decided (2.2), and probe if it is not known whether the process has ended."""
        decided = self._registrations.submit(request, principal)
        return decided.addCallback(self._probe, request) if request.died else decided

    def _probe(self, reply: Reply, request: Deregister) -> Reply | Deferred[Reply]:
        if not isinstance(reply, Deregistered) or reply.state in FAILING or reply.state == "offline":
            return reply
        key = parse_service_id(request.service), parse_address(request.address), request.port
        catalogue = self._replica.catalogue
        row, category = catalogue.listener(*key), catalogue.categories.get(category_of(key[0]))
        if row is None or category is None:
            return reply

        def probed(problem: str) -> Reply | Deferred[Reply]:
            if not problem or isinstance(problem, ProbeDenied):
                return reply
            if not self._detector.has_sessions or self._detector.local_health.is_in_doubt:
                return Refusal("busy", f"{problem}, and this server may be cut off itself", RETRY_SECONDS)
            cause = f"{EVIDENCE}, and a probe failed: {problem}"[:CAUSE_MAX]
            return self._detector.submit(Suspect(*key, row.epoch, cause)).addCallback(suspected)

        def suspected(decided: Reply) -> Reply:
            if not isinstance(decided, Reported):
                return decided
            if self._replica.catalogue.listener(*key) is None:
                return Refusal("unknown-listener", f"{key[0]} has no listener at {key[1]} port {key[2]} any more")
            return Deregistered(decided.revision, decided.state, changed=False)

        return self._detector.probe(category.policy, row).addCallback(probed)

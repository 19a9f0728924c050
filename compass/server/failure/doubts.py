"""Doubtful deaths: a host reports that a process ended, and cannot have observed it (`validation.is_doubtful`).

Such a report changes nothing by itself. The server probes the listener before it replies: one that answers stays as it
is, and one that does not is checked like a listener that was reported.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred

from compass.model.names import category_of, parse_address, parse_service_id
from compass.model.replies import Deregistered, Reply
from compass.model.requests import Deregister
from compass.model.rows import FAILING, Listener, ListenerKey, Policy
from compass.model.rules.draft import Principal
from compass.model.rules.networks import ProbeDenied
from compass.server.commit.committer import Committer

EVIDENCE = "its host does not know whether its process lives"
"""Cause of a suspicion that begins with a doubtful death."""


class Detector(Protocol):
    """Part of the failure detector that probes."""

    def probe(self, policy: Policy, row: Listener) -> Deferred[str]:
        """Probe a listener. Returns an empty string, or why it does not serve."""

    def check_reported(self, key: ListenerKey, why: str) -> None:
        """Check a listener unless it is checked already because of its state."""


class DoubtfulDeaths:
    """Deregistrations, of which some are only a reason to probe."""

    def __init__(self, committer: Committer, detector: Detector) -> None:
        self._committer = committer
        self._detector = detector

    def deregister(self, request: Deregister, principal: Principal) -> Deferred[Reply]:
        """Have a deregistration decided (2.2), and probe if it is not known whether the process has ended."""
        decided = self._committer.submit(request, principal)
        return decided.addCallback(self._probe, request) if request.died else decided

    def _probe(self, reply: Reply, request: Deregister) -> Reply | Deferred[Reply]:
        if not isinstance(reply, Deregistered) or reply.state in FAILING or reply.state == "offline":
            return reply
        key = parse_service_id(request.service), parse_address(request.address), request.port
        catalogue = self._committer.replica.catalogue
        row, category = catalogue.listener(*key), catalogue.categories.get(category_of(key[0]))
        if row is None or category is None:
            return reply

        def probed(problem: str) -> Reply:
            if not problem or isinstance(problem, ProbeDenied):
                return reply
            self._detector.check_reported(key, EVIDENCE)
            return msgspec.structs.replace(reply, state="suspect")

        return self._detector.probe(category.policy, row).addCallback(probed)

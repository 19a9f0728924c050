"""Incidents about hosts that this server refuses: an administrator learns of them from the server, not from the host.

A refused host has its reason in its own log only, where no administrator reads it. The incident of a host ends when a
server accepts the host, or when this server has not refused the host for a while: it may have been taken out of use.
"""

from __future__ import annotations

from twisted.logger import Logger

from compass.model.interfaces import Clock
from compass.model.requests import Incident
from compass.model.rules.draft import Principal
from compass.model.text import escape_line
from compass.server.commit.committer import Committer
from compass.system.timers import Timers

NAMED_MAX = 100
"""Hosts with an incident of their own; the others share one: a mistake that affects all hosts is one message."""
REFUSAL_QUIET_SECONDS = 900.0
"""Time without a refusal after which an incident is over: refused hosts try again within ten minutes."""
REASON_MAX = 400
"""Characters of a reason in an incident."""
_PREFIX = "failure refusal of host "


class RefusedHosts:
    """Opens and closes the incidents."""

    log = Logger()

    def __init__(self, server: str, clock: Clock, committer: Committer) -> None:
        self._others = f"failure refusal of other hosts by {server}"
        self._server = server
        self._committer = committer
        self._replica = committer.replica
        self._principal = Principal("server", server, "")
        self._timers = Timers(clock)
        self._named: set[str] = set()
        """Incidents that this server has opened or found open."""
        self._submitted: set[str] = set()
        """Incidents whose opening is not committed yet."""

    def start(self) -> None:
        """Continue with the incidents that are open: the server that opened them may be gone."""
        for id in self._replica.catalogue.alerts:
            if id.startswith(_PREFIX) or id == self._others:
                self._keep(id)

    def stop(self) -> None:
        """Stop the timers."""
        self._timers.cancel_all()

    def refused(self, host: str, why: str) -> None:
        """Open the incident of a host that was refused, unless it is open."""
        id = _PREFIX + escape_line(host, REASON_MAX)
        if id not in self._named and len(self._named) >= NAMED_MAX:
            id = self._others
        reason = escape_line(why, REASON_MAX)
        if id not in self._named or id == self._others:
            self.log.warn("host {host} is refused: {reason}", host=host, reason=reason)
        self._keep(id)
        if id not in self._submitted and id not in self._replica.catalogue.alerts:
            more = f"; further hosts are in the log of {self._server}" if id == self._others else ""
            text = f"{self._server} refuses host {host}, which gets no changes: {reason}{more}"
            self._submitted.add(id)
            submitted = self._committer.submit(Incident(id, text), self._principal)
            submitted.addBoth(lambda _: self._submitted.discard(id))

    def accepted(self, host: str) -> None:
        """Close the incident of a host that watches here."""
        self._close(_PREFIX + host)

    def _keep(self, id: str) -> None:
        self._named.add(id)
        self._timers.start(id, REFUSAL_QUIET_SECONDS, self._close, id)

    def _close(self, id: str) -> None:
        self._named.discard(id)
        self._timers.cancel(id)
        if id in self._submitted or id in self._replica.catalogue.alerts:
            self._committer.submit(Incident(id), self._principal)

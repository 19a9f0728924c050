"""Double sessions: a host with a session here and another one at another server over the same store.

A daemon has one session. When it goes to another server, the server that it left notices within half a minute at the
latest that the connection is lost. So sessions of one host at two servers for longer are those of two machines with one
certificate. Unlike rivals at one server they do not end each other's; administrators have an incident as long as both
last. Each worker of a server counts as a server.
"""

from __future__ import annotations

from compass.model.cluster import ClusterView, MembershipChange
from compass.model.interfaces import Clock
from compass.model.requests import Incident
from compass.model.rules.draft import Principal
from compass.server.commit.committer import Committer
from compass.server.push.publisher import Publisher
from compass.system.timers import Timers

DOUBLE_SECONDS = 45.0
"""Seconds for which a host has sessions at two servers until this is an incident: longer than a lost connection takes
to be noticed (`daemons/net/transport.py`, 30 s) and the other server's entry takes to arrive. Also the interval at
which it is checked whether this is still so."""
INCIDENT = "failure host at two servers "
"""Beginning of the id of an incident; the name of the host follows."""
HOSTS_CHECKED_MAX = 1_000
"""Hosts that are checked at the same time; when a server fails, all its hosts come here, and most leave no session."""


class DoubleSessions:
    """Hosts that have a session here and one elsewhere."""

    def __init__(
        self, clock: Clock, committer: Committer, publisher: Publisher, cluster: ClusterView, principal: Principal
    ) -> None:
        self._committer = committer
        self._publisher = publisher
        self._cluster = cluster
        self._principal = principal
        self._timers = Timers(clock)
        self._checked: set[str] = set()

    def start(self) -> None:
        """Check whether incidents of an earlier run are over."""
        for id in self._committer.catalogue.alerts:
            if id.startswith(INCIDENT):
                self._check_later(id.removeprefix(INCIDENT))

    def stop(self) -> None:
        """Stop all timers."""
        self._timers.cancel_all()

    def membership_changed(self, change: MembershipChange) -> None:
        """Check later the hosts that have a session here and are said to have one elsewhere."""
        for entry in change.moved:
            if self._other_server(entry.host) and len(self._checked) < HOSTS_CHECKED_MAX:
                self._check_later(entry.host)

    def _check_later(self, host: str) -> None:
        self._checked.add(host)
        self._timers.start_if_idle(host, DOUBLE_SECONDS, self._check, host)

    def _other_server(self, host: str) -> str:
        """Return the name of the server that has another session of a host; empty: there are not two."""
        entry = self._cluster.where(host)
        if entry is None or self._publisher.session_of(host) is None or not self._cluster.present_elsewhere(host):
            return ""
        return self._cluster.peers[entry.server].line.name

    def _check(self, host: str) -> None:
        other, session = self._other_server(host), self._publisher.session_of(host)
        is_open = INCIDENT + host in self._committer.catalogue.alerts
        if other and session is not None:
            if not is_open:
                self._open(host, session.asker.origin, other)
            self._check_later(host)
            return
        self._checked.discard(host)
        if is_open:
            self._committer.submit(Incident(INCIDENT + host), self._principal)

    def _open(self, host: str, origin: str, other: str) -> None:
        text = (
            f"two machines are {host}: daemons with the same certificate have sessions at server "
            f"{self._principal.name}, from {origin}, and at server {other}; stop one of them, or issue a certificate "
            f"with another name; if the key may be stolen, bar {host}"
        )
        self._committer.submit(Incident(INCIDENT + host, text), self._principal)

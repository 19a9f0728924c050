"""Hosts: which are connected, to which server, and what follows when one comes, leaves or is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from compass.model.catalogue.interest import audience
from compass.model.cluster import ClusterView, MembershipChange
from compass.model.rows import Listener
from compass.server.alerts.notifier import AlertNotifier
from compass.server.cluster.membership import Membership
from compass.server.commit.replica import Replica
from compass.server.failure.detector import FailureDetector
from compass.server.failure.pending_suspicions import PendingSuspicions
from compass.server.push.dialer import Dialer
from compass.server.push.publisher import Publisher
from compass.server.queries.host_sessions import HostSessionTracker
from compass.server.sessions.session import Session, SessionContext


class Network(Protocol):
    """The network of a server."""

    def connect(self, host: str, address: str, port: int, make: Callable[[], Session]) -> Deferred[Session]:
        """Connect to a host's Update listener; `make` makes the session."""


class HostPresence:
    """The hosts that have a watching session, here or at another server over the same store."""

    def __init__(
        self, replica: Replica, publisher: Publisher, cluster: ClusterView, sessions: HostSessionTracker
    ) -> None:
        self._replica = replica
        self._publisher = publisher
        self.cluster = cluster
        self.sessions = sessions

    def has_session(self, host: str) -> bool:
        """Return whether a host has its session at this server."""
        return self._publisher.session_of(host) is not None

    def is_present(self, host: str) -> bool:
        """Return whether a host has a session at any server."""
        return self._publisher.session_of(host) is not None or self.cluster.present_elsewhere(host)

    def lost(self) -> list[str]:
        """Return the hosts that some server has lost and that have no session now."""
        return [host for host in self.cluster.lost() if not self.is_present(host)]

    def watching(self) -> int:
        """Return the number of hosts with a session here."""
        return self._publisher.watching

    def probing(self, row: Listener) -> list[Session]:
        """Return the sessions of hosts that depend on a listener and answer inquiries."""
        subscribers = self._publisher.subscribers(audience(self._replica.catalogue, row))
        return [session for session in subscribers if session.probes]


class HostConnector:
    """Makes sessions with hosts that keep none."""

    def __init__(
        self, presence: HostPresence, detector: FailureDetector, sessions: SessionContext, network: Network
    ) -> None:
        self._presence = presence
        self._detector = detector
        self._sessions = sessions
        self._network = network

    def is_ours_to_reach(self, host: str) -> bool:
        """Return whether this server has to reach a host, with which no server has a session."""
        return not self._presence.is_present(host) and self._presence.cluster.owns_host(host)

    def dial(self, host: str, address: str, port: int) -> Deferred[Session]:
        """Connect to a host; fires with the session once its greeting can begin."""
        return self._network.connect(host, address, port, lambda: Session(self._sessions, dialled=host))

    def unreachable(self, host: str) -> None:
        """Check the listeners of a host that could not be reached."""
        self._detector.lost(host)


class HostEvents:
    """Consequences of hosts that come and go, at this server or at another one."""

    def __init__(
        self,
        presence: HostPresence,
        membership: Membership,
        pending: PendingSuspicions,
        detector: FailureDetector,
        alerts: AlertNotifier,
        dialer: Dialer,
    ) -> None:
        self._presence = presence
        self._membership = membership
        self._pending = pending
        self._detector = detector
        self._alerts = alerts
        self._dialer = dialer
        self._sessions = presence.sessions

    def connected(self, session: Session) -> None:
        """Note that the host of a session watches here."""
        self._membership.host_connected(session.host)
        self._sessions.opened(session.host, session.asker.origin, session.software)
        self._detector.returned(session.host)
        self._pending.watched(session)

    def disconnected(self, host: str, *, lost: bool, held: int) -> None:
        """Note that a host's session here has ended: `lost`, or left for a while; the host held revision `held`."""
        self._membership.host_disconnected(host, lost=lost, held=held)
        self._dialer.ended(host)
        if not self._presence.is_present(host):
            self._sessions.ended(host, "lost" if lost else "left")
        if lost and not self._presence.is_present(host):
            self._detector.lost(host)

    def registrant_lost(self, host: str) -> None:
        """Note that the last session of a host that never watched has ended: no server knew of its presence."""
        if not self._presence.is_present(host):
            self._membership.host_lost(host)
            self._detector.lost(host)

    def membership_changed(self, change: MembershipChange) -> None:
        """Follow hosts that moved, and servers that came, fell silent or doubt themselves."""
        for entry in change.moved:
            self._detector.moved(entry.host)
            if not self._presence.has_session(entry.host):
                self._sessions.moved(entry)
            # Its last server may not be one that keeps hosts: then this one checks it and reaches it.
            if entry.state == "lost" and not self._presence.is_present(entry.host):
                self._detector.lost(entry.host)
            if entry.state != "here":
                self._dialer.ended(entry.host)
        if change.regroup:
            self._detector.ownership_changed()
            self._alerts.ownership_changed()
            self._dialer.ownership_changed()
            for host in self._presence.lost():
                self._detector.lost(host)
        if change.silenced:
            self._detector.schedule_absence_check()

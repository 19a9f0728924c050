"""Host sessions: which host is in session where and since when, and the changes of that, for administrators (A1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from twisted.logger import Logger

from compass.model.cluster import ClusterView, HostSession, HostSessions, Presence
from compass.model.interfaces import Environment
from compass.model.replies import Refusal

FOLLOWERS_MAX = 200
"""Followers at the same time, as of the changes of the catalogue: each change is encoded once for each of them."""

Deliver = Callable[[HostSessions], None]


class HostSessionTracker:
    """Session of each host, numbered by views: each change makes the next view of this server."""

    _log = Logger()

    def __init__(self, server: str, environment: Environment, cluster: ClusterView) -> None:
        """`server`: name of this server."""
        self._server = server
        self._now = environment.now
        self._cluster = cluster
        self._sessions: dict[str, HostSession] = {}
        self._view = 0
        self._followers: dict[int, Deliver] = {}
        self._last = 0

    def of(self, host: str) -> HostSession | None:
        """Return the session of a host, or its end; None: this server knows of none."""
        return self._sessions.get(host)

    def opened(self, host: str, origin: str, software: str) -> None:
        """Note a session at this server; `origin`: address that it comes from."""
        self._set(HostSession(host, "open", self._server, self._now(), origin, software))

    def ended(self, host: str, state: Literal["left", "lost"]) -> None:
        """Note the end of a session at this server."""
        self._set(HostSession(host, state, self._server, self._now()))

    def moved(self, entry: Presence) -> None:
        """Note what another server says of a host."""
        peer = self._cluster.peers.get(entry.server)
        state = "open" if entry.state == "here" else entry.state
        self._set(HostSession(entry.host, state, peer.line.name if peer is not None else "", self._now()))

    def follow(self, deliver: Deliver) -> Callable[[], None] | Refusal:
        """Deliver all sessions, then each change. Returns what ends the delivery."""
        if len(self._followers) >= FOLLOWERS_MAX:
            text = f"{FOLLOWERS_MAX} follow the sessions already; let one follow on behalf of others"
            return Refusal("busy", text, retry_after_seconds=1.0)
        deliver(HostSessions(self._view, tuple(self._sessions.values()), complete=True))
        self._last += 1
        number = self._last
        self._followers[number] = deliver

        def stop() -> None:
            self._followers.pop(number, None)

        return stop

    def _set(self, session: HostSession) -> None:
        known = self._sessions.get(session.host)
        if known is not None and msgspec.structs.replace(session, since=known.since) == known:
            return
        if known is None and session.state != "open":
            # The end of a session that this server has not seen is news all the same: since when is unknown.
            session = msgspec.structs.replace(session, since=0.0)
        self._sessions[session.host] = session
        self._view += 1
        for deliver in list(self._followers.values()):
            try:
                deliver(HostSessions(self._view, (session,)))
            except Exception:
                # The other followers must get the event all the same.
                self._log.failure("a follower did not accept a change of a session")

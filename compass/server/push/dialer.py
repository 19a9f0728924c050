"""Dialled sessions: push to hosts that keep no session (opengnsp.md, "Dialled sessions").

The server connects to the host's Update listener. On the connection the host greets and watches as on any other, and
gets what it missed. The server closes the connection when no notice has been due for a while; often the host leaves
before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from compass.model.catalogue.catalogue import Catalogue
from compass.model.interfaces import Clock, Timer
from compass.model.names import category_of, format_endpoint
from compass.model.rows import Change, Host
from compass.server.commit.replica import Replica
from compass.server.push.publisher import Publisher
from compass.server.sessions.session import Session

DIALS_MAX = 256
"""Dialled connections at once: a change that concerns 10,000 hosts must not open 10,000 sockets; each takes some two
seconds, so all of them have the change within two minutes."""
DIAL_PAUSE_SECONDS_MAX = 60.0
"""Longest pause between two attempts to reach one host; the first is a second, then it doubles."""
GATHER_SECONDS = 0.05
"""Changes come in groups: the hosts without a session are looked up once for all notices within this time."""
LINGER_SECONDS = 2.0
"""Seconds that a dialled session stays open after the last notice, for the same reason."""
START_GRACE_SECONDS = 5.0
"""After the server's start hosts come back by themselves; only then are the others dialled."""


class HostConnector(Protocol):
    """Maker of sessions with hosts that keep none."""

    def is_ours_to_reach(self, host: str) -> bool:
        """Return whether this server has to reach a host, with which no server has a session."""

    def dial(self, host: str, address: str, port: int) -> Deferred[Session]:
        """Connect to a host; fires with the session once its greeting can begin."""

    def unreachable(self, host: str) -> None:
        """Note that a host could not be reached."""


class Dialer:
    """The hosts that are to be dialled, those that are, and when a host is dialled again."""

    log = Logger()

    def __init__(self, clock: Clock, replica: Replica, publisher: Publisher, hosts: HostConnector) -> None:
        self._clock = clock
        self._replica = replica
        self._publisher = publisher
        self._hosts = hosts
        self._notified: set[str] = set()
        """Member categories that were sent a notice since the hosts without a session were looked up."""
        self._due: dict[str, None] = {}
        self._connecting: dict[str, Deferred[Session]] = {}
        self._open: dict[str, Session] = {}
        self._pauses: dict[str, float] = {}
        """Seconds to wait after the next failure, of each host that could not be reached."""
        self._retries: set[str] = set()
        self._timers: set[Timer] = set()
        self._stopped = False

    def start(self) -> None:
        """Dial, after a while, the hosts that have not come back."""
        self.ownership_changed()

    def ownership_changed(self) -> None:
        """Dial, after a while, the hosts that are ours to reach now and have not come by themselves."""
        self._later(START_GRACE_SECONDS, lambda: self._consider(self._replica.catalogue.hosts.values()))

    def stop(self) -> None:
        """Stop dialling."""
        self._stopped = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._due.clear()
        for connecting in list(self._connecting.values()):
            connecting.cancel()

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """Reach the hosts that the publisher would have sent a change, if they had a session."""
        categories = self._publisher.audience
        if categories:
            if not self._notified:
                self._later(GATHER_SECONDS, self._dial_notified)
            self._notified |= categories

    def ended(self, host: str) -> None:
        """Dial a host whose session has ended, if it missed something."""
        session = self._open.get(host)
        if session is not None and not session.connected:
            self._settle(host, session)
            return
        row = self._replica.catalogue.hosts.get(host)
        if row is not None:
            self._consider([row])

    def _dial_notified(self) -> None:
        notified, self._notified = self._notified, set()
        hosts = self._replica.catalogue.hosts.values()
        self._consider(h for h in hosts if h.update_port and any(category_of(one) in notified for one in h.services))

    def _wanted(self, host: Host) -> bool:
        """Return whether a host can be dialled and has missed something."""
        if not host.update_port or host.barred or not self._hosts.is_ours_to_reach(host.name):
            return False
        return self._publisher.has_missed(host)

    def _consider(self, hosts: Iterable[Host]) -> None:
        busy = self._connecting.keys() | self._open.keys() | self._retries
        self._due.update(dict.fromkeys(sorted(h.name for h in hosts if h.name not in busy and self._wanted(h))))
        self._dial_due()

    def _dial_due(self) -> None:
        while not self._stopped and self._due and len(self._connecting) + len(self._open) < DIALS_MAX:
            name = next(iter(self._due))
            del self._due[name]
            row = self._replica.catalogue.hosts.get(name)
            if row is not None and self._wanted(row):
                dialled = maybeDeferred(self._hosts.dial, name, row.update_address, row.update_port)
                # Stored first: a connection that is made already removes itself at once.
                self._connecting[name] = dialled
                dialled.addCallbacks(self._reached, self._missed, (row,), errbackArgs=(row,))

    def _reached(self, session: Session, host: Host) -> None:
        del self._connecting[host.name]
        self._open[host.name] = session
        self._close_later(host.name, session)

    def _close_later(self, name: str, session: Session) -> None:
        self._later(LINGER_SECONDS, lambda: self._close_if_done(name, session))

    def _close_if_done(self, name: str, session: Session) -> None:
        """Close the session when the host has everything; its deadline ends one that does not acknowledge."""
        if self._open.get(name) is not session:
            return
        row = self._replica.catalogue.hosts.get(name)
        if session.connected and (session.waiting or (row is not None and self._publisher.has_missed(row))):
            self._close_later(name, session)
        else:
            self._settle(name, session)

    def _settle(self, name: str, session: Session) -> None:
        """Forget a dialled session that is closed, or close it."""
        del self._open[name]
        row = self._replica.catalogue.hosts.get(name)
        if row is not None and not session.connected and self._wanted(row):
            self._try_again(name)
        else:
            self._pauses.pop(name, None)
        if session.connected:
            session.goodbye("nothing more for now")
        self._dial_due()

    def _missed(self, failure: Failure, host: Host) -> None:
        del self._connecting[host.name]
        if self._stopped:
            return
        self._hosts.unreachable(host.name)
        log = self.log.debug if host.name in self._pauses else self.log.info
        log(
            "host {name} cannot be reached at {where}: {why}; retrying from time to time",
            name=host.name,
            where=format_endpoint(host.update_address, host.update_port),
            why=failure.getErrorMessage() or failure.type,
        )
        self._try_again(host.name)
        self._dial_due()

    def _try_again(self, name: str) -> None:
        pause = self._pauses.get(name, 1.0)
        self._pauses[name] = min(pause * 2, DIAL_PAUSE_SECONDS_MAX)

        def again() -> None:
            self._retries.discard(name)
            row = self._replica.catalogue.hosts.get(name)
            if row is not None and self._wanted(row):
                self._consider([row])
            else:
                # The host came by itself, or was removed.
                self._pauses.pop(name, None)

        self._retries.add(name)
        self._later(pause, again)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        if self._stopped:
            return

        def run() -> None:
            self._timers.discard(timer)
            call()

        timer = self._clock.callLater(seconds, run)
        self._timers.add(timer)

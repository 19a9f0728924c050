"""Push to hosts that keep no session: the server dials their Update listener (opengnsp.md, "Dialled sessions").

On the connection the host greets and watches as always, and gets what it missed. The server hangs up when nothing
has been due for a while; often the host leaves before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from compass.model.catalogue.catalogue import Catalogue
from compass.model.interfaces import Clock, Timer
from compass.model.names import category_of, format_endpoint
from compass.model.rows import Host
from compass.server.push.publisher import Publisher
from compass.server.sessions.session import Session

DIALS_MAX = 256
"""Dialled connections at once: a change that concerns 10,000 hosts must not open 10,000 sockets; each takes some two
seconds, so they are all told within two minutes."""
DIAL_PAUSE_SECONDS_MAX = 60.0
"""Longest pause between two attempts to reach one host; the first is a second, then it doubles."""
GATHER_SECONDS = 0.05
"""Changes come in groups: who is absent is looked up once for all notices of so long."""
LINGER_SECONDS = 2.0
"""A dialled session stays open so long after the last notice, for the same reason."""
START_GRACE_SECONDS = 5.0
"""After the server's start hosts come back by themselves; only then are the others dialled."""

Dial = Callable[[str, str, int], Deferred[Session]]
"""Connects to a host by name, address and port; fires with the session once its greeting can begin."""


class Dialer:
    """Which hosts are to be dialled, and when again."""

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        dial: Dial,
        push: Publisher,
        catalogue: Callable[[], Catalogue],
        ours: Callable[[str], bool],
    ) -> None:
        """`ours`: whether it is this server that reaches a host, which no server has a session of."""
        self._clock = clock
        self._ours = ours
        self._dial = dial
        self._push = push
        self._catalogue = catalogue
        self._told: set[str] = set()
        self._due: dict[str, None] = {}
        self._connecting: dict[str, Deferred[Session]] = {}
        self._open: dict[str, Session] = {}
        self._pauses: dict[str, float] = {}
        """Of the hosts that were missed, how long to wait after the next miss."""
        self._retries: set[str] = set()
        self._timers: set[Timer] = set()
        self._stopped = False

    def start(self) -> None:
        """Look after a while who has not come back."""
        self.ownership_changed()

    def ownership_changed(self) -> None:
        """Hosts may have become ours to reach: see after a while who has not come by itself."""
        self._later(START_GRACE_SECONDS, lambda: self._consider(self._catalogue().hosts.values()))

    def stop(self) -> None:
        """Dial no more."""
        self._stopped = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._due.clear()
        for connecting in list(self._connecting.values()):
            connecting.cancel()

    def notify_categories(self, categories: frozenset[str]) -> None:
        """A notice went out to hosts with services of these categories; reach those that keep no session."""
        if not self._told:
            self._later(GATHER_SECONDS, self._dial_notified)
        self._told |= categories

    def ended(self, host: str) -> None:
        """A session of that host is over; perhaps there is something it did not get."""
        session = self._open.get(host)
        if session is not None and not session.connected:
            self._settle(host, session)
            return
        row = self._catalogue().hosts.get(host)
        if row is not None:
            self._consider([row])

    def _dial_notified(self) -> None:
        told, self._told = self._told, set()
        hosts = self._catalogue().hosts.values()
        self._consider(h for h in hosts if h.update_port and any(category_of(one) in told for one in h.services))

    def _wanted(self, host: Host) -> bool:
        """Whether it can be dialled and has missed something."""
        if not host.update_port or host.barred or not self._ours(host.name):
            return False
        return self._push.has_missed(host)

    def _consider(self, hosts: Iterable[Host]) -> None:
        busy = self._connecting.keys() | self._open.keys() | self._retries
        self._due.update(dict.fromkeys(sorted(h.name for h in hosts if h.name not in busy and self._wanted(h))))
        self._go_on()

    def _go_on(self) -> None:
        while not self._stopped and self._due and len(self._connecting) + len(self._open) < DIALS_MAX:
            name = next(iter(self._due))
            del self._due[name]
            row = self._catalogue().hosts.get(name)
            if row is not None and self._wanted(row):
                dialled = maybeDeferred(self._dial, name, row.update_address, row.update_port)
                # Noted first: one that has fired already is taken out again at once.
                self._connecting[name] = dialled
                dialled.addCallbacks(self._reached, self._missed, (row,), errbackArgs=(row,))

    def _reached(self, session: Session, host: Host) -> None:
        del self._connecting[host.name]
        self._open[host.name] = session
        self._look_later(host.name, session)

    def _look_later(self, name: str, session: Session) -> None:
        self._later(LINGER_SECONDS, lambda: self._look(name, session))

    def _look(self, name: str, session: Session) -> None:
        """Hang up when the host has everything; one that does not acknowledge is ended by its session's deadline."""
        if self._open.get(name) is not session:
            return
        row = self._catalogue().hosts.get(name)
        if session.connected and (session.waiting or (row is not None and self._push.has_missed(row))):
            self._look_later(name, session)
        else:
            self._settle(name, session)

    def _settle(self, name: str, session: Session) -> None:
        """The dialled session is over, or is ended now."""
        del self._open[name]
        row = self._catalogue().hosts.get(name)
        if row is not None and not session.connected and self._wanted(row):
            self._try_again(name)
        else:
            self._pauses.pop(name, None)
        if session.connected:
            session.goodbye("nothing more for now")
        self._go_on()

    def _missed(self, failure: Failure, host: Host) -> None:
        del self._connecting[host.name]
        if self._stopped:
            return
        log = self.log.debug if host.name in self._pauses else self.log.info
        log(
            "host {name} is not reached at {where}: {why}; it is dialled again from time to time",
            name=host.name,
            where=format_endpoint(host.update_address, host.update_port),
            why=failure.getErrorMessage() or failure.type,
        )
        self._try_again(host.name)
        self._go_on()

    def _try_again(self, name: str) -> None:
        pause = self._pauses.get(name, 1.0)
        self._pauses[name] = min(pause * 2, DIAL_PAUSE_SECONDS_MAX)

        def again() -> None:
            self._retries.discard(name)
            row = self._catalogue().hosts.get(name)
            if row is not None and self._wanted(row):
                self._consider([row])
            else:
                # It came by itself, or is gone.
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

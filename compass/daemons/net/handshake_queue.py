"""Queue of TLS handshakes that are about to begin: a bounded number goes on at once, and all origins have their turns.

A handshake that goes on has 46 kB, a connection that waits 3 kB. Handshakes of origins that fail often have a pace, so
that others have the processor. No origin is refused: behind the address of a balancer there may be a stranger and a
whole fleet.
"""

from __future__ import annotations

from collections.abc import Callable

from compass.daemons.net.connection_table import STALLED_SECONDS, Connection
from compass.model.interfaces import Clock
from compass.server.sessions.rate_limit import CONNECTIONS_FAILED_PER_MINUTE_MAX, RateLimiter

HANDSHAKES_MAX = 1_000
"""Handshakes that go on at once at one port: 46 MB, and a second's work of one core. The others wait."""
SUSPECT_HANDSHAKES_PER_SECOND_MAX = 400
"""Handshakes a second of all origins that fail often: a third of a core."""
STEP_SECONDS = 0.05
"""Interval between two looks at the handshakes that wait."""


class HandshakeQueue:
    """Handshakes of one port."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = RateLimiter(clock, CONNECTIONS_FAILED_PER_MINUTE_MAX)
        self._running: dict[Connection, float] = {}
        """Time of the beginning of each handshake, in order."""
        self._waiting: dict[str, dict[Connection, Callable[[], None]]] = {}
        """Beginnings that wait, by origin; the origin whose turn is next comes first."""
        self._left = self._suspects_a_step
        self._is_stepping = False

    def failed(self, origin: str) -> None:
        """Count a connection that ended before its handshake was complete."""
        self._failures.count(origin)

    def start(self, connection: Connection, begin: Callable[[], None]) -> None:
        """Begin a handshake: at once, or in its turn."""
        origin = connection.origin
        if self._failures.wait(origin):
            self._step_later()
        if origin not in self._waiting and self._may_begin(origin):
            self._begin(connection, begin)
            return
        self._waiting.setdefault(origin, {})[connection] = begin
        self._step_later()

    def ended(self, connection: Connection) -> None:
        """Forget a handshake that is complete, or whose connection has ended, also while it waited."""
        of_origin = self._waiting.get(connection.origin, {})
        if of_origin.pop(connection, None) is not None and not of_origin:
            del self._waiting[connection.origin]
        if self._running.pop(connection, None) is not None:
            self._serve()

    @property
    def _suspects_a_step(self) -> int:
        return int(SUSPECT_HANDSHAKES_PER_SECOND_MAX * STEP_SECONDS)

    def _may_begin(self, origin: str) -> bool:
        return len(self._running) < HANDSHAKES_MAX and (self._left > 0 or not self._failures.wait(origin))

    def _begin(self, connection: Connection, begin: Callable[[], None]) -> None:
        self._left -= bool(self._failures.wait(connection.origin))
        self._running[connection] = self._clock.seconds()
        begin()

    def _serve(self) -> None:
        """Begin one handshake of each origin in turn, as long as some may begin.

        The oldest of an origin comes first; of one that fails often the newest, for the others have perhaps given up.
        """
        blocked = 0
        while blocked < len(self._waiting):
            origin = next(iter(self._waiting))
            of_origin = self._waiting.pop(origin)
            if self._may_begin(origin):
                blocked = 0
                connection = next(reversed(of_origin) if self._failures.wait(origin) else iter(of_origin))
                begin = of_origin.pop(connection)
                if of_origin:
                    self._waiting[origin] = of_origin
                self._begin(connection, begin)
            else:
                blocked += 1
                self._waiting[origin] = of_origin

    def _step_later(self) -> None:
        if not self._is_stepping:
            self._is_stepping = True
            self._clock.callLater(STEP_SECONDS, self._step)

    def _step(self) -> None:
        """Continue the pace, and end handshakes that are stalled while others wait."""
        self._is_stepping = False
        self._left = self._suspects_a_step
        if not self._waiting:
            return
        stalled = self._clock.seconds() - STALLED_SECONDS
        needed = sum(map(len, self._waiting.values())) if len(self._running) >= HANDSHAKES_MAX else 0
        for connection, since in list(self._running.items())[:needed]:
            if since > stalled:
                break
            del self._running[connection]
            connection.drop()
        self._serve()
        if self._waiting or self._left < self._suspects_a_step:
            self._step_later()

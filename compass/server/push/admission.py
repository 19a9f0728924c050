"""Admission: how many hosts may read a snapshot in a second, so that a storm of them leaves room for everybody else.

After a restart all hosts come at once. Those that resume cost little and are let in as they come. Those that need a
snapshot get a turn each: they wait for it on their session, without another handshake, as long as that is short; who
would wait longer is told when to come back, each at a time of its own.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred, succeed

from compass.model.interfaces import Clock

SNAPSHOTS_PER_SECOND_MAX = 2_000
"""Turns in a second: each costs some 0.25 ms with its commit, so a storm takes half of the server's time."""
SNAPSHOT_OCTETS_PER_SECOND_MAX = 64 * 1024 * 1024
"""What large snapshots may take: a third of what TLS encrypts in a second."""
AT_ONCE_SECONDS = 0.5
"""After a quiet time so many seconds' turns are given at once."""
WAIT_SECONDS_MAX = 5.0
"""How long a host waits for its turn on its session: well below the time in which it wants an answer."""
RETRY_SECONDS_MAX = 60.0
"""The latest time at which one that was sent away is told to come back."""


class Admission:
    """One line for all hosts; a turn is a moment in it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = clock.seconds() - AT_ONCE_SECONDS
        """When the next turn is."""
        self._promised = 0.0
        """When the last one that was sent away comes back."""
        self.turns = Counter[str]()
        """Given `at-once`, `waited` for, or `sent-away`."""

    @property
    def wait_seconds(self) -> float:
        """How long the next one would wait for its turn."""
        return max(0.0, self._next - self._clock.seconds())

    def turn(self) -> Deferred[float]:
        """Fires when it is this one's turn, with 0.0; or at once with the seconds after which to come back."""
        now = self._clock.seconds()
        self._next = max(self._next, now - AT_ONCE_SECONDS)
        wait = self._next - now
        if wait > WAIT_SECONDS_MAX:
            self.turns["sent-away"] += 1
            self._promised = max(self._promised, now + wait) + 1 / SNAPSHOTS_PER_SECOND_MAX
            return succeed(min(self._promised - now, RETRY_SECONDS_MAX))
        self._next += 1 / SNAPSHOTS_PER_SECOND_MAX
        self.turns["at-once" if wait <= 0 else "waited"] += 1
        if wait <= 0:
            return succeed(0.0)
        turn: Deferred[float] = Deferred()
        self._clock.callLater(wait, turn.callback, 0.0)
        return turn

    def sent(self, octets: int) -> None:
        """A snapshot was sent; a large one takes more than one turn's time."""
        self._next += max(0.0, octets / SNAPSHOT_OCTETS_PER_SECOND_MAX - 1 / SNAPSHOTS_PER_SECOND_MAX)

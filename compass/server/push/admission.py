"""Admission control: how many hosts may read a snapshot in a second, so that a storm of them leaves room for others.

After a restart all hosts come at once. Hosts that resume cost little and are admitted as they come. Each host that
needs a snapshot gets a turn: the host waits for it on its session, without another handshake, if the wait is short;
else the host is sent away, to come back at a time of its own.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred, succeed

from compass.model.interfaces import Clock

SNAPSHOTS_PER_SECOND_MAX = 2_000
"""Turns in a second: each costs some 0.25 ms with its commit, so a storm takes half of the server's time."""
SNAPSHOT_OCTETS_PER_SECOND_MAX = 64 * 1024 * 1024
"""Octets of large snapshots in a second: a third of what TLS encrypts."""
AT_ONCE_SECONDS = 0.5
"""Seconds whose turns are granted at once after a quiet time."""
WAIT_SECONDS_MAX = 5.0
"""Longest wait for a turn on the host's session: well below the time in which the host expects an answer."""
RETRY_SECONDS_MAX = 60.0
"""Longest time after which a host that is sent away may come back."""


class Admission:
    """Queue of all hosts that need a snapshot; a turn is a moment in it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = clock.seconds() - AT_ONCE_SECONDS
        """Time of the next turn."""
        self._promised = 0.0
        """Time at which the last host that was sent away comes back."""
        self.turns = Counter[str]()
        """Turns that were granted `at-once` or after a wait (`waited`), and hosts that were `sent-away`."""

    @property
    def wait_seconds(self) -> float:
        """Seconds that the next host would wait for its turn."""
        return max(0.0, self._next - self._clock.seconds())

    def turn(self) -> Deferred[float]:
        """Return a Deferred that fires with 0.0 at the turn, or now with the seconds after which to come back."""
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
        """Note that a snapshot was sent; a large one takes more than one turn's time."""
        self._next += max(0.0, octets / SNAPSHOT_OCTETS_PER_SECOND_MAX - 1 / SNAPSHOTS_PER_SECOND_MAX)

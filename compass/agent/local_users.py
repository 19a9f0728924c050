"""Users of this machine: what the programs of one may cost the daemon and the programs of the others (P10).

Connections, requests, waiting and reports are counted by the user that the kernel names. Programs that the kernel does
not name count as one user. Root and the daemon's own user are trusted: they can stop the daemon anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec
from twisted.internet.defer import Deferred, succeed

from compass.model.interfaces import Clock
from compass.model.replies import Refusal
from compass.system.peer_credentials import UNKNOWN_USER

CONNECTIONS_PER_USER_MAX = 256
"""Connections of one user's programs at once: one for each service that a host may have."""
CONNECTIONS_MAX = 4096
"""Connections of all users at once, if there are descriptors for them: sixteen users with all that they may have."""
DESCRIPTORS_KEPT = 256
"""Descriptors that connections leave free: for registered processes, probes, files and the session with a server."""
REQUESTS_PER_SECOND_MAX = 200.0
"""Requests of one user in a second, which take a fifth of the daemon's time; later ones wait. Programs that ask more
often watch, and are answered from their own memory."""
REQUESTS_BURST_MAX = 50
"""Requests of one user that are answered one after the other before that rate applies."""
REQUESTS_BEHIND_SECONDS_MAX = 5.0
"""Longest wait of a request for its turn; the connection of one that would wait longer is closed."""
WAITING_PER_USER_MAX = 32
"""Requests of one user that wait for a server: an eighth of what one session may have unanswered."""
WAITING_MAX = 192
"""Requests of all users that wait for a server; the rest of what a session may have is kept for the daemon, which has
deaths to announce."""
WATCHES_PER_USER_MAX = 64
"""Programs of one user that watch at once: a quarter of all that may."""
WATCHES_MAX = 224
"""Programs of all users that watch at once: seven eighths of all that may, and the rest is for trusted users."""
GUESS_SECONDS = 60.0
"""Time after a wrong credential in which the registrations of that user are written to disk only once a server has
accepted them: a guess then costs no disk."""
REPORTS_PER_MINUTE_MAX = 120
"""Reports of one user in a minute: a rack of a hundred listeners lost, and some."""
ALL_REPORTS_PER_MINUTE_MAX = 450
"""Reports of all users in a minute, and as many at once: a server accepts 1,000 of one host in a minute, and the rest
is for trusted users."""
DISTRUST_SECONDS = 600.0
"""Time after a refuted report in which the daemon probes before it believes that user, as long as a server remembers
one."""
USERS_MAX = 4096
"""Users counted one by one, more than a machine has; further ones count as the unknown user."""

T = TypeVar("T")
"""Type of an answer, of which a refusal is one."""


class _Bucket(msgspec.Struct):
    """Token bucket: `level` is what was taken and is not back yet at the time `at`."""

    level: float = 0.0
    at: float = 0.0

    def take(self, now: float, per_second: float, number: int = 1) -> float:
        """Take a number. Returns how much is taken now, these included."""
        self.level = max(0.0, self.level - (now - self.at) * per_second) + number
        self.at = now
        return self.level

    def put_back(self, number: int = 1) -> None:
        """Return what was not used."""
        self.level -= number


class _Usage(msgspec.Struct):
    connections: int = 0
    waiting: int = 0
    watches: int = 0
    requests: _Bucket = msgspec.field(default_factory=_Bucket)
    reports: _Bucket = msgspec.field(default_factory=_Bucket)
    guesses_until: float = 0.0
    distrusted_until: float = 0.0
    used_at: float = 0.0

    def is_idle(self, now: float) -> bool:
        """Return whether nothing of the user is left that has to be remembered."""
        until = max(self.guesses_until, self.distrusted_until, self.used_at + 60.0)
        return not (self.connections or self.waiting or self.watches) and until < now


class LocalUsers:
    """Limits of each user of this machine."""

    def __init__(
        self,
        clock: Clock,
        trusted: frozenset[int] = frozenset(),
        connections_max: int = CONNECTIONS_MAX,
        connections_per_user_max: int = CONNECTIONS_PER_USER_MAX,
    ) -> None:
        """`trusted`: users without limits of their own. `connections_max`: connections of all users at once."""
        self._clock = clock
        self._trusted = trusted
        self._connections_max = connections_max
        self._connections_per_user_max = connections_per_user_max
        self._connections = 0
        self._waiting = 0
        self._watches = 0
        self._reports = _Bucket()
        self._usage: dict[int, _Usage] = {}

    # Connections and requests -----------------------------------------------------------------------------

    def connect(self, user: int) -> int | None:
        """Count a connection of a user. Returns the user that it is counted for; None: there may not be one more."""
        if user not in self._usage and len(self._usage) >= USERS_MAX:
            self._forget_idle()
            user = user if len(self._usage) < USERS_MAX else UNKNOWN_USER
        usage, trusted = self._of(user), user in self._trusted
        if not trusted and usage.connections >= self._connections_per_user_max:
            return None
        # The last of all connections are kept for users that others cannot be.
        if self._connections >= self._connections_max - (0 if trusted else self._connections_max // 8):
            return None
        usage.connections += 1
        self._connections += 1
        return user

    def disconnect(self, user: int) -> None:
        """Uncount a connection."""
        self._of(user).connections -= 1
        self._connections -= 1

    def turn(self, user: int, number: int) -> float | None:
        """Count requests. Returns the seconds that they have to wait for their turn; None: they get no turn."""
        if user in self._trusted:
            return 0.0
        requests = self._of(user).requests
        beyond = requests.take(self._clock.seconds(), REQUESTS_PER_SECOND_MAX, number) - REQUESTS_BURST_MAX
        wait = max(0.0, beyond / REQUESTS_PER_SECOND_MAX)
        if wait > REQUESTS_BEHIND_SECONDS_MAX:
            requests.put_back(number)
            return None
        return wait

    # Requests to a server ---------------------------------------------------------------------------------

    def ask(self, user: int, request: Callable[[bool], Deferred[T]]) -> Deferred[T]:
        """Make a request that waits for a server, if the user may have one more. Returns its answer, or a refusal.

        `request` is called with whether a credential of the user was wrong within the last minute.
        """
        usage, trusted = self._usage.get(user) or self._of(user), user in self._trusted
        usage.used_at = self._clock.seconds()
        if not trusted and (usage.waiting >= WAITING_PER_USER_MAX or self._waiting >= WAITING_MAX):
            mine = usage.waiting >= WAITING_PER_USER_MAX
            text = f"{usage.waiting} requests of this user" if mine else f"{self._waiting} requests of this host"
            busy = Refusal("busy", f"{text} wait for a server, the most there can be", retry_after_seconds=1.0)
            return succeed(cast(T, busy))
        usage.waiting += 1
        self._waiting += not trusted

        def answered(result: Any) -> Any:
            usage.waiting -= 1
            self._waiting -= not trusted
            if isinstance(result, Refusal) and result.code == "bad-credential":
                usage.guesses_until = self._clock.seconds() + GUESS_SECONDS
            return result

        return request(usage.used_at < usage.guesses_until).addBoth(answered)

    def watch(self, user: int, begin: Callable[[], Callable[[], None] | Refusal]) -> Callable[[], None] | Refusal:
        """Begin a watch, if the user may have one more. Returns what ends it, or a refusal."""
        usage, trusted = self._of(user), user in self._trusted
        if not trusted and (usage.watches >= WATCHES_PER_USER_MAX or self._watches >= WATCHES_MAX):
            text = f"{usage.watches} programs of this user watch already; let one watch for several"
            return Refusal("busy", text, retry_after_seconds=1.0)
        begun = begin()
        if isinstance(begun, Refusal):
            return begun
        usage.watches += 1
        self._watches += not trusted

        def end() -> None:
            usage.watches -= 1
            self._watches -= not trusted
            begun()

        return end

    # Reports ----------------------------------------------------------------------------------------------

    def count_report(self, user: int) -> Refusal | None:
        """Count a report. Returns its refusal beyond the limit of the user, or that of all users together."""
        if user in self._trusted:
            return None
        now, reports = self._clock.seconds(), self._of(user).reports
        own = reports.take(now, REPORTS_PER_MINUTE_MAX / 60.0)
        if own > REPORTS_PER_MINUTE_MAX:
            reports.put_back()
            text = f"{REPORTS_PER_MINUTE_MAX} reports of one user within a minute are the most there can be"
            return Refusal("busy", text, retry_after_seconds=60.0 / REPORTS_PER_MINUTE_MAX)
        if self._reports.take(now, ALL_REPORTS_PER_MINUTE_MAX / 60.0) > ALL_REPORTS_PER_MINUTE_MAX:
            self._reports.put_back()
            reports.put_back()
            text = f"{ALL_REPORTS_PER_MINUTE_MAX} reports of this host within a minute are the most there can be"
            return Refusal("busy", text, retry_after_seconds=1.0)
        return None

    def refuted(self, user: int) -> None:
        """Record that a listener which the user's program reported is alive."""
        self._of(user).distrusted_until = self._clock.seconds() + DISTRUST_SECONDS

    def is_believed(self, user: int) -> bool:
        """Return whether no report of the user was refuted lately."""
        return self._clock.seconds() >= self._of(user).distrusted_until

    def _of(self, user: int) -> _Usage:
        usage = self._usage.get(user)
        if usage is None:
            usage = self._usage[user] = _Usage()
        usage.used_at = self._clock.seconds()
        return usage

    def _forget_idle(self) -> None:
        now = self._clock.seconds()
        self._usage = {user: usage for user, usage in self._usage.items() if not usage.is_idle(now)}

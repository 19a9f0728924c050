"""Rivals: two machines with the certificate of one host, such as a clone, or the holder of a stolen key.

A host has one watching session. Two daemons with one name would end each other's without a pause, each time with
commits. So the sessions of a host that replace each other are counted: from the third within a minute administrators
have an incident, the daemon that is put out is asked to wait, longer each time, and a daemon that comes before this
time is refused. One daemon that reconnects is no rival of itself: it says by `instance` that it is the same.
"""

from __future__ import annotations

import msgspec

from compass.model.backoff import doubled_seconds
from compass.model.interfaces import Clock
from compass.model.requests import Incident
from compass.model.rules.draft import Principal
from compass.server.commit.committer import Committer
from compass.system.timers import Timers

REPLACED_FREE_MAX = 2
"""Times within REPLACED_SECONDS that another daemon may replace a host's session without a pause: a machine that is
moved, and moved back."""
REPLACED_SECONDS = 60.0
"""Time after which a replaced session is forgotten, unless there was another one."""
RIVAL_SECONDS_MAX = 60.0
"""Longest pause between two sessions of rivals; the first is a second, then it doubles."""
RIVAL_QUIET_SECONDS = 300.0
"""Time without a rival after which the incident is over: several of the longest pauses, with what hosts add to them."""
HOSTS_COUNTED_MAX = 10_000
"""Hosts whose replaced sessions are counted; beyond that the one that was counted first is forgotten."""
INCIDENT = "failure two machines are "
"""Beginning of the id of an incident; the name of the host follows."""


class _Rivalry(msgspec.Struct):
    """Sessions of one host that replaced each other."""

    count: int = 0
    until: float = 0.0
    """Time of the clock before which no other daemon may replace the session."""


class HostRivals:
    """The hosts whose sessions replace each other."""

    def __init__(self, clock: Clock, committer: Committer, principal: Principal) -> None:
        self._clock = clock
        self._committer = committer
        self._principal = principal
        self._rivalries: dict[str, _Rivalry] = {}
        self._timers = Timers(clock)

    def start(self) -> None:
        """Let incidents of an earlier run end after a while, too."""
        for id in self._committer.catalogue.alerts:
            if id.startswith(INCIDENT):
                self._forget_later(id.removeprefix(INCIDENT), RIVAL_QUIET_SECONDS)

    def stop(self) -> None:
        """Stop all timers."""
        self._timers.cancel_all()

    def wait(self, host: str) -> float:
        """Return the seconds for which no other daemon may replace the session of a host; 0.0: it may now."""
        rivalry = self._rivalries.get(host)
        if rivalry is None or rivalry.until <= self._clock.seconds():
            return 0.0
        # Refused rivals keep the incident open.
        self._forget_later(host, RIVAL_QUIET_SECONDS)
        return rivalry.until - self._clock.seconds()

    def are_counted(self, host: str) -> bool:
        """Return whether another daemon has replaced the host's session within REPLACED_SECONDS."""
        return host in self._rivalries

    def replaced(self, host: str, old: str, new: str) -> float:
        """Count a session that another daemon replaced; `old` and `new` are the addresses that the two came from.

        Returns the seconds for which the daemon that is put out has to wait.
        """
        rivalry = self._rivalries.setdefault(host, _Rivalry())
        rivalry.count += 1
        if len(self._rivalries) > HOSTS_COUNTED_MAX:
            self._forget(next(iter(self._rivalries)))
        beyond = rivalry.count - REPLACED_FREE_MAX
        self._forget_later(host, REPLACED_SECONDS if beyond <= 0 else RIVAL_QUIET_SECONDS)
        if beyond <= 0:
            return 0.0
        pause = doubled_seconds(beyond - 1, 1.0, RIVAL_SECONDS_MAX)
        rivalry.until = self._clock.seconds() + pause
        if beyond == 1:
            self._open(host, old, new)
        return pause

    def _open(self, host: str, old: str, new: str) -> None:
        text = (
            f"two machines are {host}: daemons at {old} and {new} have the same certificate and end each other's "
            f"session; stop one of them, or issue a certificate with another name; if the key may be stolen, bar {host}"
        )
        if INCIDENT + host not in self._committer.catalogue.alerts:
            self._committer.submit(Incident(INCIDENT + host, text), self._principal)

    def _forget_later(self, host: str, seconds: float) -> None:
        self._timers.start(host, seconds, self._forget, host)

    def _forget(self, host: str) -> None:
        self._timers.cancel(host)
        self._rivalries.pop(host, None)
        if INCIDENT + host in self._committer.catalogue.alerts:
            self._committer.submit(Incident(INCIDENT + host), self._principal)

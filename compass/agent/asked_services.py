"""Services that programs asked for while no server could say whether they exist: a server is asked on the next session.

Only what exists is watched for, so that an invented name changes nothing outside this host; a program that asks once,
before the first session, is served later nevertheless.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from compass.agent.replica.sync import ReplicaSync
from compass.agent.replica.wanted_services import WantedServices
from compass.agent.upstream.refusals import TRANSIENT
from compass.agent.upstream.upstream import Upstream
from compass.model.interfaces import Clock
from compass.model.replies import Dependencies, Refusal, Reply
from compass.model.requests import Pull
from compass.system.timers import Timers

RETRY_SECONDS = 1.0
"""Pause after a server could not answer; the least, if it names one."""


class AskedServices:
    """Services to ask a server about, each with the users who asked; their number is bounded like that of the watched
    ones."""

    def __init__(self, clock: Clock, upstream: Upstream, sync: ReplicaSync, trusted: frozenset[int]) -> None:
        """`trusted`: users who may have all places."""
        self._upstream = upstream
        self._sync = sync
        self._asked = WantedServices(_NothingRegistered(), trusted=trusted)
        self._timers = Timers(clock)
        self._asking = self._has_session = False

    def __len__(self) -> int:
        return len(self._asked)

    def add(self, service: str, user: int) -> None:
        """Remember a service; the user's oldest one gives way if there are too many."""
        self._asked.add(service, user)
        if self._has_session:
            self._timers.start_if_idle("retry", RETRY_SECONDS, self._ask)

    def stop(self) -> None:
        """Stop asking."""
        self._has_session = False
        self._timers.cancel_all()

    def session_settled(self) -> None:
        """Ask about all services, one after the other."""
        self._has_session = True
        self._ask()

    def session_ended(self) -> None:
        """Wait for the next session."""
        self.stop()

    def _ask(self) -> None:
        if self._asking or not self._has_session:
            return
        if not len(self._asked):
            self._sync.watch_added()
            return
        self._asking = True
        service = self._asked.all[0]
        reply: Deferred[Reply] = self._upstream.ask(Pull(service))
        reply.addCallback(self._answered, service)

    def _answered(self, reply: Reply, service: str) -> None:
        self._asking = False
        if isinstance(reply, Refusal) and reply.code in TRANSIENT:
            if self._has_session:
                self._timers.start("retry", max(RETRY_SECONDS, reply.retry_after_seconds), self._ask)
            return
        askers = self._asked.askers(service)
        self._asked.forget([service])
        for user in askers if isinstance(reply, Dependencies) else ():
            self._sync.add(service, user)
        self._ask()


class _NothingRegistered:
    def services(self) -> frozenset[str]:
        """Return nothing: no service is kept for its registration."""
        return frozenset()

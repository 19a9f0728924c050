"""Checks of reports: this host's own probes of the listeners that its programs report.

A probe costs a connection and takes up to the timeout of the category's policy. So each listener has one at a time,
whichever users reported it, and each user has a bounded number of them.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred, succeed

from compass.agent.local_users import LocalUsers
from compass.agent.registration.probe_responder import Probe
from compass.agent.replica.replica import Replica
from compass.model.names import category_of
from compass.model.rows import Listener, ListenerKey, Policy

CHECKS_PER_USER_MAX = 8
"""Probes under way for one user's reports: a program tries the listeners of a service one after the other."""
CHECKS_MAX = 64
"""Probes under way for all reports, as many as a server has: each is a connection."""


class ReportChecks:
    """Probes under way, by listener."""

    def __init__(self, replica: Replica, probe: Probe | None, users: LocalUsers) -> None:
        """`probe` None: this host does not probe, and believes every report."""
        self.users = users
        self._replica = replica
        self._probe = probe
        self._waiting: dict[ListenerKey, list[Deferred[str | None]]] = {}
        self._by_user = Counter[int]()

    @property
    def can_probe(self) -> bool:
        """Flag: this host probes."""
        return self._probe is not None

    def check(self, row: Listener, user: int) -> Deferred[str | None]:
        """Probe a listener. Returns an empty string or why it does not serve; None: there are too many probes."""
        key = (row.service, row.address, row.port)
        found: Deferred[str | None] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(found)
            return found
        if self._probe is None or len(self._waiting) >= CHECKS_MAX or self._by_user[user] >= CHECKS_PER_USER_MAX:
            return succeed(None)
        self._waiting[key] = [found]
        self._by_user[user] += 1
        category = self._replica.catalogue.categories.get(category_of(row.service))
        asked = self._probe(category.policy if category is not None else Policy(), row.address, row.port)
        asked.addErrback(lambda failure: None).addCallback(self._probed, key, user)
        return found

    def _probed(self, problem: str | None, key: ListenerKey, user: int) -> None:
        self._by_user[user] -= 1
        if not self._by_user[user]:
            del self._by_user[user]
        for found in self._waiting.pop(key):
            found.callback(problem)

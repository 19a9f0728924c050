"""Incidents about hosts without a session and servers that fell silent: what died opens no incident itself.

A host's listeners may be alive without its daemon. The server that owns a host opens the incident some time after the
host was lost, and closes it when the host is back, or when an administrator has removed or barred it.
"""

from __future__ import annotations

from collections.abc import Iterable

from compass.model.cluster import ClusterView
from compass.model.interfaces import Clock
from compass.model.requests import Incident
from compass.model.rows import Host
from compass.model.rules.draft import Principal
from compass.server.commit.committer import Committer
from compass.system.timers import Timers

GRACE_SECONDS = 60.0
"""Time without a session after which this is an incident, also after the start of a server: twice the longest pause of
a daemon between two attempts, and more than a daemon's restart or an upgrade takes."""
CHECK_SECONDS = 5.0
"""Interval between checks. One passes all hosts, a microsecond each."""
NAMED_MAX = 100
"""Open incidents about single hosts; the others share one: a switch that fails is one message, not thousands."""
_PREFIX = "failure session of host "
_SERVER_PREFIX = "failure silence of server "
_OTHERS = "failure sessions of other hosts"


class LostHosts:
    """Opens and closes the incidents."""

    def __init__(self, clock: Clock, committer: Committer, cluster: ClusterView, principal: Principal) -> None:
        self._clock = clock
        self._committer = committer
        self._cluster = cluster
        self._principal = principal
        self._since: dict[str, float] = {}
        """Time on the clock at which this server found each lost host without a session."""
        self._began = 0.0
        self._timers = Timers(clock)

    def start(self) -> None:
        """Begin the checks."""
        self._began = self._clock.seconds()
        self._timers.start("check", CHECK_SECONDS, self._check)

    def stop(self) -> None:
        """Stop the checks."""
        self._timers.cancel_all()

    def __len__(self) -> int:
        """Return the number of hosts that had a session and have none now, at any server."""
        return sum(1 for _ in self._lost(self._committer.catalogue.hosts.values()))

    def _lost(self, hosts: Iterable[Host]) -> Iterable[Host]:
        return (row for row in hosts if not row.barred and self._cluster.has_lost(row.name))

    def _check(self) -> None:
        self._timers.start("check", CHECK_SECONDS, self._check)
        now, catalogue = self._clock.seconds(), self._committer.catalogue
        lost = {row.name for row in self._lost(catalogue.hosts.values())}
        self._since = {host: self._since.get(host, now) for host in lost}
        open_now = {id for id in catalogue.alerts if id.startswith(_PREFIX)}
        for id in open_now:
            host = id.removeprefix(_PREFIX)
            if host not in lost and self._cluster.owns_host(host) and self._is_settled(host, now):
                self._committer.submit(Incident(id), self._principal)
        due = [
            host
            for host, since in sorted(self._since.items())
            if now - since >= GRACE_SECONDS and _PREFIX + host not in open_now and self._cluster.owns_host(host)
        ]
        room = max(0, NAMED_MAX - len(open_now)) if len(due) < 2 or self._is_any_present() else 0
        for host in due[:room]:
            self._committer.submit(Incident(_PREFIX + host, self._text(host)), self._principal)
        self._settle_others(due[room:], lost)
        self._settle_servers()

    def _settle_servers(self) -> None:
        """Open an incident for each server that has fallen silent, and close those of servers that are back, or whose
        last heartbeat has been removed from the store after a day."""
        cluster, alerts = self._cluster, self._committer.catalogue.alerts
        silent = set(cluster.silent().values())
        for id in [id for id in alerts if id.startswith(_SERVER_PREFIX)]:
            name = id.removeprefix(_SERVER_PREFIX)
            if name not in silent and cluster.owns_server(name):
                self._committer.submit(Incident(id), self._principal)
        for name in sorted(silent):
            if _SERVER_PREFIX + name not in alerts and cluster.owns_server(name):
                text = (
                    f"server {name} has sent no heartbeat for some seconds: its process, its machine or its way to the "
                    "store has failed. Its hosts go to other servers that they know. Since when: opengnsadmin status"
                )
                self._committer.submit(Incident(_SERVER_PREFIX + name, text), self._principal)

    def _is_settled(self, host: str, now: float) -> bool:
        """Return whether it is known that a host is no longer lost: a server that has just started knows of none."""
        row = self._committer.catalogue.hosts.get(host)
        known = row is None or row.barred or self._cluster.where(host) is not None
        return known or now - self._began >= GRACE_SECONDS

    def _is_any_present(self) -> bool:
        """Return whether any host has a session: if none has, the servers are cut off rather than each host."""
        cluster = self._cluster
        entries = map(cluster.where, self._committer.catalogue.hosts)
        return any(one is not None and one.state == "here" and cluster.is_alive(one.server) for one in entries)

    def _settle_others(self, beyond: list[str], lost: set[str]) -> None:
        is_open = _OTHERS in self._committer.catalogue.alerts
        if beyond and not is_open:
            many = f"more than {NAMED_MAX} hosts are without" if self._is_any_present() else "all hosts are without"
            text = (
                f"{many} a session with a server; {beyond[0]} has lost it. A network or the servers rather than "
                "machines? 'opengnsadmin lag' shows all of them"
            )
            self._committer.submit(Incident(_OTHERS, text), self._principal)
        elif is_open and not beyond and len(lost) <= NAMED_MAX:
            self._committer.submit(Incident(_OTHERS), self._principal)

    def _text(self, host: str) -> str:
        return (
            f"host {host} has no session with a server: its opengnscd, its machine or the network has failed. Its "
            "listeners are probed, its programs look up what the daemon knew last. If it is out of service for good: "
            f"opengnsadmin host remove {host}"
        )

"""Cluster: which servers serve a store, which of them has the session of a host, and which owns what.

These facts are volatile and not rows of the catalogue: they have no revision and no notice, and losing them loses
nothing. Each server writes its own heartbeat periodically and reads those of the others. Servers do not compare clocks:
a server is silent when its heartbeat has not changed for `SILENT_BEATS` of the reader's own beats. So an outage of the
store or of the reader for a minute makes no server silent.

Work that must be done once and not once per server is done by the owner, which every server computes by the same rule:
the server that has a host's session, or had it last, owns the host and the listeners that the host registered. If that
server is silent, or cannot judge others, rendezvous hashing chooses one that can. So there is no election, and when
a server ends, only its own subjects get another owner. Two servers whose views differ for a moment may both act; the
rules of the catalogue decide both results, and the second one changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec

from compass.model.replies import HostLag
from compass.model.rows import Change, Listener

SILENT_BEATS = 5
"""Own heartbeats without a heartbeat of another server, after which that server is silent. With a second between two,
this is longer than a busy machine, a garbage collection or a migrated virtual machine pauses, and short for people."""
REPLACED_BEATS = 2
"""Own heartbeats without one of a server whose name has a later run, after which that server is known to be replaced.
Two servers that have one name by mistake both send, and both are shown."""
BEHIND_MAX = 1_000
"""Most hosts whose lag a heartbeat lists: 50 kB. The others are left out."""

Where = Literal["here", "left", "lost"]
"""State of a host's session at the server of the entry. here: open. left: ended by the host, which the server can
dial. lost: the connection was lost."""
Role = Literal["keeper", "bystander", "silent"]
"""Role of a server. keeper: owns hosts and incidents. bystander: serves, but has no session of a host, or distrusts its
own probes, and so owns nothing while another server can. silent: has sent no heartbeat lately."""


class Heartbeat(msgspec.Struct, frozen=True):
    """Heartbeat of a server: its own state."""

    id: str
    """Identity of this run of the server: a server that is restarted has another one."""
    name: str
    software: str
    started_at: float
    """UNIX time, by its own clock."""
    revision: int
    """Revision that the server has applied."""
    sessions: int
    watching: int
    able: bool
    """True if the server has hosts and trusts its own probes, so that it can judge others."""
    held: int
    """Revision up to which all of its hosts are complete, except those in `behind`. -1: more than BEHIND_MAX hosts
    lag."""
    behind: tuple[HostLag, ...] = ()
    ways: tuple[str, ...] = ()
    """Names of the channels by which the server can notify administrators."""


class Presence(msgspec.Struct, frozen=True):
    """Presence of a host: the server that has its session, or had it last."""

    host: str
    server: str
    state: Where
    held: int = 0
    """Revision that the host had acknowledged when the session ended."""


class HostSession(msgspec.Struct, frozen=True):
    """Session of a host, or its end."""

    host: str
    state: Literal["open", "left", "lost"]
    """`left`: the host ended its session, and servers can connect to it."""
    server: str
    """Server that has the session or had it last; empty: unknown."""
    since: float
    """UNIX time as in `HostLag`."""
    origin: str = ""
    """Address that it comes from; empty: unknown, as of a host at another server."""
    software: str = ""
    """Software of the host daemon, as it says; empty: unknown, likewise."""


class HostSessions(msgspec.Struct, frozen=True):
    """Sessions of hosts: all that a server knows, or those that have changed."""

    view: int
    """Number of the view, which this run of this server counts: one more than before with each change."""
    hosts: tuple[HostSession, ...]
    complete: bool = False
    """True if these are all; the first message of a stream."""


class PeerState(msgspec.Struct, frozen=True):
    """State of a server: its heartbeat, and how old this is."""

    line: Heartbeat
    beat: int
    entry: int
    """Number of its newest presence entry."""
    silent_seconds: float
    """Seconds since the last heartbeat by the database's clock, for people."""


class HeartbeatResult(msgspec.Struct, frozen=True):
    """Result of a heartbeat: all servers' heartbeats, and the presence entries that are new to this server."""

    lines: tuple[PeerState, ...]
    presences: tuple[Presence, ...]


class ClusterStore(Protocol):
    """Cluster's part of a store: heartbeats, presence, progress of alerts."""

    def beat(self, line: Heartbeat, presences: Iterable[Presence]) -> HeartbeatResult:
        """Write this server's heartbeat and new presence entries, and read those of the others. Raises
        StoreUnavailable.

        An entry `left` or `lost` is ignored if another server has the host's session.
        """

    def leave(self, id: str) -> None:
        """Remove a server that ends, with its presence entries. Raises StoreUnavailable."""

    def alert_progress(self, way: str) -> int | None:
        """Return the revision up to which a channel has delivered everything, or None if it is unknown. Raises
        StoreUnavailable."""

    def incidents_after(self, revision: int, limit: int) -> tuple[list[Change], int]:
        """Return the changes after `revision` by which an incident began or ended, in order and at most `limit`, and
        the update log's floor: incidents before the floor are not sent. Raises StoreUnavailable."""

    def record_alert_progress(self, way: str, revision: int) -> None:
        """Write the progress of a channel. A crash of the database may undo this; then a message is sent twice. Raises
        StoreUnavailable."""


class MembershipChange(msgspec.Struct, frozen=True):
    """Difference between two results of a heartbeat."""

    regroup: bool
    """True if the set of servers that can judge has changed, so that ownership must be computed again."""
    silenced: bool
    """True if a server became silent or left: hosts may be without a server."""
    moved: tuple[Presence, ...]
    """New entries of other servers."""


class ClusterView:
    """View of the cluster that one server has."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.can_judge = False
        """True if this server can judge others, as its failure detector reports."""
        self.peers: dict[str, PeerState] = {}
        self._missed: dict[str, int] = {}
        """Own beats since the last beat of each other server."""
        self._where: dict[str, Presence] = {}
        self._able: tuple[str, ...] = (id,)

    def update(self, roll: HeartbeatResult, *, beat: bool) -> MembershipChange:
        """Apply the result of a heartbeat; `beat`: of a regular one, not of one in between."""
        before, living = self._able, self._living()
        lines = {one.line.id: one for one in roll.lines}
        for id in lines.keys() - {self.id}:
            known = self.peers.get(id)
            moved = known is None or known.beat != lines[id].beat
            self._missed[id] = 0 if moved else self._missed[id] + beat
        self.peers = lines
        self._missed = {id: missed for id, missed in self._missed.items() if id in lines}
        now = self._living()
        able = [id for id in now if (self.can_judge if id == self.id else lines[id].line.able)]
        self._able = tuple(able or now)
        entries = [one for one in roll.presences if one.server != self.id]
        for one in entries:
            self._where[one.host] = one
        return MembershipChange((before, living) != (self._able, now), bool(set(living) - set(now)), tuple(entries))

    def host_connected(self, host: str) -> Presence:
        """Record that a host's session is here. Returns the presence entry to write."""
        self._where[host] = entry = Presence(host, self.id, "here")
        return entry

    def host_disconnected(self, host: str, state: Where, held: int) -> Presence | None:
        """Mark the host's session here as ended. Returns the presence entry to write, or None if another server already
        has the host."""
        known = self._where.get(host)
        if known is None or known.server != self.id:
            return None
        self._where[host] = entry = Presence(host, self.id, state, held)
        return entry

    def host_lost(self, host: str) -> Presence:
        """Record that a host which never watched has lost its session here. Returns the presence entry to write."""
        self._where[host] = entry = Presence(host, self.id, "lost")
        return entry

    def where(self, host: str) -> Presence | None:
        """Return the last known presence of a host."""
        return self._where.get(host)

    def lost(self) -> list[str]:
        """Return the hosts whose session was lost, at any server, and that have not reconnected."""
        return sorted(host for host, entry in self._where.items() if entry.state == "lost")

    def has_lost(self, host: str) -> bool:
        """Return whether a host had a session and has none now: it was lost, or its server is silent."""
        entry = self._where.get(host)
        if entry is None or entry.state == "left":
            return False
        return entry.state == "lost" or not self.is_alive(entry.server)

    def present_elsewhere(self, host: str) -> bool:
        """Return whether another living server has the host's session."""
        entry = self._where.get(host)
        return entry is not None and entry.state == "here" and entry.server != self.id and self.is_alive(entry.server)

    def is_alive(self, id: str) -> bool:
        """Return whether a server has sent a heartbeat lately."""
        return id == self.id or self._missed.get(id, SILENT_BEATS) < SILENT_BEATS

    def owns_host(self, host: str) -> bool:
        """Return whether this server owns a host."""
        entry = self._where.get(host)
        if entry is not None and entry.server in self._able:
            return entry.server == self.id
        return rendezvous(host, self._able) == self.id

    def owns(self, row: Listener) -> bool:
        """Return whether this server owns a listener: it owns the listener's host; a listener without a host is
        assigned by its address."""
        if row.host:
            return self.owns_host(row.host)
        return rendezvous(f"{row.service} {row.address} {row.port}", self._able) == self.id

    @property
    def is_alone(self) -> bool:
        """Return whether no other server has sent a heartbeat lately."""
        return self._living() == (self.id,)

    def silent(self) -> dict[str, str]:
        """Return the servers that have fallen silent and have not been started again: their names by their ids."""
        return {
            id: peer.line.name
            for id, peer in self.peers.items()
            if not self.is_alive(id) and not self.has_successor(id)
        }

    def owns_server(self, name: str) -> bool:
        """Return whether this server reports that another one is silent."""
        return rendezvous(f"server {name}", self._able) == self.id

    def others(self, name: str) -> tuple[str, ...]:
        """Return the names of the other servers that have sent a heartbeat lately. Workers of one server share its name
        and its port: they are none."""
        named = {self.peers[id].line.name.partition("#")[0] for id in self._living() if id in self.peers}
        return tuple(sorted(named - {name.partition("#")[0]}))

    def has_successor(self, id: str) -> bool:
        """Return whether a server was started again since it sent its last heartbeat: its name has a later run."""
        line = self.peers[id].line
        later = (one.line for one in self.peers.values() if one.line.name == line.name)
        return self._missed.get(id, 0) >= REPLACED_BEATS and any(one.started_at > line.started_at for one in later)

    def notifier_of(self, way: str) -> str:
        """Return the id of the server that sends by a channel: one of those that have the channel, or this one if none
        has."""
        able = [id for id in self._living() if id == self.id or way in self.peers[id].line.ways]
        return rendezvous(f"way {way}", able)

    def role(self, id: str) -> Role:
        if not self.is_alive(id):
            return "silent"
        return "keeper" if id in self._able else "bystander"

    def lag_of(self, host: str) -> HostLag | None:
        """Return the lag of a host of another server as that server reported it, or None if nothing is known or the
        host has no session there.

        The lag of a host of a silent server is that of the server's last heartbeat.
        """
        entry = self._where.get(host)
        peer = self.peers.get(entry.server) if entry is not None and entry.state == "here" else None
        if entry is None or peer is None:
            return None
        line, lives = peer.line, self.is_alive(entry.server)
        for one in line.behind:
            if one.host == host:
                status = one.status if lives else "unknown"
                return msgspec.structs.replace(one, session=lives, status=status, server=line.name)
        status = "ok" if lives and line.held >= 0 else "unknown"
        return HostLag(host, lives, max(line.held, 0), 0, status, line.name)

    def _living(self) -> tuple[str, ...]:
        return tuple(sorted({self.id, *(id for id in self.peers if self.is_alive(id))}))


def rendezvous(subject: str, servers: Iterable[str]) -> str:
    """Return the server to which a subject is assigned: when a server ends, only its own subjects move (HRW hashing,
    Thaler and Ravishankar 1998)."""
    able = tuple(servers)
    if len(able) == 1:
        return able[0]
    return max(able, key=lambda id: hashlib.blake2b(f"{id} {subject}".encode(), digest_size=8).digest())

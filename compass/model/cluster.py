"""Cluster: which servers serve a store, which of them has the session of a host, and which owns what.

These are facts of the moment, not rows of the catalogue: no revision, no notice, nothing lost with them. Each server
writes its own heartbeat again and again and reads those of the others. None trusts another's clock: a server is silent
when its line has not moved for `SILENT_BEATS` of the reader's own beats, so an outage of the store or of the reader for
a minute makes no server look dead.

What must be done once and not once per server is done by the keeper, which every server finds by the same rule: the
server that has a host's session, or had it last, keeps the host and the listeners that it registered; when that one is
silent, or cannot judge others, rendezvous hashing names one of those that can. So nobody is elected, and when a server
goes only what it kept changes hands. Two servers whose views differ for a moment may both act; what they find is
committed by the rules of the catalogue, where the second changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec

from compass.model.replies import HostLag
from compass.model.rows import Change, Listener

SILENT_BEATS = 5
"""Own heartbeats without one of another server, after which that server is silent: with a second between two, longer
than a busy machine, a garbage collection or a moved virtual machine takes, and short for people."""
BEHIND_MAX = 1_000
"""Hosts of a server whose lag each heartbeat lists: 50 kB. With more, the others are left out."""

Where = Literal["here", "left", "lost"]
"""State of a host's session at the server of the entry. here: it is open there. left: the host said goodbye and can be
dialled. lost: it was lost there."""
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
    """All of its hosts hold everything up to this revision, but for those in `behind`; -1: there are too many."""
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


class PeerState(msgspec.Struct, frozen=True):
    """A server's line as it was read."""

    line: Heartbeat
    beat: int
    entry: int
    """The number of its newest entry among the presences."""
    silent_seconds: float
    """Seconds since the last heartbeat by the database's clock, for people."""


class HeartbeatResult(msgspec.Struct, frozen=True):
    """Result of a heartbeat: all servers' heartbeats, and the presence entries that are new to this server."""

    lines: tuple[PeerState, ...]
    presences: tuple[Presence, ...]


class ClusterStore(Protocol):
    """Cluster's part of a store: heartbeats, presence, progress of alerts."""

    def beat(self, line: Heartbeat, presences: Iterable[Presence]) -> HeartbeatResult:
        """Write this server's line and its new entries, and read the others'. Raises StoreUnavailable.

        An entry `left` or `lost` counts only while no other server has taken the host over.
        """

    def leave(self, id: str) -> None:
        """This server ends: it is taken out, with its entries."""

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
    """Difference between two readings of the heartbeats."""

    regroup: bool
    """True if the set of servers that can judge has changed, so that ownership must be computed again."""
    silenced: bool
    """True if a server fell silent or left: hosts may be without a server."""
    moved: tuple[Presence, ...]
    """New entries of other servers."""


class ClusterView:
    """View of the cluster that one server has."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.can_judge = False
        """True if this server can judge others, as its failure detector reports."""
        self.heard: dict[str, PeerState] = {}
        self._missed: dict[str, int] = {}
        """Beats of our own since the last one of each other server."""
        self._where: dict[str, Presence] = {}
        self._able: tuple[str, ...] = (id,)

    def update(self, roll: HeartbeatResult, *, beat: bool) -> MembershipChange:
        """Take in what was read; `beat`: with a regular beat, not in between."""
        before, living = self._able, self._living()
        lines = {one.line.id: one for one in roll.lines}
        for id in lines.keys() - {self.id}:
            known = self.heard.get(id)
            moved = known is None or known.beat != lines[id].beat
            self._missed[id] = 0 if moved else self._missed[id] + beat
        self.heard = lines
        self._missed = {id: missed for id, missed in self._missed.items() if id in lines}
        now = self._living()
        able = [id for id in now if (self.can_judge if id == self.id else lines[id].line.able)]
        self._able = tuple(able or now)
        entries = [one for one in roll.presences if one.server != self.id]
        for one in entries:
            self._where[one.host] = one
        return MembershipChange((before, living) != (self._able, now), bool(set(living) - set(now)), tuple(entries))

    def host_connected(self, host: str) -> Presence:
        """A host's session is here; the entry to write."""
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

    def where(self, host: str) -> Presence | None:
        """The last that is known of a host."""
        return self._where.get(host)

    def lost(self) -> list[str]:
        """Hosts whose session was lost, at whichever server, and that have not come back."""
        return sorted(host for host, entry in self._where.items() if entry.state == "lost")

    def present_elsewhere(self, host: str) -> bool:
        """Return whether another living server has the host's session."""
        entry = self._where.get(host)
        return entry is not None and entry.state == "here" and entry.server != self.id and self.lives(entry.server)

    def lives(self, id: str) -> bool:
        """Return whether a server has sent a heartbeat lately."""
        return id == self.id or self._missed.get(id, SILENT_BEATS) < SILENT_BEATS

    def keeps_host(self, host: str) -> bool:
        """Return whether this server owns a host."""
        entry = self._where.get(host)
        if entry is not None and entry.server in self._able:
            return entry.server == self.id
        return rendezvous(host, self._able) == self.id

    def owns(self, row: Listener) -> bool:
        """Return whether this server owns a listener: it owns the listener's host; a listener without one is assigned
        by its address."""
        if row.host:
            return self.keeps_host(row.host)
        return rendezvous(f"{row.service} {row.address} {row.port}", self._able) == self.id

    @property
    def is_alone(self) -> bool:
        """Return whether no other server has sent a heartbeat lately."""
        return self._living() == (self.id,)

    def notifier_of(self, way: str) -> str:
        """Return the id of the server that sends by a channel: one of those that have it, or this one if there is
        none."""
        able = [id for id in self._living() if id == self.id or way in self.heard[id].line.ways]
        return rendezvous(f"way {way}", able)

    def role(self, id: str) -> Role:
        """Return the role of a server."""
        if not self.lives(id):
            return "silent"
        return "keeper" if id in self._able else "bystander"

    def lag_of(self, host: str) -> HostLag | None:
        """Return the lag of a host of another server as that server reported it, or None if nothing is known or the
        host has no session there.

        For a server that is silent now: what the host held when it was not.
        """
        entry = self._where.get(host)
        told = self.heard.get(entry.server) if entry is not None and entry.state == "here" else None
        if entry is None or told is None:
            return None
        line, lives = told.line, self.lives(entry.server)
        for one in line.behind:
            if one.host == host:
                status = one.status if lives else "unknown"
                return msgspec.structs.replace(one, session=lives, status=status, server=line.name)
        status = "ok" if lives and line.held >= 0 else "unknown"
        return HostLag(host, lives, max(line.held, 0), 0, status, line.name)

    def _living(self) -> tuple[str, ...]:
        return tuple(sorted({self.id, *(id for id in self.heard if self.lives(id))}))


def rendezvous(subject: str, servers: Iterable[str]) -> str:
    """The one of these servers that a subject falls to: when one of them goes, only its own subjects move (HRW
    hashing, Thaler and Ravishankar 1998)."""
    able = tuple(servers)
    if len(able) == 1:
        return able[0]
    return max(able, key=lambda id: hashlib.blake2b(f"{id} {subject}".encode(), digest_size=8).digest())

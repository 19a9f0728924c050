"""The roster: which servers serve a store, whose session is at which of them, and who looks after what.

These are facts of the moment, not rows of the catalogue: no revision, no notice, nothing lost with them. Each server
writes its own line again and again (a beat) and reads those of the others. None trusts another's clock: a server is
silent when its line has not moved for `SILENT_BEATS` of the reader's own beats, so a store that was away for a minute,
or a reader that was, makes nobody look dead.

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
"""Own beats without a beat of another server, after which it is silent: of beats a second apart, longer than a busy
machine, a collection of garbage or a moved virtual machine takes, and short beside what people notice."""
BEHIND_MAX = 1_000
"""Hosts of a server whose lag is told one by one with each beat: 50 kB. With more, nothing is said of the others."""

Where = Literal["here", "left", "lost"]
"""Of a host and the server of the entry. here: its session is there. left: it said goodbye there and can be dialled.
lost: its session was lost there."""
Role = Literal["keeper", "bystander", "silent"]
"""Of a server. keeper: looks after hosts and incidents. bystander: serves, but has no host's session, or does not
believe its own probes, and so looks after nothing while another can. silent: has not been heard of."""


class Heartbeat(msgspec.Struct, frozen=True):
    """What a server says of itself with each beat."""

    id: str
    """Of this run of it: a server that is started again is another one."""
    name: str
    software: str
    started_at: float
    """UNIX time, by its own clock."""
    revision: int
    """What it has applied."""
    sessions: int
    watching: int
    able: bool
    """It has hosts and believes its own probes: it can judge others."""
    held: int
    """All of its hosts hold everything up to this revision, but for those in `behind`; -1: there are too many."""
    behind: tuple[HostLag, ...] = ()
    ways: tuple[str, ...] = ()
    """By which it can tell administrators."""


class Presence(msgspec.Struct, frozen=True):
    """Where a host's session is or was last."""

    host: str
    server: str
    state: Where
    held: int = 0
    """What the host had acknowledged when the session ended."""


class PeerState(msgspec.Struct, frozen=True):
    """A server's line as it was read."""

    line: Heartbeat
    beat: int
    entry: int
    """The number of its newest entry among the presences."""
    silent_seconds: float
    """Since its last beat, by the database's clock: for people."""


class HeartbeatResult(msgspec.Struct, frozen=True):
    """What a beat brings: all lines, and the entries that are new to this reader."""

    lines: tuple[PeerState, ...]
    presences: tuple[Presence, ...]


class ClusterStore(Protocol):
    """Where the servers of a store write themselves down; a part of the store."""

    def beat(self, line: Heartbeat, presences: Iterable[Presence]) -> HeartbeatResult:
        """Write this server's line and its new entries, and read the others'. Raises StoreUnavailable.

        An entry `left` or `lost` counts only while no other server has taken the host over.
        """

    def leave(self, id: str) -> None:
        """This server ends: it is taken out, with its entries."""

    def alert_progress(self, way: str) -> int | None:
        """The revision up to which all has been told by a way; None: nothing is known. Raises StoreUnavailable."""

    def incidents_after(self, revision: int, limit: int) -> tuple[list[Change], int]:
        """Of the changes after `revision` the first so many by which an incident began or ended, in order, and the
        update log's floor: nothing is told of what was before that. Raises StoreUnavailable."""

    def record_alert_progress(self, way: str, revision: int) -> None:
        """Write that down. A crash of the database may take it back: then something is told twice. Raises
        StoreUnavailable."""


class MembershipChange(msgspec.Struct, frozen=True):
    """What was different on the roll."""

    regroup: bool
    """Servers came, fell silent, or can judge now or no more: what each looks after has to be seen anew."""
    silenced: bool
    """One fell silent or left: hosts may be without a server."""
    moved: tuple[Presence, ...]
    """New entries of other servers."""


class ClusterView:
    """What one server knows of the others."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.can_judge = False
        """Whether this server can judge others; the desk says so."""
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
        """It is not any more; the entry to write, or None when the host is somewhere else already."""
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
        """Whether a living server but this one has the host's session."""
        entry = self._where.get(host)
        return entry is not None and entry.state == "here" and entry.server != self.id and self.lives(entry.server)

    def lives(self, id: str) -> bool:
        """Whether a server has been heard of lately."""
        return id == self.id or self._missed.get(id, SILENT_BEATS) < SILENT_BEATS

    def keeps_host(self, host: str) -> bool:
        """Whether this server keeps a host."""
        entry = self._where.get(host)
        if entry is not None and entry.server in self._able:
            return entry.server == self.id
        return rendezvous(host, self._able) == self.id

    def owns(self, row: Listener) -> bool:
        """Whether this server looks after a listener: it keeps its host; one that has none is kept by its address."""
        if row.host:
            return self.keeps_host(row.host)
        return rendezvous(f"{row.service} {row.address} {row.port}", self._able) == self.id

    @property
    def is_alone(self) -> bool:
        """Whether no other server has been heard of lately."""
        return self._living() == (self.id,)

    def notifier_of(self, way: str) -> str:
        """The id of the server that tells administrators by a way: one of those that can; this one if there is none."""
        able = [id for id in self._living() if id == self.id or way in self.heard[id].line.ways]
        return rendezvous(f"way {way}", able)

    def role(self, id: str) -> Role:
        """What part a server plays."""
        if not self.lives(id):
            return "silent"
        return "keeper" if id in self._able else "bystander"

    def lag_of(self, host: str) -> HostLag | None:
        """How far a host of another server is, as that said; None: nothing is known, or it has no session there.

        Of a server that is silent now: what the host held when it was not.
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

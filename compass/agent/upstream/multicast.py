"""Servers that announce themselves by multicast, in bounded memory.

Anyone on the network can send an announcement. So an announcement only proposes an address: the peer there must prove
the name and be a server. The number of proposals is bounded, in all and from each sender; one that was tried and led to
no server makes room for a new one, one that worked does not; and of a flood of datagrams a hundred a second are read.
"""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from compass.agent.upstream.server_selector import (
    ANNOUNCED_RANK,
    Candidate,
    CandidateSink,
    ServerAddress,
    ServerSelector,
)
from compass.model.interfaces import Clock
from compass.model.names import InvalidAddress, parse_address
from compass.system.timers import Timers
from compass.wire.announcement import Announcement, NotAnnouncement, decode

ORIGIN = "announcements"
DATAGRAMS_PER_SECOND_MAX = 100
"""Read in one second; further ones are dropped unread. A network has a few servers, each heard every ten seconds."""
PROPOSALS_MAX = 32
"""Proposals kept: some servers with some addresses each."""
PROPOSALS_PER_SENDER_MAX = 8
"""Proposals from one sender: enough for a server with eight networks, and one liar cannot use up all of them."""
LIVES = 3
"""Announcements in a row that may get lost before what they proposed is forgotten."""

SWEEP_SECONDS = 10.0
"""Seconds between two removals of proposals that were not announced again."""


class _Proposal(msgspec.Struct):
    sender: str
    until: float


class AnnouncedServers:
    """The table. Pure but for the choice that it asks how a way has fared."""

    def __init__(self, selector: ServerSelector) -> None:
        self._selector = selector
        self._proposals: dict[ServerAddress, _Proposal] = {}
        self._second = 0.0
        self._read = 0

    def may_read(self, now: float) -> bool:
        """Return whether one more datagram may be read in this second."""
        if now >= self._second + 1.0:
            self._second, self._read = now, 0
        self._read += 1
        return self._read <= DATAGRAMS_PER_SECOND_MAX

    def heard(self, announcement: Announcement, sender: str, now: float) -> bool:
        """Record an announcement. Returns whether the proposals have changed."""
        is_new = self.expire(now)
        for address in announcement.addresses or (sender,):
            server = ServerAddress(announcement.server, address, announcement.port)
            if server in self._proposals or self._make_room(sender):
                is_new = is_new or server not in self._proposals
                self._proposals[server] = _Proposal(sender, now + LIVES * announcement.next_seconds)
        return is_new

    def expire(self, now: float) -> bool:
        """Drop what was not announced again, unless it has worked. Returns whether anything was dropped."""
        expired = [server for server, proposal in self._proposals.items() if proposal.until <= now]
        dropped = [server for server in expired if not self._selector.has_worked(server)]
        for server in dropped:
            del self._proposals[server]
        return bool(dropped)

    def candidates(self) -> tuple[Candidate, ...]:
        """Return all proposals, equally ranked."""
        return tuple(Candidate(server, (ANNOUNCED_RANK,), source="announced") for server in self._proposals)

    def _make_room(self, sender: str) -> bool:
        """Make room for one more from that sender, if need be by dropping one that was tried and failed."""
        own = [server for server, proposal in self._proposals.items() if proposal.sender == sender]
        rivals = own if len(own) >= PROPOSALS_PER_SENDER_MAX else list(self._proposals)
        if len(rivals) < (PROPOSALS_PER_SENDER_MAX if rivals is own else PROPOSALS_MAX):
            return True
        useless = next((server for server in rivals if self._selector.doubtful(server)), None)
        if useless is None:
            return False
        del self._proposals[useless]
        return True


class AnnouncementListener(DatagramProtocol):
    """Receiver of announcements in one multicast group; its sink gets the proposals at each change."""

    _log = Logger()

    def __init__(self, clock: Clock, selector: ServerSelector, group: str, interface: str, sink: CandidateSink) -> None:
        self._clock = clock
        self._proposals = AnnouncedServers(selector)
        self._group = group
        self._interface = interface
        self._sink = sink
        self._timers = Timers(clock)
        self._warned = False

    def startProtocol(self) -> None:
        """Join the group on the interface that has this host's address."""
        transport: Any = self.transport
        joined = transport.joinGroup(self._group, self._interface)
        joined.addErrback(
            lambda failure: self._log.error(
                "cannot hear announcements to {group} on {interface}: {why}",
                group=self._group,
                interface=self._interface,
                why=failure.getErrorMessage(),
            )
        )
        self._timers.start("sweep", SWEEP_SECONDS, self._swept)

    def stopProtocol(self) -> None:
        """Stop the removals."""
        self._timers.cancel_all()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Record a proposal, or drop a datagram that is none."""
        now = self._clock.seconds()
        if not self._proposals.may_read(now):
            return
        try:
            announcement = decode(datagram)
            is_new = self._proposals.heard(announcement, parse_address(addr[0]), now)
        except (NotAnnouncement, InvalidAddress) as problem:
            if not self._warned:
                self._warned = True
                text = "a datagram from {sender} is not an announcement: {why} (logged once)"
                self._log.warn(text, sender=addr[0], why=problem)
            return
        if is_new:
            self._log.info("{server} announces itself from {sender}", server=announcement.server, sender=addr[0])
            self._sink.update(ORIGIN, self._proposals.candidates())

    def _swept(self) -> None:
        self._timers.start("sweep", SWEEP_SECONDS, self._swept)
        if self._proposals.expire(self._clock.seconds()):
            self._sink.update(ORIGIN, self._proposals.candidates())

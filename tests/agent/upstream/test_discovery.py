"""Servers that a host finds: SRV records from a real DNS server, announcements by real multicast, and hostile ones."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence
from typing import Any, cast

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.client import Resolver

from compass.agent.upstream import dns_discovery, multicast
from compass.agent.upstream.dns_discovery import ResolverLookup, SrvLookup, SrvRecord, candidates_of
from compass.agent.upstream.multicast import ORIGIN, AnnouncedServers, AnnouncementListener
from compass.agent.upstream.server_selector import ANNOUNCED_RANK, Candidate, ServerAddress, ServerSelector, in_order
from compass.server.cluster.announcer import EVERY_SECONDS, FIRST_SECONDS, Announcer
from compass.wire.announcement import MAGIC, Announcement, decode, encode
from tests.e2e.processes import eventually
from tests.e2e.zone import SERVICE, Zone
from tests.support.reactor_thread import ReactorThread

GROUP = "239.255.48.63"


@pytest.fixture
def thread() -> Iterator[ReactorThread]:
    """A real reactor."""
    running = ReactorThread()
    yield running
    running.stop()


class Offered:
    """Record of the proposed addresses, in order, by origin."""

    def __init__(self) -> None:
        self.all: list[tuple[str, list[Candidate]]] = []

    def update(self, origin: str, candidates: Sequence[Candidate]) -> None:
        self.all.append((origin, list(candidates)))

    @property
    def addresses(self) -> list[str]:
        """Return the addresses of the last proposal."""
        return [candidate.server.address for candidate in self.all[-1][1]] if self.all else []


# DNS ------------------------------------------------------------------------------------------------------------


def test_an_srv_name_of_a_real_dns_server(thread: ReactorThread) -> None:
    """Targets by priority and weight, at the addresses that they have; a target without any by its name."""
    zone = Zone(
        [
            dns.Record_SRV(20, 0, 4863, b"gns3.example.net", ttl=77),
            dns.Record_SRV(10, 30, 4863, b"gns1.example.net", ttl=77),
            dns.Record_SRV(10, 70, 4900, b"gns2.example.net", ttl=99),
        ],
        {
            "gns1": [dns.Record_A("192.0.2.1"), dns.Record_AAAA("2001:db8::1")],
            "gns2": [dns.Record_A("192.0.2.2")],
        },
    )
    listening = zone.serve(thread, "127.0.0.1")
    place = ("127.0.0.1", listening.getHost().port)
    resolver = thread.call(lambda: Resolver(servers=[place], reactor=thread.reactor))
    found: list[SrvRecord] = thread.call(ResolverLookup(resolver).records, SERVICE)
    candidates = candidates_of(found, 3)
    assert [
        (candidate.server.name, candidate.server.address, candidate.server.port, candidate.rank, candidate.weight)
        for candidate in candidates
    ] == [
        ("gns2.example.net", "192.0.2.2", 4900, (3, 10), 70),
        ("gns1.example.net", "192.0.2.1", 4863, (3, 10), 15),
        ("gns1.example.net", "2001:db8::1", 4863, (3, 10), 15),
        ("gns3.example.net", "gns3.example.net", 4863, (3, 20), 0),
    ]
    assert {record.life_seconds for record in found} == {77.0, 99.0}
    thread.call(listening.stopListening)


class Asked:
    """A DNS that a test answers for."""

    def __init__(self) -> None:
        self.questions: list[Deferred[Sequence[SrvRecord]]] = []

    def records(self, name: str) -> Deferred[Sequence[SrvRecord]]:
        self.questions.append(Deferred())
        return self.questions[-1]


def watched(chance: float = 0.0) -> tuple[Clock, Asked, Offered, SrvLookup]:
    clock, asked, offered = Clock(), Asked(), Offered()
    name = SrvLookup(clock, lambda: chance, asked, SERVICE, 0, offered)
    name.start()
    return clock, asked, offered, name


def due_in(clock: Clock) -> float:
    """Seconds until the next question."""
    (timer,) = clock.getDelayedCalls()
    at: Any = timer
    return float(at.getTime() - clock.seconds())


@pytest.mark.parametrize(
    ("life", "kept"),
    [
        (dns_discovery.LIFE_SECONDS_MIN, dns_discovery.LIFE_SECONDS_MIN),
        (dns_discovery.LIFE_SECONDS_MIN - 1, dns_discovery.LIFE_SECONDS_MIN),
        (600.0, 600.0),
        (dns_discovery.LIFE_SECONDS_MAX, dns_discovery.LIFE_SECONDS_MAX),
        (dns_discovery.LIFE_SECONDS_MAX + 1, dns_discovery.LIFE_SECONDS_MAX),
    ],
)
def test_an_answer_is_asked_for_again_when_it_is_stale(life: float, kept: float) -> None:
    """After its TTL, but not every second and not only in a week; up to a quarter later, each host at its own time."""
    for chance in (0.0, 0.999):
        clock, asked, offered, _ = watched(chance)
        asked.questions[0].callback(
            [SrvRecord(0, 1, 4863, "gns1.example.org", life), SrvRecord(0, 1, 4863, "b", life + 9)]
        )
        assert offered.addresses == ["gns1.example.org", "b"]
        clock.advance(kept * (1 + chance / 4) - 0.01)
        assert len(asked.questions) == 1
        clock.advance(0.02)
        assert len(asked.questions) == 2


def test_what_is_known_stays_while_dns_is_away() -> None:
    """P5 for servers: no answer, an empty one, and one of nonsense take nothing; the next question comes later."""
    clock, asked, offered, _ = watched()
    asked.questions[0].callback([SrvRecord(0, 1, 4863, "gns1", 60.0)])
    clock.advance(60)
    pauses = []
    for answer in (None, [], [SrvRecord(0, 1, 0, "gns1", 60.0), SrvRecord(0, 1, 1, "no name!", 60.0)], None, None):
        if answer is None:
            asked.questions[-1].errback(TimeoutError("no answer"))
        else:
            asked.questions[-1].callback(answer)
        pauses.append(due_in(clock))
        clock.advance(pauses[-1])
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0]
    assert len(offered.all) == 1
    for _ in range(5):
        asked.questions[-1].errback(TimeoutError())
        pauses.append(due_in(clock))
        clock.advance(pauses[-1])
    assert pauses[-2:] == [dns_discovery.PAUSE_SECONDS_MAX] * 2
    asked.questions[-1].callback([SrvRecord(0, 1, 4863, "gns2", 60.0)])
    assert offered.addresses == ["gns2"]


def test_whoever_waits_for_the_first_answer_is_told_that_there_is_none() -> None:
    """A host that knows no other server does not let its programs wait after DNS has failed."""
    selector = ServerSelector(lambda: 0.5)
    selector.expect(SERVICE)
    assert selector.has_untried
    asked = Asked()
    SrvLookup(Clock(), lambda: 0.5, asked, SERVICE, 0, selector).start()
    asked.questions[0].errback(TimeoutError())
    assert not selector.has_untried


def test_dns_can_say_that_there_is_no_server() -> None:
    """RFC 2782: "A Target of "." means that the service is decidedly not available at this domain." """
    clock, asked, offered, _ = watched()
    asked.questions[0].callback([SrvRecord(0, 1, 4863, "gns1", 60.0)])
    clock.advance(60)
    asked.questions[1].callback([SrvRecord(0, 0, 0, "", 60.0)])
    assert [len(candidates) for _, candidates in offered.all] == [1, 0]


def test_an_answer_is_bounded() -> None:
    """Targets and addresses of one answer, each at n and at n + 1; the preferred ones are kept."""
    targets = [
        SrvRecord(100 - number, 1, 4863, f"gns{number}", 60.0) for number in range(dns_discovery.RECORDS_MAX + 1)
    ]
    candidates = candidates_of(targets, 0)
    assert len(candidates) == dns_discovery.RECORDS_MAX
    assert "gns0" not in {candidate.server.name for candidate in candidates}
    many = tuple(f"192.0.2.{number}" for number in range(1, dns_discovery.ADDRESSES_MAX + 2))
    assert len(candidates_of([SrvRecord(0, 1, 4863, "gns1", 60.0, many[:-1])], 0)) == dns_discovery.ADDRESSES_MAX
    assert len(candidates_of([SrvRecord(0, 1, 4863, "gns1", 60.0, many)], 0)) == dns_discovery.ADDRESSES_MAX


def test_asking_stops_with_the_daemon() -> None:
    """No question and no timer is left behind."""
    clock, asked, _, name = watched()
    name.stop()
    assert clock.getDelayedCalls() == []
    clock, asked, _, name = watched()
    asked.questions[0].callback([SrvRecord(0, 1, 4863, "gns1", 60.0)])
    name.stop()
    assert clock.getDelayedCalls() == []


# Announcements --------------------------------------------------------------------------------------------------


def free_udp_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def heard(thread: ReactorThread, offered: Offered, count: int, seconds: float = 20.0) -> None:
    """Wait until a number of addresses are proposed."""
    eventually(lambda: thread.call(lambda: len(offered.addresses)) >= count, f"{count} addresses are proposed", seconds)


def test_a_server_announces_itself_by_real_multicast(thread: ReactorThread) -> None:
    """Two hosts on the loopback receive an announcement with a TTL of 1; noise in the group has no effect."""
    port = free_udp_port()
    one, two = Offered(), Offered()
    opened = []
    for offered in (one, two):
        listening = AnnouncementListener(thread.reactor, ServerSelector(lambda: 0.5), GROUP, "127.0.0.1", offered)
        opened.append(thread.call(thread.reactor.listenMulticast, port, listening, GROUP, 8192, True))
    announcer = Announcer(
        thread.reactor, lambda: 0.5, (GROUP, port), "gns1.example.org", ["127.0.0.1", "127.0.0.9"], 4863
    )
    sending = thread.call(thread.reactor.listenMulticast, 0, announcer)
    with socket.socket(type=socket.SOCK_DGRAM) as noise:
        noise.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for datagram in (b"", b"\0" * 1400, MAGIC, MAGIC + b"\xc1", encode(Announcement("gns1", 1))[:-1]):
            noise.sendto(datagram, (GROUP, port))
    for offered in (one, two):
        heard(thread, offered, 2)
        assert offered.all[-1] == (
            ORIGIN,
            [
                Candidate(ServerAddress("gns1.example.org", address, 4863), (ANNOUNCED_RANK,), source="announced")
                for address in ("127.0.0.1", "127.0.0.9")
            ],
        )
    assert sending.getTTL() == 1
    for each in (*opened, sending):
        thread.call(each.stopListening)


class Sent:
    """A transport that keeps what is sent."""

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, Any]] = []
        self.ttl = 0
        self.broken = False

    def setTTL(self, ttl: int) -> None:  # noqa: N802
        self.ttl = ttl

    def setOutgoingInterface(self, address: str) -> None:  # noqa: N802
        if self.broken:
            raise OSError("no such interface")

    def write(self, datagram: bytes, to: Any) -> None:
        self.datagrams.append((datagram, to))


def test_announcements_are_rare() -> None:
    """Announcements, 1: "A server MUST NOT announce itself more often than once a second for longer than a few
    seconds." Each announcement names the right time of the next one.
    """
    for chance in (0.0, 0.999):
        clock, sent = Clock(), Sent()
        announcer = Announcer(clock, lambda chance=chance: chance, (GROUP, 1), "gns1", [], 4863)  # type: ignore[misc]
        announcer.transport = cast(Any, sent)
        announcer.startProtocol()
        times = [0.0]
        for _ in range(60_000):
            before = len(sent.datagrams)
            clock.advance(0.01)
            times += [clock.seconds()] * (len(sent.datagrams) - before)
        pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert sent.ttl == 1
        assert all(pause > first * 0.7 for pause, first in zip(pauses, FIRST_SECONDS, strict=False))
        assert all(0.7 * EVERY_SECONDS < pause <= EVERY_SECONDS + 0.02 for pause in pauses[len(FIRST_SECONDS) :])
        assert decode(sent.datagrams[-1][0]).next_seconds == EVERY_SECONDS
        announcer.stopProtocol()
        assert clock.getDelayedCalls() == []


def test_a_network_that_is_down_does_not_stop_announcing() -> None:
    """The next one is tried as if nothing had been."""
    clock, sent = Clock(), Sent()
    sent.broken = True
    announcer = Announcer(clock, lambda: 0.5, (GROUP, 1), "gns1", ["192.0.2.1"], 4863)
    announcer.transport = cast(Any, sent)
    announcer.startProtocol()
    assert not sent.datagrams
    sent.broken = False
    clock.advance(FIRST_SECONDS[0])
    assert len(sent.datagrams) == 1


def said(server_name: str, *addresses: str, port: int = 4863) -> Announcement:
    return Announcement(server_name, port, addresses, 10.0)


def test_proposals_are_bounded_in_all() -> None:
    """Announcements, 4: "A host MUST bound what it keeps, from each sender and in all"."""
    proposals = AnnouncedServers(ServerSelector(lambda: 0.5))
    for number in range(multicast.PROPOSALS_MAX + 10):
        proposals.heard(said("gns1"), f"10.0.{number}.1", 0.0)
    assert len(proposals.candidates()) == multicast.PROPOSALS_MAX


def test_proposals_are_bounded_for_each_sender() -> None:
    """False announcements of one sender leave room for other senders."""
    proposals = AnnouncedServers(ServerSelector(lambda: 0.5))
    for number in range(200):
        proposals.heard(said(f"evil{number}", "10.0.0.1", "10.0.0.2"), "10.0.0.66", 0.0)
    assert len(proposals.candidates()) == multicast.PROPOSALS_PER_SENDER_MAX
    assert proposals.heard(said("gns1"), "10.0.0.1", 0.0)


def test_what_led_to_no_server_gives_way_and_what_worked_does_not() -> None:
    """Announcements, 4: "A proposal that led to no server gives way to another one; one that did lead to a server does
    not."
    """
    selector = ServerSelector(lambda: 0.5)
    proposals = AnnouncedServers(selector)
    for number in range(multicast.PROPOSALS_MAX):
        proposals.heard(said("gns1"), f"10.0.{number}.1", 0.0)
    selector.update(ORIGIN, proposals.candidates())
    good, bad = ServerAddress("gns1", "10.0.0.1", 4863), ServerAddress("gns1", "10.0.1.1", 4863)
    selector.worked(good)
    selector.failed(good, 0.0, "it stopped")
    assert not proposals.heard(said("gns9"), "10.9.9.9", 0.0)
    selector.failed(bad, 0.0, "it is no server")
    assert proposals.heard(said("gns9"), "10.9.9.9", 0.0)
    servers = {candidate.server for candidate in proposals.candidates()}
    assert good in servers and bad not in servers and ServerAddress("gns9", "10.9.9.9", 4863) in servers


def test_a_proposal_that_is_not_repeated_is_forgotten() -> None:
    """Announcements, 5: "A proposal that never led to a server is forgotten when it was not repeated within three times
    `next_seconds`."
    """
    selector = ServerSelector(lambda: 0.5)
    proposals = AnnouncedServers(selector)
    proposals.heard(said("gns1"), "10.0.0.1", 0.0)
    proposals.heard(said("gns2"), "10.0.0.2", 0.0)
    proposals.heard(said("gns3"), "10.0.0.3", 20.0)
    selector.update(ORIGIN, proposals.candidates())
    selector.worked(ServerAddress("gns1", "10.0.0.1", 4863))
    assert not proposals.expire(29.9) and proposals.expire(30.0)
    assert [candidate.server.name for candidate in proposals.candidates()] == ["gns1", "gns3"]


def test_of_a_flood_a_hundred_datagrams_a_second_are_read() -> None:
    """Announcements, 4: "... and how many datagrams it reads in a second". The next second is another one."""
    clock, offered = Clock(), Offered()
    listening = AnnouncementListener(clock, ServerSelector(lambda: 0.5), GROUP, "", offered)
    for number in range(multicast.DATAGRAMS_PER_SECOND_MAX - 1):
        listening.datagramReceived(MAGIC + bytes([number]), ("10.0.0.66", 1))
    listening.datagramReceived(encode(said("gns1")), ("10.0.0.1", 1))
    listening.datagramReceived(encode(said("gns2")), ("10.0.0.2", 1))
    assert offered.addresses == ["10.0.0.1"]
    clock.advance(1)
    listening.datagramReceived(encode(said("gns2")), ("10.0.0.2", 1))
    assert offered.addresses == ["10.0.0.1", "10.0.0.2"]


def test_the_same_announcement_again_is_no_news() -> None:
    """The selector gets only changes, also when an address expires."""
    clock, offered = Clock(), Offered()
    listening = AnnouncementListener(clock, ServerSelector(lambda: 0.5), GROUP, "", offered)
    listening._swept()
    for _ in range(5):
        listening.datagramReceived(encode(said("gns1")), ("10.0.0.1", 1))
    assert len(offered.all) == 1
    clock.pump([multicast.SWEEP_SECONDS] * 3)
    assert offered.addresses == [] and len(offered.all) == 2
    listening.stopProtocol()
    assert clock.getDelayedCalls() == []


def test_announcements_come_after_everything_configured() -> None:
    """Announcements, 3: "It MUST prefer every server that it is configured with"."""
    selector = ServerSelector(lambda: 0.5, in_order(["gns1"]))
    proposals = AnnouncedServers(selector)
    proposals.heard(said("gns0"), "10.0.0.1", 0.0)
    selector.update(ORIGIN, proposals.candidates())
    following = selector.next(0.0)
    assert following is not None and following.server.name == "gns1"
    assert selector.better(ServerAddress("gns0", "10.0.0.1", 4863), 0.0) == following.server


def test_an_announcement_says_nothing_about_itself_but_where() -> None:
    """There is nothing in it that a host could believe about the catalogue."""
    assert {field.name for field in msgspec.structs.fields(Announcement)} == {
        "server",
        "port",
        "addresses",
        "next_seconds",
    }

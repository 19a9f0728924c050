"""Answers about many listeners: as many as fit, the same ones while nothing changes; addresses back to names; UDP."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.reversename
import pytest

from compass.gateway.dns.messages import TCP_OCTETS_MAX, UDP_OCTETS_MAX
from compass.model.catalogue.lookup_scope import LookupScope
from compass.model.rows import Listener, Policy
from compass.model.selection.policies import POLICIES, Location, SelectionRule, subset_ranks
from tests.support.catalogue_rows import World
from tests.support.dns_world import Asked, Source, world

EDNS: dict[str, Any] = {"use_edns": 0, "payload": UDP_OCTETS_MAX}


def many(count: int, policy: str = "weighted-random", **more: Any) -> World:
    """`a.store` with this number of listeners at addresses of their own."""
    made = world(Policy(pool=policy))
    for number in range(count):
        made.up("a.store", f"10.0.{number // 250}.{number % 250 + 1}:80", **more)
    return made


def asked(made: World, host: str = "h1", **more: Any) -> Asked:
    return Asked(Source(made.catalogue, Location(host)), **more)


def members(zone: Asked, name: str, kind: str, **more: Any) -> frozenset[str]:
    return frozenset(zone.records(name, kind, **more))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("name", "kind"), [("_a._tcp.store.gns", "SRV"), ("a.store.gns", "A"), ("a.store.gns", "TXT")])
def test_the_same_records_fit_while_nothing_changes(policy: str, name: str, kind: str) -> None:
    """HAProxy takes a server out that one answer does not have. Only the order is drawn or takes turns."""
    zone = asked(many(120, policy))
    answers = [zone.ask(name, kind, **EDNS) for _ in range(8)]
    part = 0 if kind == "TXT" else -1
    targets = [frozenset(str(one).split()[part] for rrset in answer.answer for one in rrset) for answer in answers]
    assert len(set(targets)) == 1
    assert all(answer.flags & dns.flags.TC for answer in answers)
    assert len(targets[0]) > 5


def test_other_hosts_have_other_subsets_and_a_change_changes_little() -> None:
    """All listeners have users; and one listener that ends costs one place."""
    made = many(120)
    before = {host: members(asked(made, host), "a.store.gns", "A", **EDNS) for host in ("h1", "h2", "h3")}
    assert len(set(before.values())) == 3
    gone = next(iter(before["h1"] - {"192.0.2.1", "192.0.2.2"}))
    made.in_state("offline", "a.store", f"{gone}:80")
    after = members(asked(made, "h1"), "a.store.gns", "A", **EDNS)
    assert len(before["h1"] - after) == 1


def test_the_heaviest_is_always_there_by_priority() -> None:
    made = many(120, "priority")
    made.up("a.store", "10.9.9.9:80", weight=100)
    assert "10.9.9.9" in members(asked(made), "a.store.gns", "A", **EDNS)


def test_heavier_listeners_are_in_more_subsets() -> None:
    """Among 200 hosts, twice the weight is in about twice as many."""
    peers = [Listener("a.b", f"10.0.0.{n}", 80, "up", 0.0, 1, weight=1 + n % 2) for n in range(40)]
    chosen = {1: 0, 2: 0}
    for host in range(200):
        ranks = subset_ranks(peers, SelectionRule(), Location(f"h{host}"))
        for peer in peers:
            chosen[peer.weight] += ranks[peer.service, peer.address, peer.port] < 8
    assert 1.5 < chosen[2] / chosen[1] < 2.5


@pytest.mark.parametrize(("name", "kind"), [("_a._tcp.store.gns", "SRV"), ("a.store.gns", "TXT")])
def test_over_tcp_an_answer_is_never_truncated(name: str, kind: str) -> None:
    """unbound answers SERVFAIL and dnsmasq nothing for TC over TCP: as many as fit, and the same ones."""
    zone = asked(many(1800))
    answers = [zone.ask(name, kind, over_tcp=True) for _ in range(2)]
    assert [bool(answer.flags & dns.flags.TC) for answer in answers] == [False, False]
    found = [frozenset(str(one) for rrset in answer.answer for one in rrset) for answer in answers]
    assert found[0] == found[1]
    assert 1000 < len(found[0]) < 1800
    octets = zone.raw(dns.message.make_query(name, kind).to_wire(), over_tcp=True)
    assert octets is not None and len(octets) <= TCP_OCTETS_MAX


def test_large_texts_leave_out_what_does_not_fit_and_nothing_else() -> None:
    """A record that fits after one that does not is in the answer."""
    made = world()
    letters = {f"k{n}": "x" * 255 for n in range(30)}
    for number in range(12):
        made.up("b.store", f"10.0.0.{number + 1}:80", metadata=letters)
    zone = asked(made)
    answer = zone.ask("b.store.gns", "TXT", over_tcp=True)
    texts = [str(one) for rrset in answer.answer for one in rrset]
    assert not answer.flags & dns.flags.TC
    assert any("192.0.2.9:80" in text for text in texts)
    assert 5 < len(texts) < 13


@pytest.mark.parametrize(("most", "expected"), [(0, 62), (1, 1), (29, 29), (61, 61), (62, 62), (63, 62)])
def test_an_administrator_limits_address_records(most: int, expected: int) -> None:
    """[host.dns] addresses_max: over TCP too, for musl behind dnsmasq; SRV records are not concerned."""
    zone = asked(many(60), addresses_max=most)
    found = [members(zone, "a.store.gns", "A", over_tcp=True) for _ in range(3)]
    assert [len(one) for one in found] == [expected] * 3
    assert len(set(found)) == 1
    assert len(zone.records("_a._tcp.store.gns", "SRV", over_tcp=True)) == 63


def test_two_ports_at_one_address_count_once() -> None:
    made = world()
    for port in range(1, 30):
        made.up("b.store", f"192.0.2.9:{1000 + port}")
    assert asked(made, addresses_max=1).records("b.store.gns") == ["192.0.2.9"]


# Addresses back to names --------------------------------------------------------------------------------------


def pointers(zone: Asked, address: str, **more: Any) -> list[str]:
    return sorted(zone.records(str(dns.reversename.from_address(address)), "PTR", **more))


def test_registered_addresses_have_names() -> None:
    """The same that SRV records name, so that forward and reverse lookups agree; each service at the address."""
    made = world()
    made.up("b.store", "192.0.2.1:81")
    zone = asked(made)
    assert pointers(zone, "192.0.2.1") == ["192-0-2-1.a.store.gns.", "192-0-2-1.b.store.gns."]
    label = "20010db8000000000000000000000001"
    assert pointers(zone, "2001:db8::1") == [f"{label}.a.store.gns."]
    for address in ("192.0.2.1", "2001:db8::1"):
        kind = "AAAA" if ":" in address else "A"
        assert zone.records(pointers(zone, address)[0], kind) == [address]


def test_other_addresses_are_for_other_servers() -> None:
    """REFUSED as before: the resolver has other sources for them. Names above a known address exist (RFC 8020)."""
    zone = asked(world())
    for name in (
        "3.2.0.192.in-addr.arpa",
        "1.2.0.193.in-addr.arpa",
        "1.1.2.0.192.in-addr.arpa",
        "x.2.0.192.in-addr.arpa",
        "01.2.0.192.in-addr.arpa",
        "in-addr.arpa",
        "ip6.arpa",
        "2.ip6.arpa",
        "10.0.0.0.ip6.arpa",
        "arpa",
        "1.2.0.192.in-addr.arpa.example",
    ):
        above = name in ("in-addr.arpa", "ip6.arpa", "2.ip6.arpa")
        expected = dns.rcode.NOERROR if above else dns.rcode.REFUSED
        assert zone.ask(name, "PTR").rcode() == expected, name
    for name in ("2.0.192.in-addr.arpa", "192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"):
        answer = zone.ask(name, "NS")
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, []), name
    answer = zone.ask("1.2.0.192.in-addr.arpa", "A")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


def test_names_of_addresses_follow_the_catalogue() -> None:
    """A listener that moves, ends, or belongs to a service that this host knows nothing of."""
    made = world()
    source = Source(made.catalogue)
    zone = Asked(source)
    assert pointers(zone, "192.0.2.9") == ["192-0-2-9.b.store.gns."]
    made.in_state("offline", "b.store", "192.0.2.9:80")
    made.up("b.store", "192.0.2.10:80")
    source.known = LookupScope(made.catalogue)
    assert zone.ask("9.2.0.192.in-addr.arpa", "PTR").rcode() == dns.rcode.REFUSED
    assert pointers(zone, "192.0.2.10") == ["192-0-2-10.b.store.gns."]
    source.known = LookupScope(made.catalogue, frozenset(("help",)))
    assert zone.ask("10.2.0.192.in-addr.arpa", "PTR").rcode() == dns.rcode.REFUSED
    assert pointers(zone, "192.0.2.77") == ["192-0-2-77.spare.help.gns."]


# UDP ----------------------------------------------------------------------------------------------------------


def test_services_over_udp() -> None:
    """`_udp` has the listeners that say so in their metadata; its names exist as those of `_tcp` do."""
    made = world()
    made.up("a.store", "192.0.2.3:53", metadata={"protocol": "udp"})
    zone = asked(made)
    assert zone.records("_a._udp.store.gns", "SRV") == ["0 1 53 192-0-2-3.a.store.gns."]
    assert len(zone.records("_a._tcp.store.gns", "SRV")) == 4
    for name in ("_udp.store.gns", "_b._udp.store.gns"):
        answer = zone.ask(name, "SRV")
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    for name in ("_x._udp.store.gns", "a._udp.store.gns", "_a._sctp.store.gns"):
        assert zone.ask(name, "SRV").rcode() == dns.rcode.NXDOMAIN

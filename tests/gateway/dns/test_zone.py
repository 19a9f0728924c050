"""Answers of the zone to names and types (docs/reference/dns.md), read back by dnspython."""

from __future__ import annotations

from collections import Counter

import dns.flags
import dns.rcode
import msgspec
import pytest
from immutables import Map
from twisted.names import dns as twisted_dns

from compass.gateway.dns import zone as dns_zone
from compass.gateway.dns.rcodes import NO_SUCH_NAME, rcode_of
from compass.gateway.dns.zone import label_of
from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.lookup_scope import LookupScope
from compass.model.replies import CODES
from compass.model.requests import Deregister, Put
from compass.model.rows import Category, Policy
from compass.model.selection.policies import Location
from tests.support.catalogue_rows import World, drain
from tests.support.dns_world import Asked, Source, world

ALL_A = {"192.0.2.1", "192.0.2.2"}


def asked(made: World | None = None, zone: str = "gns") -> Asked:
    return Asked(Source((made or world()).catalogue), zone)


def why(answer: dns.message.Message) -> str:
    """Return the extended error of an answer (RFC 8914)."""
    (error,) = answer.extended_errors()
    return error.text or ""


def negative(answer: dns.message.Message) -> tuple[str, bool]:
    """Return the rcode, and whether the zone's SOA gives the lifetime of the answer (RFC 2308)."""
    soa = [str(rrset.name) for rrset in answer.authority if rrset.rdtype == dns.rdatatype.SOA]
    assert not answer.answer
    return dns.rcode.to_text(answer.rcode()), soa == ["gns."]


def test_a_service_has_the_addresses_of_its_usable_listeners() -> None:
    """A and AAAA exclude each other's addresses; answers are authoritative, and recursion is not offered."""
    zone = asked()
    answer = zone.ask("a.store.gns")
    assert {str(record) for record in answer.answer[0]} == ALL_A and answer.answer[0].ttl == 0
    assert answer.flags & dns.flags.AA and not answer.flags & dns.flags.RA and answer.flags & dns.flags.RD
    assert zone.records("a.store.gns", "AAAA") == ["2001:db8::1"]
    assert zone.records("b.store.gns") == ["192.0.2.9"]


def test_a_category_has_those_of_all_its_services() -> None:
    """`openuss.gns` has the addresses of all services of the category."""
    assert set(asked().records("store.gns")) == ALL_A | {"192.0.2.9"}


def test_names_are_the_same_in_any_case() -> None:
    """RFC 4343: case does not matter; the answer repeats the question's spelling, which resolvers check
    (draft-vixie-dnsext-dns0x20)."""
    assert set(asked().records("A.sToRe.GNS")) == ALL_A


def test_srv_says_ports_and_weights_and_where_they_are() -> None:
    """SRV records are at `_service._tcp.category` (RFC 2782) and at the name itself, with the targets' addresses."""
    zone = asked()
    for name in ("a.store.gns", "_a._tcp.store.gns"):
        answer = zone.ask(name, "SRV")
        assert {str(record) for record in answer.answer[0]} == {
            "0 2 2028 192-0-2-1.a.store.gns.",
            "0 1 2028 192-0-2-2.a.store.gns.",
            "0 1 2029 20010db8000000000000000000000001.a.store.gns.",
        }
        told = {(str(rrset.name), str(rrset[0])) for rrset in answer.additional}
        assert ("192-0-2-1.a.store.gns.", "192.0.2.1") in told and len(told) == 3
        for target, address in told:
            assert zone.records(target, "AAAA" if ":" in address else "A") == [address]
    assert len(zone.records("store.gns", "SRV")) == 4


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(), {(0, 2), (0, 1)}),
        (Policy(pool="weighted-round-robin"), {(0, 2), (0, 1)}),
        (Policy(pool="round-robin"), {(0, 1)}),
        (Policy(pool="random"), {(0, 1)}),
        (Policy(pool="priority"), {(0, 1), (1, 1), (2, 1)}),
        (Policy(pool="least-used"), {(0, 1), (1, 1), (2, 1)}),
        (Policy(pool="randomized-least-used"), {(0, 65535)}),
        (Policy(pool="round-robin", locality="zone"), {(0, 1), (1, 1)}),
    ],
)
def test_srv_ranks_are_the_policys(policy: Policy, expected: set[tuple[int, int]]) -> None:
    """A client that chooses by RFC 2782 does what the policy does: shares where it draws, ranks where it prefers."""
    made = world(policy)
    made.up("a.store", "192.0.2.1:2028", epoch=2, weight=2, zone="north")
    answer = Asked(Source(made.catalogue, Location("", "north"))).ask("a.store.gns", "SRV")
    assert {(record.priority, record.weight) for record in answer.answer[0]} == expected
    near = [record.priority for record in answer.answer[0] if "192-0-2-1." in str(record.target)]
    assert near == [0]


def test_a_listener_of_weight_0_has_the_last_rank() -> None:
    """A listener of weight 0 is for when no other is left; RFC 2782 would give it a small chance."""
    made = world()
    made.up("a.store", "192.0.2.3:2028", weight=0)
    answer = asked(made).ask("a.store.gns", "SRV")
    assert {r.priority for r in answer.answer[0] if "192-0-2-3." in str(r.target)} == {1}


def test_txt_has_the_metadata() -> None:
    """Each listener has one TXT record: its endpoint, weight, and registered pairs (RFC 6763)."""
    texts = asked().records("a.store.gns", "TXT")
    assert '"listener=192.0.2.1:2028" "weight=2" "rack=b7"' in texts and len(texts) == 3
    made = world()
    made.up("b.store", "192.0.2.9:80", epoch=2, metadata={"long": "é" * 255})
    (record,) = asked(made).ask("b.store.gns", "TXT", over_tcp=True).answer[0]
    assert max(map(len, record.strings)) == 255
    assert b"".join(record.strings).decode().endswith("long=" + "é" * 255)


def test_the_zone_itself() -> None:
    """The zone's name has an SOA with the revision as serial, and an NS, but no addresses."""
    made = world()
    zone = asked(made)
    serial = made.catalogue.revision
    assert zone.records("gns", "SOA") == [f"web1.example. hostmaster.gns. {serial} 60 10 3600 0"]
    assert zone.records("gns", "NS") == ["web1.example."]
    assert negative(zone.ask("gns")) == ("NOERROR", True)
    assert zone.records("gns", "ANY") == zone.records("gns", "SOA")


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        # No such name.
        ("none.gns", "A", "NXDOMAIN"),
        ("none.store.gns", "A", "NXDOMAIN"),
        ("_none._tcp.store.gns", "SRV", "NXDOMAIN"),
        ("_tcp.none.gns", "A", "NXDOMAIN"),
        ("_none._udp.store.gns", "SRV", "NXDOMAIN"),
        ("a._tcp.store.gns", "SRV", "NXDOMAIN"),
        ("192-0-2-8.a.store.gns", "A", "NXDOMAIN"),
        ("192-0-2-1.b.store.gns", "A", "NXDOMAIN"),
        ("192-0-2-1.none.store.gns", "A", "NXDOMAIN"),
        ("192-0-2-1._x.store.gns", "A", "NXDOMAIN"),
        ("x.y.a.store.gns", "A", "NXDOMAIN"),
        ("a_b.gns", "A", "NXDOMAIN"),
        ("\\000.gns", "A", "NXDOMAIN"),
        ("\\255.store.gns", "A", "NXDOMAIN"),
        ("a\\.store.gns", "A", "NXDOMAIN"),
        # No such type.
        ("a.store.gns", "MX", "NOERROR"),
        ("b.store.gns", "AAAA", "NOERROR"),
        ("_a._tcp.store.gns", "A", "NOERROR"),
        ("_a._udp.store.gns", "SRV", "NOERROR"),
        ("_tcp.store.gns", "ANY", "NOERROR"),
        ("192-0-2-1.a.store.gns", "AAAA", "NOERROR"),
        ("192-0-2-1.a.store.gns", "TXT", "NOERROR"),
        ("gns", "A", "NOERROR"),
        ("help.gns", "TYPE65", "NOERROR"),
        # None registered.
        ("www.web.gns", "A", "NOERROR"),
        ("web.gns", "SRV", "NOERROR"),
    ],
)
def test_no_such_name_and_no_such_type_are_two_answers(name: str, kind: str, rcode: str) -> None:
    """An unknown name gets NXDOMAIN and an unknown type an empty answer (RFC 2308), both with an SOA that forbids
    caching."""
    assert negative(asked().ask(name, kind)) == (rcode, True)


def test_not_loaded_yet_is_a_third_answer() -> None:
    """P5: an unloaded catalogue gives SERVFAIL, after which resolvers ask another server; EDNS carries the reason."""
    zone = Asked(Source(None))
    for name in ("a.store.gns", "none.gns", "gns"):
        answer = zone.ask(name, use_edns=0)
        assert negative(answer) == ("SERVFAIL", False)
        assert "not loaded" in why(answer)
    assert zone.ask("example.org").rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("name", [".", "org", "example.org", "gns.example.org", "xgns", "store.gns.org"])
def test_what_lies_outside_the_zone_is_refused(name: str) -> None:
    """The server forwards nothing."""
    answer = asked().ask(name, use_edns=0)
    assert answer.rcode() == dns.rcode.REFUSED and not answer.authority and not answer.flags & dns.flags.AA
    assert "forwards nothing" in why(answer)


def test_the_zone_can_have_any_name() -> None:
    """The zone's name may have several labels."""
    zone = asked(zone="svc.Example.org")
    assert set(zone.records("a.store.svc.example.org")) == ALL_A
    assert str(zone.ask("none.svc.example.org").authority[0].name) == "svc.example.org."
    assert zone.ask("example.org").rcode() == zone.ask("a.store.gns").rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("kind", ["AXFR", "IXFR", "TKEY", "TSIG", "MAILB"])
def test_transfers_and_the_like_are_refused(kind: str) -> None:
    """Types that do not ask for records are refused (RFC 6895 section 3.1)."""
    if kind == "IXFR":
        octets = asked().raw(bytes.fromhex("0007000000010000000000000367 6e73 00 00fb 0001".replace(" ", "")))
        assert octets is not None and octets[3] & 0xF == dns.rcode.REFUSED
        return
    assert asked().ask("gns", kind).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("klass", ["CH", "HS", "NONE"])
def test_other_classes_are_refused(klass: str) -> None:
    """Only IN exists; ANY includes it."""
    assert asked().ask("a.store.gns", rdclass=klass).rcode() == dns.rcode.REFUSED


def test_any_gives_one_type() -> None:
    """An answer to ANY needs only one type (RFC 8482)."""
    answer = asked().ask("a.store.gns", "ANY")
    assert [dns.rdatatype.to_text(rrset.rdtype) for rrset in answer.answer] == ["SRV"]
    assert asked().records("192-0-2-1.a.store.gns", "ANY") == ["192.0.2.1"]
    assert negative(asked().ask("www.web.gns", "ANY")) == ("NOERROR", True)


def test_only_usable_listeners_and_then_the_backup() -> None:
    """Without a usable listener the backup's listeners are returned, then draining ones, then suspect ones."""
    made = world()
    made.ask(drain("a.store", "192.0.2.1:2028"))
    assert asked(made).records("a.store.gns") == ["192.0.2.2"]
    made.in_state("down", at="192.0.2.2:2028").in_state("suspect", at="[2001:db8::1]:2029")
    assert asked(made).records("a.store.gns") == ["192.0.2.77"]
    (service,) = asked(made).ask("_a._tcp.store.gns", "SRV").answer[0]
    assert str(service) == "0 1 99 192-0-2-77.spare.help.gns."
    assert negative(asked(made).ask("a.store.gns", "AAAA")) == ("NOERROR", True)
    made.ask(Put(Category("store", "")))
    assert asked(made).records("a.store.gns") == ["192.0.2.1"]
    made.ask(Deregister("a.store", "", "192.0.2.1", 2028, made.listener("a.store", "192.0.2.1:2028").epoch))
    assert asked(made).records("a.store.gns", "AAAA") == ["2001:db8::1"]


def test_a_type_that_a_name_has_is_not_one_that_its_service_name_has() -> None:
    """Kept records of one name are not returned for the other, in whatever order queries arrive."""
    zone = asked()
    assert zone.records("a.store.gns") and zone.records("store.gns") and zone.records("a.store.gns", "SRV")
    assert negative(zone.ask("_a._tcp.store.gns")) == negative(zone.ask("_tcp.store.gns")) == ("NOERROR", True)
    assert negative(zone.ask("_tcp.store.gns", "SRV")) == ("NOERROR", True)


def test_two_ports_of_an_address_are_one_address() -> None:
    """Two listeners at one address give one address record."""
    made = world()
    made.up("b.store", "192.0.2.9:81")
    assert asked(made).records("b.store.gns") == ["192.0.2.9"]
    answer = asked(made).ask("b.store.gns", "SRV")
    assert {record.port for record in answer.answer[0]} == {80, 81} and len(answer.additional) == 1


def test_addresses_rotate_also_for_who_asks_for_both_kinds() -> None:
    """Turns are counted for each type: a program asks for A and AAAA at once, and must not skip every second one."""
    zone = asked(world(Policy(pool="round-robin")))
    firsts = []
    for _ in range(6):
        firsts.append(zone.records("a.store.gns")[0])
        zone.records("a.store.gns", "AAAA")
    assert Counter(firsts) == dict.fromkeys(ALL_A, 3) and firsts[0] != firsts[1]


def test_a_change_counts_for_the_next_answer() -> None:
    """Records are kept only until the next change."""
    made = world()
    source = Source(made.catalogue)
    zone = Asked(source)
    assert set(zone.records("a.store.gns")) == ALL_A
    made.in_state("suspect", at="192.0.2.1:2028")
    source.known = LookupScope(made.catalogue)
    assert zone.records("a.store.gns") == ["192.0.2.2"]
    source.known = LookupScope(Catalogue())
    assert negative(zone.ask("a.store.gns"))[0] == "NXDOMAIN"


def test_records_are_kept_for_so_many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name above the limit discards all kept records; the answers are the same."""
    monkeypatch.setattr(dns_zone, "KEPT_MAX", 2)
    zone = asked()
    for name, kind in (("a.store.gns", "A"), ("a.store.gns", "AAAA"), ("b.store.gns", "A"), ("a.store.gns", "A")):
        assert zone.records(name, kind)
        assert len(zone.server._zone._kept) <= 2


def test_a_host_answers_for_what_its_services_depend_on() -> None:
    """Other names are unknown in a host's zone; EDNS carries advice."""
    source = Source(None)
    source.known = LookupScope(world().catalogue, frozenset({"store"}), frozenset({"spare.help"}))
    zone = Asked(source)
    assert set(zone.records("a.store.gns")) == ALL_A and zone.records("spare.help.gns") == ["192.0.2.77"]
    for name in ("web.gns", "www.web.gns", "help.gns"):
        answer = zone.ask(name, use_edns=0)
        assert negative(answer) == ("NXDOMAIN", True)
        assert "no service of this host depends on category" in why(answer)


def test_times_to_live_are_as_configured() -> None:
    """Records and negative answers have the configured TTL (RFC 2308 section 5: the SOA's minimum)."""
    zone = Asked(Source(world().catalogue), ttl=7)
    answer = zone.ask("a.store.gns", "SRV")
    assert {rrset.ttl for rrset in (*answer.answer, *answer.additional)} == {7}
    soa = zone.ask("none.gns").authority[0]
    assert (soa.ttl, soa[0].minimum) == (7, 7)


def test_every_refusal_has_its_rcode() -> None:
    """Codes of names are NXDOMAIN, every other code is SERVFAIL, that of a newer server too."""
    assert set(CODES) >= NO_SUCH_NAME and {rcode_of(code) for code in NO_SUCH_NAME} == {twisted_dns.ENAME}
    assert rcode_of("busy") == rcode_of("later") == twisted_dns.ESERVER


@pytest.mark.parametrize(
    ("address", "label"),
    [("192.0.2.17", "192-0-2-17"), ("::1", "0" * 31 + "1"), ("2001:db8::a", "20010db800000000000000000000000a")],
)
def test_an_address_is_one_label(address: str, label: str) -> None:
    """An address is one label, so that its name is directly below its service."""
    assert label_of(address) == label and len(label) <= 63


def test_a_name_without_any_listener_is_reported_to_its_source_and_no_other() -> None:
    """Each lookup that finds none counts, of every type; an address family that a service has not is no outage."""
    made = world()
    source = Source(made.catalogue)
    zone = Asked(source)
    for name, kind in (("b.store.gns", "AAAA"), ("unknown.store.gns", "A"), ("a.store.gns", "A")):
        zone.ask(name, kind)
    assert source.none == []
    empty = Source(msgspec.structs.replace(made.catalogue, listeners=Map()))
    zone = Asked(empty)
    for kind in ("A", "AAAA", "SRV", "A"):
        assert zone.records("b.store.gns", kind) == []
    assert zone.records("_b._tcp.store.gns", "SRV") == []
    assert empty.none == ["b.store"] * 5

"""DNS messages as octets: queries, answers to invalid messages, and truncation (RFC 1035, RFC 6891)."""

from __future__ import annotations

import struct

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest

from compass.gateway.dns import server as dns_gateway
from compass.gateway.dns.messages import TCP_OCTETS_MAX, UDP_OCTETS_MAX, UDP_PLAIN_OCTETS, read
from compass.model.rows import Listener
from tests.support.catalogue_rows import NOW
from tests.support.dns_world import STRICT, Asked, Source, world

QUESTION = b"\1a\5store\3gns\0" + struct.pack("!2H", 1, 1)


def message(
    questions: int = 1,
    answers: int = 0,
    authority: int = 0,
    additional: int = 0,
    flags: int = 0x0100,
    body: bytes = QUESTION,
) -> bytes:
    """Return a query as octets, with the given counts."""
    return struct.pack("!6H", 0x1234, flags, questions, answers, authority, additional) + body


def opt(size: int = 1232, version: int = 0, flags: int = 0, options: bytes = b"", name: bytes = b"\0") -> bytes:
    """Return an OPT record (RFC 6891 section 6.1.2)."""
    return name + struct.pack("!HHBBHH", 41, size, 0, version, flags, len(options)) + options


RECORD = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + b"\1\2\3\4"


@pytest.fixture
def zone() -> Asked:
    return Asked(Source(world().catalogue))


def many(count: int) -> Asked:
    """Return a zone with a service of `number` listeners, and another listener."""
    catalogue = world().catalogue
    for number in range(count):
        address = f"10.0.{number >> 8}.{number & 255}"
        catalogue = catalogue.with_row(Listener("b.store", address, 80, "up", NOW, 1))
    return Asked(Source(catalogue))


@pytest.mark.parametrize(
    "octets",
    [b"", b"\0", bytes(11), message(flags=0x8100), message(flags=0x8000, body=b""), b"\xff" * 12, b"\xff" * 500],
    ids=lambda octets: f"{len(octets)} octets",
)
def test_what_is_no_query_is_not_answered(zone: Asked, octets: bytes) -> None:
    """A fragment or an answer gets no answer: two servers must never answer each other for ever."""
    assert zone.raw(octets) is None


@pytest.mark.parametrize(
    ("octets", "rcode"),
    [
        # Counts that are not those of a query, or of what is there.
        (message(questions=0, body=b""), "FORMERR"),
        (message(questions=0), "FORMERR"),
        (message(questions=2), "FORMERR"),
        (message(questions=2, body=QUESTION * 2), "FORMERR"),
        (message(questions=65535), "FORMERR"),
        (message(answers=1), "FORMERR"),
        (message(authority=9), "FORMERR"),
        (message(additional=1), "FORMERR"),
        (message(additional=65535, body=QUESTION + RECORD), "FORMERR"),
        (message(body=QUESTION + b"\0"), "FORMERR"),
        (message(body=QUESTION + RECORD), "FORMERR"),
        # Names that are none: loops, pointers ahead, labels too long, the end too soon.
        (message(body=b"\xc0\x0c" + QUESTION[-4:]), "FORMERR"),
        (message(body=b"\1a\xc0\x0c" + QUESTION[-4:]), "FORMERR"),
        (message(body=b"\xff\xff" + QUESTION[-4:]), "FORMERR"),
        (message(body=b"\x40" + b"a" * 64 + b"\0" + QUESTION[-4:]), "FORMERR"),
        (message(body=b"\x80a\0" + QUESTION[-4:]), "FORMERR"),
        (message(body=QUESTION[:5]), "FORMERR"),
        (message(body=QUESTION[:-1]), "FORMERR"),
        (message(body=b""), "FORMERR"),
        (message(body=(b"\x3f" + b"a" * 63) * 4 + b"\0" + QUESTION[-4:]), "FORMERR"),
        # Records that lie about their length.
        (message(additional=1, body=QUESTION + b"\0" + struct.pack("!HHIH", 1, 1, 0, 5) + b"\1\2\3\4"), "FORMERR"),
        (message(additional=1, body=QUESTION + b"\x3f"), "FORMERR"),
        (message(additional=1, body=QUESTION + (b"\x3f" + b"a" * 63) * 5 + b"\0" + RECORD[2:]), "FORMERR"),
        # EDNS that is none: twice, elsewhere, with a name.
        (message(additional=2, body=QUESTION + opt() + opt()), "FORMERR"),
        (message(answers=1, body=QUESTION + opt()), "FORMERR"),
        (message(additional=1, body=QUESTION + opt(name=b"\1a\0")), "FORMERR"),
        # Other operations than a query.
        (message(flags=1 << 11), "NOTIMP"),
        (message(flags=2 << 11), "NOTIMP"),
        (message(flags=4 << 11), "NOTIMP"),
        (message(flags=5 << 11), "NOTIMP"),
        (message(flags=15 << 11, body=b""), "NOTIMP"),
        # An unknown version of EDNS.
        (message(additional=1, body=QUESTION + opt(version=1)), "BADVERS"),
        (message(additional=1, body=QUESTION + opt(version=255)), "BADVERS"),
        # And these are good.
        (message(), "NOERROR"),
        (message(flags=0), "NOERROR"),
        (message(flags=0x0110), "NOERROR"),
        (message(additional=1, body=QUESTION + opt(size=0)), "NOERROR"),
        (message(additional=1, body=QUESTION + opt(options=b"\0\x0a\0\x08" + b"c" * 8)), "NOERROR"),
        (message(additional=1, body=QUESTION + RECORD), "NOERROR"),
        (message(authority=1, body=QUESTION + RECORD), "NOERROR"),
        (message(additional=1, body=QUESTION + b"\xc0\xff" + RECORD[2:]), "NOERROR"),
    ],
)
def test_bad_queries_are_told_what_is_wrong(zone: Asked, octets: bytes, rcode: str) -> None:
    """An invalid query gets the rcode of its RFC, with its id and operation, in a well-formed message."""
    answer = zone.raw(octets)
    assert answer is not None
    read_back = dns.message.from_wire(answer, **STRICT)
    assert dns.rcode.to_text(read_back.rcode()) == rcode
    assert read_back.id == 0x1234 and read_back.flags & dns.flags.QR
    assert read_back.opcode() == octets[2] >> 3 & 0xF
    assert len(answer) <= UDP_OCTETS_MAX and bool(read_back.answer) == (rcode == "NOERROR")


def test_the_longest_name_is_read_and_one_octet_more_is_not() -> None:
    """A name has at most 255 octets with the length octets and the root, and a label at most 63."""
    rest = QUESTION[-4:]
    longest = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0"
    assert len(longest) == 255
    good = read(message(body=longest + rest))
    assert good is not None and good.rcode == 0 and [len(label) for label in good.labels] == [63, 63, 63, 61]
    bad = read(message(body=(b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0" + rest))
    assert bad is not None and bad.rcode == 1


def test_edns_is_answered_with_edns_and_nothing_else_is(zone: Asked) -> None:
    """An answer has EDNS exactly if the query has (RFC 6891 section 7); DO is repeated (RFC 3225), unknown options
    are not."""
    plain = zone.ask("a.store.gns", use_edns=False)
    assert plain.edns == -1
    told = zone.ask(
        "a.store.gns",
        use_edns=0,
        want_dnssec=True,
        options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"cookies!")],
    )
    assert (told.edns, told.payload, told.ednsflags & dns.flags.DO) == (0, UDP_OCTETS_MAX, dns.flags.DO)
    assert told.options == ()


@pytest.mark.parametrize(
    ("said", "limit"),
    [(None, 512), (0, 512), (512, 512), (513, 513), (1000, 1000), (1232, 1232), (1233, 1232), (65535, 1232)],
)
def test_what_does_not_fit_is_cut_at_a_record(said: int | None, limit: int) -> None:
    """An answer over UDP has at most 512 octets, with EDNS what the client accepts, up to 1232; TC leads to TCP."""
    zone = many(200)
    query = dns.message.make_query("b.store.gns", "A", use_edns=said is not None and 0, payload=said or 0)
    octets = zone.raw(query.to_wire())
    assert octets is not None and limit - 16 < len(octets) <= limit
    answer = dns.message.from_wire(octets, **STRICT)
    assert answer.flags & dns.flags.TC and answer.answer


@pytest.mark.parametrize(("listeners", "cut"), [(29, False), (30, True)])
def test_at_the_limit_nothing_is_cut(listeners: int, cut: bool) -> None:
    """30 addresses with their question have 509 octets, and one more would have 525."""
    zone = many(listeners)
    octets = zone.raw(dns.message.make_query("b.store.gns", "A").to_wire())
    assert octets is not None and len(octets) == 509 <= UDP_PLAIN_OCTETS
    assert bool(dns.message.from_wire(octets, **STRICT).flags & dns.flags.TC) == cut


def test_tcp_has_room_for_it() -> None:
    """TCP carries all 300 with the addresses of the targets; what exceeds TCP is cut at a record."""
    zone = many(300)
    answer = zone.ask("b.store.gns", "SRV", over_tcp=True)
    assert len(answer.answer[0]) == 301 and not answer.flags & dns.flags.TC
    # Addresses of names beyond the reach of a pointer are left out.
    assert 200 < len(answer.additional) <= 301
    big = many(5_000)
    octets = big.raw(dns.message.make_query("b.store.gns", "A").to_wire(), over_tcp=True)
    assert octets is not None and TCP_OCTETS_MAX - 16 < len(octets) <= TCP_OCTETS_MAX
    # Resolvers drop an answer over TCP that has the flag.
    assert not dns.message.from_wire(octets, **STRICT).flags & dns.flags.TC


def test_additional_records_are_left_out_without_a_word() -> None:
    """A client asks for missing additional records; only a cut answer is flagged (RFC 2181 section 9)."""
    zone = many(24)
    answer = zone.ask("b.store.gns", "SRV", use_edns=0, payload=1232)
    assert len(answer.answer[0]) == 25 and not answer.flags & dns.flags.TC
    assert 0 < len(answer.additional) < 25


def test_spellings_are_kept_for_so_many(monkeypatch: pytest.MonkeyPatch, zone: Asked) -> None:
    """A program that asks for new names all the time does not fill the memory."""
    monkeypatch.setattr(dns_gateway, "QUERIES_KEPT_MAX", 3)
    for number in range(10):
        zone.ask(f"n{number}.store.gns")
        assert len(zone.server._read) == min(number % 3 + 1, 3)
    # The same question with another id is the same spelling.
    kept = len(zone.server._read)
    for _ in range(3):
        zone.ask("n9.store.gns")
    assert len(zone.server._read) == kept

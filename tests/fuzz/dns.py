"""DNS packets that no program sends on purpose, at a zone (RFC 1035, RFC 6891).

What is sent begins as a good question. Some go as they are; some are wounded in a bit, a count, a label, a class, an
operation or an option, get pointers that loop, lose their end or get another one; some are noise. The invariant:
nothing raises, and what is answered is read by dnspython at its strictest, has the id of what it answers, and fits.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from random import Random

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from compass.gateway.dns.messages import TCP_OCTETS_MAX, UDP_OCTETS_MAX
from tests.support.dns_world import STRICT, Asked, Source, world

NAMES = (
    "a.store.gns",
    "A.STORE.gns",
    "store.gns",
    "_a._tcp.store.gns",
    "_tcp.store.gns",
    "192-0-2-1.a.store.gns",
    "gns",
    "none.store.gns",
    "www.web.gns",
    "example.org",
    ".",
    "x" * 63 + ".gns",
    ".".join(["y" * 61] * 4),
)
KINDS = ("A", "AAAA", "SRV", "TXT", "SOA", "NS", "MX", "ANY", "AXFR", "OPT", "TYPE65535")
LOOK_EVERY = 20_000
"""Packets between two looks at the memory."""


class Broken(AssertionError):
    """Result that should never have happened, and the packet that caused it."""


def good(random: Random) -> bytes:
    """A question as programs ask it."""
    edns = random.choice((False, 0, 0, 1))
    options: list[dns.edns.Option] = (
        [dns.edns.GenericOption(dns.edns.OptionType.make(random.randrange(20)), random.randbytes(random.randrange(12)))]
        if edns == 0
        else []
    )
    query = dns.message.make_query(
        random.choice(NAMES),
        random.choice(KINDS),
        rdclass=random.choice(("IN", "IN", "IN", "CH", "ANY", "CLASS7")),
        use_edns=edns,
        want_dnssec=bool(edns is not False and random.random() < 0.3),
        payload=random.choice((0, 512, 600, 1232, 4096, 65535)),
        options=options or None,
    )
    query.id = random.randrange(65536)
    return query.to_wire()


def wounded(octets: bytes, random: Random) -> bytes:
    """The packet with something wrong, maybe."""
    packet = bytearray(octets)
    for _ in range(random.choice((0, 1, 1, 1, 2, 5))):
        if not packet:
            break
        at = random.randrange(len(packet))
        match random.randrange(9):
            case 0:
                packet[at] ^= 1 << random.randrange(8)
            case 1:
                # A count of the header.
                where = random.choice((4, 6, 8, 10))
                packet[where : where + 2] = struct.pack("!H", random.choice((0, 1, 2, 3, 255, 65535)))
            case 2:
                # Its flags: operations, answers, truncation.
                packet[2:4] = random.randbytes(2)
            case 3:
                # A pointer: to itself, back, ahead, into the header.
                target = random.choice((at, max(at - 2, 0), 12, 0, len(packet), random.randrange(0x4000)))
                packet[at : at + 2] = struct.pack("!H", 0xC000 | target)
            case 4:
                del packet[at:]
            case 5:
                packet += random.randbytes(random.randrange(1, 40))
            case 6:
                packet[at : at + random.randrange(9)] = random.randbytes(random.randrange(9))
            case 7:
                packet[at] = random.choice((0, 1, 63, 64, 127, 128, 191, 192, 255))
            case _:
                # Another question or record behind it.
                packet += octets[12:]
    return bytes(packet)


def check(zone: Asked, packet: bytes, over_tcp: bool) -> str:
    """Send one packet; what came of it, in a word. Raises Broken."""
    try:
        answer = zone.raw(packet, over_tcp)
    except Exception as error:
        raise Broken(f"{packet.hex()}: {error!r}") from error
    if answer is None:
        return "silence"
    try:
        message = dns.message.from_wire(answer, **STRICT)
    except (dns.exception.DNSException, ValueError) as error:
        raise Broken(f"{packet.hex()} was answered with {answer.hex()}, which is no message: {error!r}") from error
    limit = TCP_OCTETS_MAX if over_tcp else UDP_OCTETS_MAX
    if message.id.to_bytes(2, "big") != packet[:2] or not message.flags & dns.flags.QR or len(answer) > limit:
        raise Broken(f"{packet.hex()} was answered with {answer.hex()}, which does not answer it")
    return dns.rcode.to_text(message.rcode())


def run(seed: int, goal: int, look: Callable[[Counter[str]], None] | None = None) -> Counter[str]:
    """Send this number of packets. Returns how many of what kind came back."""
    random, seen = Random(seed), Counter[str]()
    zone = Asked(Source(world().catalogue))
    bases = [good(random) for _ in range(500)]
    while seen["packets"] < goal:
        if seen["packets"] % 50 == 0:
            bases[random.randrange(len(bases))] = good(random)
        noise = random.random() < 0.05
        packet = random.randbytes(random.randrange(80)) if noise else wounded(random.choice(bases), random)
        seen[check(zone, packet, over_tcp=random.random() < 0.2)] += 1
        seen["packets"] += 1
        if look is not None and seen["packets"] % LOOK_EVERY == 0:
            look(seen)
    return seen

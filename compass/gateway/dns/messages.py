"""DNS messages as octets: one query in, one answer out (RFC 1035 section 4, RFC 6891, RFC 8914).

twisted.names encodes the records. The message around them is built here, because a truncated answer must end with a
whole record, EDNS must be recognised reliably, and a query of an unknown client must cost little: only the question and
the ends of the other records are decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import msgspec
from twisted.names import dns

HEADER_OCTETS = 12
UDP_PLAIN_OCTETS = 512
"""Longest answer over UDP to a client without EDNS (RFC 1035 section 4.2.1)."""
UDP_OCTETS_MAX = 1232
"""Longest answer over UDP to a client with EDNS: what IPv6 carries unfragmented on any link (RFC 8900)."""
TCP_OCTETS_MAX = 65535
"""Longest answer over TCP: the largest value of its length field (RFC 1035 section 4.2.2)."""
NAME_OCTETS_MAX = 255
"""Longest name (RFC 1035 section 2.3.4), including the length octets and the root."""
LABEL_OCTETS_MAX = 63
BADVERS = 16
"""Rcode for an unknown version of EDNS: its low four bits are in the header, the rest in OPT."""
NOT_READY = 14
OTHER_ERROR = 0
"""Codes of the extended errors that answers contain (RFC 8914)."""
ERROR_OCTETS_MAX = 200
"""Longest text of an extended error in octets: a sentence that fits into the shortest answer."""

_HEADER = struct.Struct("!6H")
_PAIR = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_POINTER = 0xC000
_QUESTION_AT = struct.pack("!H", _POINTER | HEADER_OCTETS)
_QR, _AA, _TC, _RD, _CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0010
_OPCODE = 0x7800
_DO = 0x8000
_EDE = 15


class Query(msgspec.Struct):
    """Query of a message. If `rcode` is not 0, it is the answer, without a lookup."""

    flags: int
    """Flags of the header that an answer repeats."""
    question: bytes = b""
    """Question as it was received, to be repeated in the answer with its upper and lower case."""
    labels: tuple[bytes, ...] = ()
    """Labels of the name, in lower case, without the root."""
    type: int = 0
    klass: int = dns.IN
    edns: bool = False
    wants_dnssec: bool = False
    udp_octets: int = UDP_PLAIN_OCTETS
    rcode: int = dns.OK
    known: Any = None
    """Result of the zone's last lookup for this query; the zone reuses it."""


class Answer(msgspec.Struct):
    """Answer to a query, as records without their owner, which is the queried name."""

    rcode: int = dns.OK
    records: Sequence[bytes] = ()
    ranks: Callable[[], Sequence[int]] | None = None
    """Function that returns the rank of each record: if not all fit, those with the lowest ranks are in the message.
    None: the first ones."""
    additional: Sequence[tuple[int, int, bytes]] = ()
    """Address records whose owner another record names: that record's index in `records`, the offset of the name in it,
    and the rest of the address record."""
    authority: bytes = b""
    """Record of the zone itself; empty: none."""
    zone_at: int = 0
    """Offset in octets at which the zone begins within the queried name."""
    is_authoritative: bool = True
    error: tuple[int, str] | None = None
    """Code and text of an extended error, for clients with EDNS."""


class _Unreadable(Exception):
    """Failure to read a message: it is malformed or shorter than it announces."""


def read(octets: bytes) -> Query | None:
    """Return the query in a message; None for a message that gets no answer: a response, or no DNS message."""
    if len(octets) < HEADER_OCTETS:
        return None
    _, flags, questions, *counts = _HEADER.unpack_from(octets)
    if flags & _QR:
        return None
    query = Query(flags & (_OPCODE | _RD | _CD))
    if flags & _OPCODE:
        query.rcode = dns.ENOTIMP
        return query
    try:
        if questions != 1:
            raise _Unreadable
        at = _read_question(octets, query)
        for section, count in enumerate(counts):
            for _ in range(count):
                at = _read_record(octets, at, query, may_be_opt=section == 2)
        if at != len(octets):
            raise _Unreadable
    except (_Unreadable, struct.error):
        query.rcode = dns.EFORMAT
    return query


def _read_question(octets: bytes, query: Query) -> int:
    labels, at = [], HEADER_OCTETS
    while length := _octet(octets, at):
        # There is no earlier name to which a pointer could point.
        if length > LABEL_OCTETS_MAX or at + 1 + length - HEADER_OCTETS >= NAME_OCTETS_MAX:
            raise _Unreadable
        labels.append(octets[at + 1 : at + 1 + length].lower())
        at += 1 + length
    query.type, query.klass = _PAIR.unpack_from(octets, at + 1)
    query.labels, query.question = tuple(labels), octets[HEADER_OCTETS : at + 5]
    return at + 5


def _read_record(octets: bytes, at: int, query: Query, *, may_be_opt: bool) -> int:
    """Skip a record, but read an OPT (RFC 6891 section 6.1). Returns the offset of the next record."""
    start = at
    while length := _octet(octets, at):
        if length >= _POINTER >> 8:
            # The target of a pointer does not matter: pointers are not followed, so they cannot form a loop.
            at += 1
            break
        if length > LABEL_OCTETS_MAX or at + 1 + length - start >= NAME_OCTETS_MAX:
            raise _Unreadable
        at += 1 + length
    kind, klass, ttl, size = _RECORD.unpack_from(octets, at + 1)
    end: int = at + 1 + _RECORD.size + size
    if end > len(octets):
        raise _Unreadable
    if kind == dns.OPT:
        if query.edns or at != start or not may_be_opt:
            raise _Unreadable
        query.edns, query.wants_dnssec = True, bool(ttl & _DO)
        query.udp_octets = min(max(klass, UDP_PLAIN_OCTETS), UDP_OCTETS_MAX)
        if ttl >> 16 & 0xFF:
            query.rcode = BADVERS
    return end


def _octet(octets: bytes, at: int) -> int:
    if at >= len(octets):
        raise _Unreadable
    return octets[at]


def write(query: Query, answer: Answer, limit: int) -> bytes:
    """Return the message of an answer without its first two octets, the id, which the caller copies from the query.

    Records beyond `limit` octets are left out: additional records silently, answers with the flag TC, after which the
    client asks again over TCP. Over TCP the flag is never set: there is nowhere left to ask, and resolvers drop such an
    answer. No record is cut.
    """
    opt = _opt(query, answer) if query.edns else b""
    room = limit - HEADER_OCTETS - len(query.question) - len(opt)
    flags = _QR | query.flags | (_AA if answer.is_authoritative else 0) | (answer.rcode & 0xF)
    chosen, room = _fitting(answer, room)
    if len(chosen) < len(answer.records) and limit < TCP_OCTETS_MAX:
        flags |= _TC
    records: list[bytes] = []
    places: dict[int, int] = {}
    at = HEADER_OCTETS + len(query.question)
    for index in chosen:
        record = answer.records[index]
        records += (_QUESTION_AT, record)
        places[index] = at + 2
        at += 2 + len(record)
    answered, authorities, added = len(chosen), 0, 0
    if answer.authority and room >= 2 + len(answer.authority):
        records += ((_POINTER | HEADER_OCTETS + answer.zone_at).to_bytes(2, "big"), answer.authority)
        room, authorities = room - 2 - len(answer.authority), 1
    for place, offset, record in answer.additional:
        # A pointer has 14 bits (RFC 1035 section 4.1.4); a client can ask for addresses beyond its reach.
        if flags & _TC or room < 2 + len(record):
            break
        if place not in places or places[place] + offset >= 0x4000:
            continue
        records += ((_POINTER | places[place] + offset).to_bytes(2, "big"), record)
        room, added = room - 2 - len(record), added + 1
    counts = (1 if query.question else 0, answered, authorities, added + (1 if opt else 0))
    return struct.pack("!5H", flags, *counts) + query.question + b"".join(records) + opt


def _fitting(answer: Answer, room: int) -> tuple[Sequence[int], int]:
    """Return the indices of the records that fit, in the answer's order, and the octets that are left."""
    sizes = [2 + len(record) for record in answer.records]
    if (left := room - sum(sizes)) >= 0:
        return range(len(sizes)), left
    ranks = answer.ranks() if answer.ranks is not None else range(len(sizes))
    chosen: list[int] = []
    for index in sorted(range(len(sizes)), key=ranks.__getitem__):
        # A smaller record may fit after one that does not.
        if sizes[index] <= room:
            room -= sizes[index]
            chosen.append(index)
    return sorted(chosen), room


def _opt(query: Query, answer: Answer) -> bytes:
    option = b""
    if answer.error is not None:
        code, text = answer.error
        error = struct.pack("!H", code) + text.encode()[:ERROR_OCTETS_MAX].decode("utf-8", "ignore").encode()
        option = _PAIR.pack(_EDE, len(error)) + error
    ttl = (answer.rcode >> 4) << 24 | (_DO if query.wants_dnssec else 0)
    return b"\0" + _RECORD.pack(dns.OPT, UDP_OCTETS_MAX, ttl, len(option)) + option


def record(payload: Any, ttl: int) -> bytes:
    """Return a record of twisted.names without its owner: type, class, time to live, and data with names in full."""
    data = BytesIO()
    payload.encode(data, None)
    octets = data.getvalue()
    return _RECORD.pack(payload.TYPE, dns.IN, ttl, len(octets)) + octets

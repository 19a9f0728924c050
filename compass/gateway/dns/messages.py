"""DNS messages as octets: one query in, one answer out (RFC 1035 section 4, RFC 6891, RFC 8914).

twisted.names encodes the records. The message around them is put together here, because a truncated answer must end
with a whole record, EDNS must be told from what it is not, and a query from anybody must cost little: nothing is
decoded of it but the question and where the other records end.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import msgspec
from twisted.names import dns

HEADER_OCTETS = 12
UDP_PLAIN_OCTETS = 512
"""An answer over UDP to who does not say that it takes more (RFC 1035 section 4.2.1)."""
UDP_OCTETS_MAX = 1232
"""An answer over UDP to whoever says that it takes more: what IPv6 carries in one piece on any link (RFC 8900)."""
TCP_OCTETS_MAX = 65535
"""An answer over TCP: what its length field can say (RFC 1035 section 4.2.2)."""
NAME_OCTETS_MAX = 255
"""A name (RFC 1035 section 2.3.4), the length octets and the root counted."""
LABEL_OCTETS_MAX = 63
BADVERS = 16
"""The rcode for a version of EDNS that is not known: its low four bits are in the header, the rest in OPT."""
NOT_READY = 14
OTHER_ERROR = 0
"""Codes of the extended errors that are told (RFC 8914)."""
ERROR_OCTETS_MAX = 200
"""Octets of an extended error's text: a sentence, in the shortest answer there is."""

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
    """What a message asks. `rcode` is not 0 when it is answered without looking anything up."""

    flags: int
    """Of its header, those that an answer repeats."""
    question: bytes = b""
    """As it was spelled, to be repeated: case and all."""
    labels: tuple[bytes, ...] = ()
    """The name's, in small letters, without the root."""
    type: int = 0
    klass: int = dns.IN
    edns: bool = False
    wants_dnssec: bool = False
    udp_octets: int = UDP_PLAIN_OCTETS
    rcode: int = dns.OK
    known: Any = None
    """What the zone found for it the last time, to be asked for again."""


class Answer(msgspec.Struct):
    """What is said to a query, as records without their owner, which is the name that was asked for."""

    rcode: int = dns.OK
    records: Sequence[bytes] = ()
    additional: Sequence[tuple[int, int, bytes]] = ()
    """Address records whose owner a record names: its place in `records`, where in it the name stands, the rest."""
    authority: bytes = b""
    """A record of the zone itself."""
    zone_at: int = 0
    """Where in the name that was asked for the zone begins, in octets."""
    is_authoritative: bool = True
    error: tuple[int, str] | None = None
    """An extended error's code and text, for those who speak EDNS."""


class _Unreadable(Exception):
    """The message ends before what it announces, or is none."""


def read(octets: bytes) -> Query | None:
    """The query in a message; None if it is to be passed over in silence, as what is no query or no message."""
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
        # A pointer has nothing before it to point to.
        if length > LABEL_OCTETS_MAX or at + 1 + length - HEADER_OCTETS >= NAME_OCTETS_MAX:
            raise _Unreadable
        labels.append(octets[at + 1 : at + 1 + length].lower())
        at += 1 + length
    query.type, query.klass = _PAIR.unpack_from(octets, at + 1)
    query.labels, query.question = tuple(labels), octets[HEADER_OCTETS : at + 5]
    return at + 5


def _read_record(octets: bytes, at: int, query: Query, *, may_be_opt: bool) -> int:
    """Step over a record; an OPT is understood (RFC 6891 section 6.1)."""
    start = at
    while length := _octet(octets, at):
        if length >= _POINTER >> 8:
            # What it points to does not matter, so it is not followed: there is no loop to be caught in.
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
    """The message that answers, but for its first two octets: the id, which the query's own are put in front of.

    What does not fit into `limit` octets is left out: additional records silently, answers with the flag TC, which
    sends the asker to TCP. Records are whole or not there.
    """
    opt = _opt(query, answer) if query.edns else b""
    room = limit - HEADER_OCTETS - len(query.question) - len(opt)
    flags = _QR | query.flags | (_AA if answer.is_authoritative else 0) | (answer.rcode & 0xF)
    records: list[bytes] = []
    places: list[int] = []
    at = HEADER_OCTETS + len(query.question)
    for record in answer.records:
        if (room := room - 2 - len(record)) < 0:
            flags |= _TC
            break
        records += (_QUESTION_AT, record)
        places.append(at + 2)
        at += 2 + len(record)
    answered, told, added = len(places), 0, 0
    if answer.authority and room >= 2 + len(answer.authority):
        records += ((_POINTER | HEADER_OCTETS + answer.zone_at).to_bytes(2, "big"), answer.authority)
        room, told = room - 2 - len(answer.authority), 1
    for place, offset, record in answer.additional:
        # A pointer reaches only so far (RFC 1035 section 4.1.4); what lies beyond it can be asked for.
        if flags & _TC or place >= answered or places[place] + offset >= 0x4000 or room < 2 + len(record):
            break
        records += ((_POINTER | places[place] + offset).to_bytes(2, "big"), record)
        room, added = room - 2 - len(record), added + 1
    counts = (1 if query.question else 0, answered, told, added + (1 if opt else 0))
    return struct.pack("!5H", flags, *counts) + query.question + b"".join(records) + opt


def _opt(query: Query, answer: Answer) -> bytes:
    option = b""
    if answer.error is not None:
        code, text = answer.error
        told = struct.pack("!H", code) + text.encode()[:ERROR_OCTETS_MAX].decode("utf-8", "ignore").encode()
        option = _PAIR.pack(_EDE, len(told)) + told
    ttl = (answer.rcode >> 4) << 24 | (_DO if query.wants_dnssec else 0)
    return b"\0" + _RECORD.pack(dns.OPT, UDP_OCTETS_MAX, ttl, len(option)) + option


def record(payload: Any, ttl: int) -> bytes:
    """A record of twisted.names without its owner: type, class, time to live, and the data, with names in full."""
    data = BytesIO()
    payload.encode(data, None)
    octets = data.getvalue()
    return _RECORD.pack(payload.TYPE, dns.IN, ttl, len(octets)) + octets

"""Announcements as octets: the vectors, the limits, and that no datagram does more than be dropped."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from compass.wire import limits
from compass.wire.announcement import MAGIC, Announcement, NotAnnouncement, decode, encode
from tests.wire import make_vectors

VECTORS: list[dict[str, Any]] = json.loads(make_vectors.PATH.read_text())["announcements"]
LEAST = {"type": "announcement", "server": "gns1.example", "port": 4863}


def padded(octets: int) -> bytes:
    """Return an announcement of that number of octets, most of them in an unknown field."""
    bare = len(MAGIC + msgspec.msgpack.encode({**LEAST, "later": "x" * 300}))
    datagram = MAGIC + msgspec.msgpack.encode({**LEAST, "later": "x" * (300 + octets - bare)})
    assert len(datagram) == octets
    return datagram


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_a_datagram_is_read_as_its_message_or_dropped(vector: dict[str, Any]) -> None:
    """Announcements, 2: "A datagram of more than 1024 octets, one that does not begin with the 8 octets, and one whose
    body is not an announcement with names and addresses as in Names MUST be dropped."
    """
    datagram = bytes.fromhex(vector["datagram"])
    if vector["message"] is None:
        with pytest.raises(NotAnnouncement) as told:
            decode(datagram)
        assert str(told.value)
        return
    said = decode(datagram)
    assert json.loads(msgspec.json.encode(said)) == vector["message"]
    assert decode(encode(said)) == said


def test_octets_and_addresses_are_bounded() -> None:
    """Each limit at n and at n + 1, for who reads and for who writes."""
    assert decode(padded(limits.ANNOUNCEMENT_OCTETS_MAX)).server == "gns1.example"
    with pytest.raises(NotAnnouncement, match="1025 octets"):
        decode(padded(limits.ANNOUNCEMENT_OCTETS_MAX + 1))
    many = tuple(f"192.0.2.{number}" for number in range(limits.ANNOUNCED_ADDRESSES_MAX + 1))
    assert decode(encode(Announcement("s", 1, many[:-1]))).addresses == many[:-1]
    with pytest.raises(NotAnnouncement, match="9 addresses"):
        decode(encode(Announcement("s", 1, many)))
    with pytest.raises(ValueError, match="octets"):
        encode(Announcement("s", 1, many * 20))


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (limits.ANNOUNCE_SECONDS_MIN, 1.0),
        (limits.ANNOUNCE_SECONDS_MIN - 0.5, 1.0),
        (limits.ANNOUNCE_SECONDS_MAX, 300.0),
        (limits.ANNOUNCE_SECONDS_MAX + 1, 300.0),
        (float("inf"), 300.0),
        (-5.0, 1.0),
    ],
)
def test_the_time_to_the_next_one_is_bounded(said: float, taken: float) -> None:
    """The document: "less than 1 is taken as 1, more than 300 as 300"."""
    assert decode(encode(Announcement("s", 1, (), said))).next_seconds == taken


@given(some.binary(max_size=1200))
def test_whatever_a_stranger_sends_is_read_or_dropped(octets: bytes) -> None:
    """Any octets decode to an announcement in canonical form or raise NotAnnouncement, with or without the prefix."""
    for datagram in (octets, MAGIC + octets):
        try:
            said = decode(datagram)
        except NotAnnouncement:
            continue
        assert decode(encode(said)) == said


@given(
    some.dictionaries(
        some.sampled_from(["server", "port", "addresses", "next_seconds", "x"]),
        some.recursive(
            some.none() | some.booleans() | some.integers(-(2**63), 2**64 - 1) | some.floats() | some.text(max_size=80),
            lambda inner: some.lists(inner, max_size=12) | some.dictionaries(some.text(max_size=3), inner, max_size=3),
            max_leaves=12,
        ),
    )
)
def test_whatever_fields_a_stranger_fills_in(fields: dict[str, Any]) -> None:
    """The same, with a body that is a map of type announcement."""
    datagram = MAGIC + msgspec.msgpack.encode({**LEAST, **fields})
    try:
        said = decode(datagram)
    except NotAnnouncement:
        return
    assert len(said.addresses) <= limits.ANNOUNCED_ADDRESSES_MAX and 1 <= said.port <= 65535

"""PROXY protocol, version 2: headers as its document has them, and what is not one."""

from __future__ import annotations

import socket

import pytest

from compass.daemons.net.proxy_protocol import (
    HEADER_OCTETS_MAX,
    SIGNATURE,
    Balancers,
    Header,
    InvalidHeader,
    read_header,
)


def header(source: str, port: int = 5000, more: bytes = b"", command: int = 0x21) -> bytes:
    """Return a header for a client that connects to port 4863."""
    family, code = (socket.AF_INET6, 0x21) if ":" in source else (socket.AF_INET, 0x11)
    own = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    fields = socket.inet_pton(family, source) + socket.inet_pton(family, own)
    fields += port.to_bytes(2, "big") + (4863).to_bytes(2, "big") + more
    return SIGNATURE + bytes([command, code]) + len(fields).to_bytes(2, "big") + fields


@pytest.mark.parametrize("source", ["192.0.2.7", "2001:db8::7"])
@pytest.mark.parametrize("more", [b"", b"\x03\x00\x04abcd"], ids=["plain", "with a field of the balancer"])
def test_a_header_says_who_the_client_is(source: str, more: bytes) -> None:
    """A header may arrive octet by octet; what follows is the connection's own."""
    whole = header(source, 5000, more)
    assert all(read_header(whole[:n]) is None for n in range(len(whole)))
    assert read_header(whole + b"\x16\x03") == Header(len(whole), source, 5000)


def test_a_balancer_may_speak_for_itself() -> None:
    """Health checks have the command LOCAL; their addresses are not read."""
    assert read_header(header("192.0.2.7", command=0x20)) == Header(28, "", 0)
    empty = SIGNATURE + b"\x20\x00\x00\x00"
    assert read_header(empty) == Header(16, "", 0)


@pytest.mark.parametrize(
    "octets",
    [
        b"\x16",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n",
        SIGNATURE[:11] + b"X",
        header("192.0.2.7", command=0x22),
        header("192.0.2.7", command=0x11),
        SIGNATURE + b"\x21\x31\x00\x02ab",
        SIGNATURE + b"\x21\x11\x00\x02ab",
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11" + HEADER_OCTETS_MAX.to_bytes(2, "big"),
    ],
)
def test_what_is_not_a_header(octets: bytes) -> None:
    """The text form, other versions and commands, Unix sockets, addresses that are cut, and endless headers."""
    with pytest.raises(InvalidHeader):
        read_header(octets)


def test_which_peers_are_balancers() -> None:
    """Addresses and networks of the configuration, and no other peer."""
    balancers = Balancers(("192.0.2.1", "198.51.100.0/24", "2001:db8::/32"))
    for address in ("192.0.2.1", "::ffff:192.0.2.1", "198.51.100.77", "2001:db8:1::2"):
        assert balancers.include(address)
    for address in ("192.0.2.2", "2001:db9::1", "a-name", ""):
        assert not balancers.include(address)
    assert not Balancers(()).include("192.0.2.1")

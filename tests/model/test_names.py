"""Names, addresses and free text: what is taken, in which form, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass.model.limits import HOST_NAME_MAX, LABEL_MAX, PORT_MAX
from compass.model.names import (
    InvalidAddress,
    InvalidName,
    category_of,
    format_endpoint,
    parse_address,
    parse_endpoint,
    parse_host_name,
    parse_label,
    parse_port,
    parse_service_id,
)
from compass.model.text import escape_line, is_printable_line

LONGEST_HOST_NAME = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("web", "web"),
        ("OpenUSS", "openuss"),
        ("3com", "3com"),
        ("a-b", "a-b"),
        ("x", "x"),
        ("a" * 63, "a" * 63),
    ],
)
def test_a_label_is_kept_in_lower_case(text: str, label: str) -> None:
    """DNS names are the same in any case, so one spelling is kept."""
    assert parse_label(text) == label


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-a",
        "a-",
        "a_b",
        "a b",
        "a.b",
        "é",
        "商店",
        "\u212a",
        "a\n",
        "a\0",
        "\ud800",
        " a",
        "a" * (LABEL_MAX + 1),
    ],
)
def test_what_is_no_dns_label_is_refused(text: str) -> None:
    """Also a letter that is only in lower case an ASCII one (the Kelvin sign), and one character too many."""
    with pytest.raises(InvalidName) as caught:
        parse_label(text)
    assert not isinstance(caught.value, InvalidAddress)
    assert is_printable_line(str(caught.value)) and len(str(caught.value)) < 300


def test_a_service_id_is_two_labels() -> None:
    """A service id is `service.category`, and its category can be derived."""
    assert parse_service_id("ChinaServer.OpenUSS") == "chinaserver.openuss"
    assert category_of("chinaserver.openuss") == "openuss"
    for text in ("", "a", "a.b.c", ".b", "a.", ".", "a b.c", "a" * 100_000):
        with pytest.raises(InvalidName) as caught:
            parse_service_id(text)
        assert len(str(caught.value)) < 300


def test_a_host_name_has_labels_and_a_length() -> None:
    """253 characters are the most, RFC 1035; each label is one."""
    assert parse_host_name("Web1.Example.NET") == "web1.example.net"
    assert len(LONGEST_HOST_NAME) == HOST_NAME_MAX and parse_host_name(LONGEST_HOST_NAME) == LONGEST_HOST_NAME
    for text in ("", ".", "a..b", "a.", "*.example", LONGEST_HOST_NAME + "d", "x" * 100_000):
        with pytest.raises(InvalidName) as caught:
            parse_host_name(text)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:0a00:0001", "10.0.0.1"),
    ],
)
def test_an_address_has_one_form(text: str, address: str) -> None:
    """RFC 5952 for IPv6; an IPv4-mapped address is the IPv4 address, or one listener would be two."""
    assert parse_address(text) == address
    assert parse_address(address) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "10.0.0",
        "10.0.0.256",
        "010.0.0.1",
        "10.0.0.1 ",
        "10.0.0.1/8",
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "::ffff:224.0.0.1",
        "ff02::1",
        "fe80::1%eth0",
        "fe80::1%" + "z" * 100_000,
        "1" * 100_000,
        "\ud800",
    ],
)
def test_what_nobody_can_connect_to_is_no_address(text: str) -> None:
    """Names, unspecified, multicast and broadcast addresses, zones; a long mistake has a short answer."""
    with pytest.raises(InvalidAddress) as caught:
        parse_address(text)
    assert is_printable_line(str(caught.value)) and len(str(caught.value)) < 300


def test_a_port_is_from_1_to_65535() -> None:
    """0 and 65536 are not."""
    assert parse_port(1) == 1 and parse_port(PORT_MAX) == 65535
    for port in (0, -1, PORT_MAX + 1, 2**64):
        with pytest.raises(InvalidAddress):
            parse_port(port)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[2001:DB8::1]:65535", ("2001:db8::1", 65535)),
        ("[::1]:00080", ("::1", 80)),
    ],
)
def test_an_endpoint_is_address_and_port(text: str, endpoint: tuple[str, int]) -> None:
    """IPv6 stands in brackets."""
    assert parse_endpoint(text) == endpoint
    assert parse_endpoint(format_endpoint(*endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1",
        ":80",
        "10.0.0.1:",
        "10.0.0.1:http",
        "10.0.0.1:-1",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:٨٠",
        "::1:80",
        "[::1]",
        "[::1:80",
        "::1]:80",
        "[]:80",
        "a:80",
        "10.0.0.1:" + "9" * 5000,
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    """Also digits of other scripts, and more digits than Python turns into a number."""
    with pytest.raises(InvalidAddress) as caught:
        parse_endpoint(text)
    assert len(str(caught.value)) < 300


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_is_a_name_or_a_name_problem(text: str) -> None:
    """Nothing else comes of it, and what is taken is in its final form."""
    for parse in (parse_label, parse_service_id, parse_host_name, parse_address):
        try:
            assert parse(parse(text)) == parse(text)
        except InvalidName as problem:
            assert is_printable_line(str(problem))


@given(st.text(st.characters(exclude_categories=[])), st.integers(3, 20))
def test_storable_text_has_no_control_characters(text: str, limit: int) -> None:
    """Characters that cannot be stored are escaped, in a line of bounded length that UTF-8 can encode."""
    line = escape_line(text, limit)
    assert is_printable_line(line) and len(line) <= limit
    line.encode()
    if is_printable_line(text) and len(text) <= limit:
        assert line == text


def test_storable_text_at_its_limit() -> None:
    """Text of the full length stays; one character more and its end is cut."""
    assert escape_line("x" * 10, 10) == "x" * 10
    assert escape_line("x" * 11, 10) == "x" * 7 + "..."
    assert escape_line("a\0b\ud800\x7f", 40) == "a\\u0000b\\ud800\\u007f"

"""Names and addresses: parsed once at the edge, valid afterwards (opengnsp.md, "Names").

A category is one DNS label, a service is `service.category`, an address is an IPv4 or IPv6 literal in its
shortest form. The DNS gateway answers with the same names, so names that DNS cannot represent are refused here.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Annotated, Any, Literal

from msgspec import Meta

from compass.model.limits import (
    CHECK_MAX,
    DETAIL_MAX,
    HOST_NAME_MAX,
    LABEL_MAX,
    METADATA_ENTRIES_MAX,
    METADATA_KEY_MAX,
    METADATA_VALUE_MAX,
    PORT_MAX,
    between,
)
from compass.model.text import printable_pattern

PARSED_MAX = 20_000
"""Most names, and most addresses, whose parsed form is cached: they return with every request of their host, and
parsing them was a tenth of a registration. At most some 6 MB."""

SERVER_PORT = 4863
"""Port of a server if none is configured (opengnsp.md, "Transport")."""

_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
RESERVED_PREFIX = "gns-"
"""Beginning of the names of categories that compass itself uses, such as those of tokens: no registration declares
them."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class InvalidName(ValueError):
    """Error of a name that cannot be used; the text describes a valid name."""

    code: Literal["bad-name", "bad-address"] = "bad-name"
    """Code of the refusal that answers a request with such a name."""


class InvalidAddress(InvalidName):
    """Error of an address or port that cannot be used; the text describes a valid one."""

    code = "bad-address"


def parse_label(text: str, what: str = "name") -> str:
    """Return one DNS label in lower case (RFC 1035 section 2.3.1, digits may lead as in RFC 1123 section 2.1). Raises
    InvalidName."""
    if len(text) > LABEL_MAX:
        raise InvalidName(f"{what} {text[:80]!r} has {len(text)} characters; a DNS label has at most {LABEL_MAX}")
    label = text.lower()
    # Some letters of other scripts become ASCII in lower case, such as the Kelvin sign.
    if not text.isascii() or not _LABEL.fullmatch(label):
        raise InvalidName(f"{what} {text!r} is not a DNS label: letters, digits and inner hyphens only")
    return label


@lru_cache(PARSED_MAX)
def parse_service_id(text: str) -> str:
    """Return `service.category`, both DNS labels, in lower case. Raises InvalidName."""
    service, dot, category = text.partition(".")
    if not dot or "." in category:
        raise InvalidName(f"service id {text[:140]!r} is not of the form service.category")
    return f"{parse_label(service, 'service')}.{parse_label(category, 'category')}"


def parse_pool_name(text: str) -> str:
    """Parse the name of a category or of a service. Raises InvalidName."""
    return parse_service_id(text) if "." in text else parse_label(text, "category")


def parse_host_name(text: str) -> str:
    """Return a host's name: DNS labels joined by dots, in lower case. Raises InvalidName."""
    if len(text) > HOST_NAME_MAX:
        raise InvalidName(f"host name {text[:80]!r}... has {len(text)} characters; at most {HOST_NAME_MAX}")
    return ".".join(parse_label(label, "host name label") for label in text.split("."))


def matches_host_name(host: str, pattern: str) -> bool:
    """Return whether a host name is that of a pattern, whose first label may be `*` (RFC 6125 section 6.4.3)."""
    first, _, rest = pattern.lower().partition(".")
    label, _, domain = host.lower().partition(".")
    return host.lower() == pattern.lower() or (first == "*" and bool(label) and domain == rest != "")


def category_of(service_id: str) -> str:
    """Return the category of a parsed service id, or an empty text for a category's name."""
    return service_id.partition(".")[2]


@lru_cache(PARSED_MAX)
def parse_address(text: str) -> str:
    """Return an IPv4 or IPv6 literal in canonical form (RFC 5952 for IPv6), an IPv4-mapped one as IPv4, so that one
    listener has one address. Raises InvalidAddress for anything that is not one interface of one host."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidAddress(f"address {text[:80]!r} is neither an IPv4 nor an IPv6 address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise InvalidAddress(f"address {text[:80]!r} has a zone, which means nothing on another host")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified or address.is_multicast or address == _BROADCAST:
        raise InvalidAddress(f"address {text!r} is not one that a dependant can connect to")
    return str(address)


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return the network that `text` names, or that of a single address. Raises InvalidAddress."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as problem:
        raise InvalidAddress(
            f"{text[:80]!r} is not a network such as 192.0.2.0/24 or 2001:db8::/32: {problem}"
        ) from None


def parse_port(port: int) -> int:
    """Return a TCP port to which a client can connect: 1 to 65535. Raises InvalidAddress."""
    if not 1 <= port <= PORT_MAX:
        raise InvalidAddress(f"port {port} is not between 1 and {PORT_MAX}")
    return port


def parse_endpoint(text: str) -> tuple[str, int]:
    """Parse `address:port`, IPv6 in brackets (RFC 3986 section 3.2.2). Raises InvalidAddress."""
    address, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > len(str(PORT_MAX)):
        raise InvalidAddress(f"{text[:80]!r} is not of the form address:port")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        raise InvalidAddress(f"{text[:80]!r}: write an IPv6 address in brackets, as in [2001:db8::1]:2028")
    return parse_address(address), parse_port(int(port))


def format_endpoint(address: str, port: int) -> str:
    """Return `address:port`, the inverse of `parse_endpoint`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def parse_server(text: str) -> tuple[str, int]:
    """Parse `name:port`, `address:port`, or a name or address alone for the default port. Raises InvalidName."""
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name, port = text, str(SERVER_PORT)
    if name.startswith("[") or ":" in name:
        return parse_endpoint(f"{name}:{port}")
    number = parse_port_text(text, port)
    if name.rpartition(".")[2].isdigit():
        # No top-level domain is a number, so this is meant to be an IPv4 address.
        return parse_address(name), number
    return parse_host_name(name), number


def parse_group(text: str) -> tuple[str, int]:
    """Parse `address:port` of an IPv4 multicast group (RFC 1112, RFC 2365). Raises InvalidAddress."""
    address, _, port = text.rpartition(":")
    try:
        if ipaddress.IPv4Address(address).is_multicast:
            return address, parse_port_text(text, port)
    except ValueError:
        pass
    raise InvalidAddress(f"{text[:80]!r} is no IPv4 multicast group and port, such as 239.255.48.63:4863")


def parse_port_text(whole: str, port: str) -> int:
    """Return the port at the end of `whole`. Raises InvalidAddress."""
    if not (port.isascii() and port.isdigit()):
        raise InvalidAddress(f"{whole[:80]!r}: the port is not a number")
    return parse_port(int(port[:9]))


# Types of fields that hold a name or an address: text, with the rules of the parsers above as JSON Schema. msgspec puts
# them into the schema of a message and does not enforce them: the parsers refuse an invalid text, with a reason.


def or_empty(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that also accepts the empty text."""
    return {"anyOf": [schema, {"const": ""}]}


_ONE_LABEL = f"[A-Za-z0-9]([A-Za-z0-9-]{{0,{LABEL_MAX - 2}}}[A-Za-z0-9])?"
LABEL: dict[str, Any] = {"type": "string", "pattern": f"^{_ONE_LABEL}$", "examples": ["openuss"]}
SERVICE = {"type": "string", "pattern": rf"^{_ONE_LABEL}\.{_ONE_LABEL}$", "examples": ["chinaserver.openuss"]}
POOL = {
    "type": "string",
    "pattern": rf"^{_ONE_LABEL}(\.{_ONE_LABEL})?$",
    "examples": ["openuss", "chinaserver.openuss"],
}
HOST = {"type": "string", "pattern": rf"^{_ONE_LABEL}(\.{_ONE_LABEL})*$", "maxLength": HOST_NAME_MAX}
DEPENDENCY = {"type": "string", "pattern": f"^{_ONE_LABEL} {_ONE_LABEL}$", "examples": ["web openuss"]}
ADDRESS = {
    "type": "string",
    "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}],
    # The unspecified address, broadcast and multicast.
    "not": {"pattern": r"^(0\.0\.0\.0|255\.255\.255\.255|22[4-9]\..*|23\d\..*|[fF][fF].*|[0:]+|.*:.*\..*)$"},
    "examples": ["192.0.2.7", "2001:db8::1"],
}
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_FIRST_OCTET = "(1[0-9][0-9]|2[01][0-9]|22[0-3]|[1-9][0-9]?)"
LISTENER = {
    "type": "string",
    "pattern": rf"^{_ONE_LABEL}\.{_ONE_LABEL} "
    rf"({_FIRST_OCTET}(\.{_OCTET}){{3}}|\[2001:db8:(:[1-9a-f][0-9a-f]{{0,3}}){{1,5}}\])"
    r":([1-5][0-9]{0,4}|6[0-4][0-9]{3}|[1-9][0-9]{0,3})$",
    "examples": ["chinaserver.openuss 192.0.2.7:2028"],
}
"""Service id and endpoint. Every IPv6 address is accepted in brackets; the pattern describes only some of them."""
SERVER = {
    "type": "string",
    "pattern": rf"^({_ONE_LABEL}\.){{0,3}}[A-Za-z]([A-Za-z0-9-]{{0,20}}[A-Za-z0-9])?(:[1-9][0-9]{{0,3}})?$",
}
"""Name of a server with or without its port; the pattern describes only names, and only some of them."""
PLAIN = printable_pattern()
"""Pattern of a printable line; it describes only some of them."""

Label = Annotated[str, Meta(extra_json_schema=LABEL)]
OptionalLabel = Annotated[str, Meta(extra_json_schema=or_empty(LABEL))]
ServiceId = Annotated[str, Meta(extra_json_schema=SERVICE)]
OptionalServiceId = Annotated[str, Meta(extra_json_schema=or_empty(SERVICE))]
PoolName = Annotated[str, Meta(extra_json_schema=POOL)]
"""Category or service."""
HostName = Annotated[str, Meta(extra_json_schema=HOST)]
ServerName = Annotated[str, Meta(extra_json_schema=SERVER)]
Address = Annotated[str, Meta(extra_json_schema=ADDRESS)]
OptionalAddress = Annotated[str, Meta(extra_json_schema=or_empty(ADDRESS))]
Port = Annotated[int, between(1, PORT_MAX)]
ObjectName = Annotated[str, Meta(extra_json_schema={"anyOf": [POOL, LISTENER]})]
"""Category, service or listener."""

Line = Annotated[str, Meta(extra_json_schema={"pattern": PLAIN})]
"""Printable text in one line."""
Detail = Annotated[str, Meta(extra_json_schema={"maxLength": DETAIL_MAX, "pattern": PLAIN})]
CheckText = Annotated[str, Meta(extra_json_schema={"maxLength": CHECK_MAX, "pattern": PLAIN})]
Metadata = Annotated[
    dict[str, Annotated[str, Meta(extra_json_schema={"maxLength": METADATA_VALUE_MAX, "pattern": PLAIN})]],
    Meta(
        extra_json_schema={
            "maxProperties": METADATA_ENTRIES_MAX,
            "propertyNames": {"minLength": 1, "maxLength": METADATA_KEY_MAX, "pattern": PLAIN},
        }
    ),
]

"""The DNS rcode of each refusal: one table, and a test that it covers every code."""

from __future__ import annotations

from twisted.names.dns import EBADVERSION, EFORMAT, ENAME, ENOTIMP, EREFUSED, ESERVER, OK

RCODES: dict[int, str] = {
    OK: "NOERROR",
    EFORMAT: "FORMERR",
    ESERVER: "SERVFAIL",
    ENAME: "NXDOMAIN",
    ENOTIMP: "NOTIMP",
    EREFUSED: "REFUSED",
    EBADVERSION: "BADVERS",
}
"""What the codes that are given here are called (RFC 6895, section 2.3)."""
RCODE: dict[str, int] = {
    "malformed": ESERVER,
    "unknown-message": ESERVER,
    "unsupported-version": ESERVER,
    "out-of-turn": ESERVER,
    "too-large": ESERVER,
    "forbidden": ESERVER,
    "bad-credential": ESERVER,
    "bad-name": ENAME,
    "bad-address": ENAME,
    "bad-value": ESERVER,
    "unknown-category": ENAME,
    "unknown-service": ENAME,
    "unknown-dependency": ENAME,
    "unknown-listener": ENAME,
    "unknown-credential": ESERVER,
    "unknown-host": ENAME,
    "unknown-way": ENAME,
    "exists": ESERVER,
    "in-use": ESERVER,
    "stale-epoch": ESERVER,
    "deregistered": ESERVER,
    "invalid-topology": ESERVER,
    "not-ready": ESERVER,
    "busy": ESERVER,
    "store-unavailable": ESERVER,
    "unreachable": ESERVER,
}
"""NXDOMAIN for what is not there, as this machine sees it: a host's zone has the names that its services depend on,
and resolvers take a REFUSED for a broken server. SERVFAIL for what cannot be told."""


def rcode_of(code: str) -> int:
    """The rcode for a refusal's code; one that a newer server invented says nothing about the name."""
    return RCODE.get(code, ESERVER)

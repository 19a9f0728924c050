"""DNS rcodes of refusals: one table; a test checks that it covers every code."""

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
"""Names of the rcodes that answers have (RFC 6895, section 2.3)."""
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
"""Rcode by refusal code. NXDOMAIN for names that this machine does not have: a host's zone has the names that its
services depend on, and resolvers treat REFUSED as a broken server. SERVFAIL for every other refusal."""


def rcode_of(code: str) -> int:
    """Return the rcode of a refusal's code; SERVFAIL for a code of a newer server."""
    return RCODE.get(code, ESERVER)

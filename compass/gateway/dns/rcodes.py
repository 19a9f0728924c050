"""DNS rcodes of refusals."""

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
NO_SUCH_NAME = frozenset(
    ("bad-name", "bad-address", "unknown-category", "unknown-service", "unknown-dependency", "unknown-listener")
) | {"unknown-host", "unknown-way", "unknown-authority"}
"""Codes of refusals that mean NXDOMAIN: the machine does not have the name. A host's zone has the names that its
services depend on, and resolvers treat REFUSED as a broken server."""


def rcode_of(code: str) -> int:
    """Return the rcode of a refusal's code: NXDOMAIN or SERVFAIL."""
    return ENAME if code in NO_SUCH_NAME else ESERVER

"""Operations of the server API: the table from which its routes and its OpenAPI document (3.1) are made.

Reads are GETs of an object. Everything else is a POST to the name of a protocol message (opengnsp.md, "Messages") with
the message's fields as JSON: every request of OpenGNSP has an operation here, with the same answers and refusals.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from compass.gateway.http.health import HEALTH, METRICS, READY
from compass.gateway.http.openapi import EVENTS, Operation, document
from compass.gateway.http.prometheus_sd import PROMETHEUS
from compass.gateway.http.sse import Revision
from compass.model import replies, requests
from compass.model.cluster import HostSessions
from compass.model.rows import AuthorityInfo, Change


class Who(msgspec.Struct, frozen=True):
    """Identity of the caller, as the server sees it."""

    role: str
    name: str
    may: tuple[str, ...]
    """Messages that this role may send; a page need not offer others."""


class EventsAsked(msgspec.Struct, frozen=True):
    """Revision from which to resume; without one, from now on."""

    since: Revision | UnsetType = UNSET


WHO = Operation(method="GET", path="/v1/who", summary="The caller's role, name and permitted messages.", answers=Who)
OPENAPI = Operation(method="GET", path="/openapi.json", summary="This document.", no_authentication=True)
AUTHORITY = Operation(
    method="GET",
    path="/v1/join",
    summary="The authority that signs for joining hosts, which verify it by the fingerprint in their token.",
    answers=AuthorityInfo,
    no_authentication=True,
)
JOIN = Operation(
    method="POST",
    path="/v1/join",
    summary="The first certificate of a host, for a join token and a certificate request (base64 of PKCS #10, DER). "
    "The token is used up.",
    asks=requests.Join,
    answers=replies.Certified,
    no_authentication=True,
)
EVENTS_OF_ALL = Operation(
    method="GET",
    path="/v1/events",
    summary="Every committed change as it happens: an event `position` (data: Position), then `change` (data: Change); "
    "the id is the revision, from which a stream resumes. `position` with complete=false: read everything again.",
    asks=EventsAsked,
    media=EVENTS,
    headers=("Last-Event-ID",),
)

HOST_SESSIONS = Operation(
    method="GET",
    path="/v1/hosts/sessions",
    summary="The hosts' sessions as they begin and end: events `sessions` (data: HostSessions), the first one with all "
    "that this server knows; the id is the number of the view. An interrupted stream begins with all again.",
    media=EVENTS,
)


_CURSOR = "A page has about a megabyte; `cursor` names the next one."


def _rows(path: str, kind: str, summary: str, *omitted: str) -> Operation:
    fetch = _pages(path, requests.Fetch, replies.Rows, f"{summary} {_CURSOR}")
    return msgspec.structs.replace(fetch, fixed={"kind": kind, **fetch.fixed}, omitted=(*omitted, "type"))


def _pages(path: str, asks: type[msgspec.Struct], answers: Any, summary: str) -> Operation:
    return msgspec.structs.replace(_look(path, asks, answers, summary), fixed={"pages": True})


def _message(asks: type[msgspec.Struct], answers: Any, summary: str) -> Operation:
    path = f"/v1/{asks.__struct_config__.tag}"
    return Operation(method="POST", path=path, summary=summary, asks=asks, answers=answers)


def _look(path: str, asks: type[msgspec.Struct], answers: Any, summary: str) -> Operation:
    return Operation(method="GET", path=path, summary=summary, asks=asks, answers=answers)


ASKED = (
    _rows("/v1/categories", "category", "The categories, with backup and policy.", "within", "state"),
    _rows("/v1/services", "service", "The services.", "state"),
    _rows("/v1/dependencies", "dependency", "The dependencies between categories.", "state"),
    _rows("/v1/listeners", "listener", "The listeners, offline ones included."),
    _rows("/v1/credentials", "credential", "The credentials, without their digests.", "state"),
    _rows("/v1/hosts", "host", "The hosts.", "within", "state"),
    _rows("/v1/alerts", "alert", "The incidents that are open.", "within", "state"),
    _look(
        "/v1/dependencies/{service}",
        requests.Pull,
        replies.Dependencies,
        "The dependencies of a service (function 2.3).",
    ),
    _look(
        "/v1/impact",
        requests.Impact,
        replies.Told,
        "The hosts that a change of a category, service or listener would notify.",
    ),
    _look("/v1/examine", requests.Examine, replies.CaseFile, "The evidence of this server about a listener's health."),
    _pages(
        "/v1/logs/{log}",
        requests.ReadLog,
        replies.LogEntries,
        "Entries of the updates, security or administration log. A page has about a megabyte; with `more`, the next "
        "one is `after` its last entry.",
    ),
    _look("/v1/status", requests.Status, replies.ServerStatus, "Figures of this server."),
    _look("/v1/ways", requests.Ways, replies.WayList, "The channels to administrators, and their state."),
    _look("/v1/digest", requests.Digest, replies.CatalogueDigest, "The digest of all rows at a revision, or now."),
    _pages("/v1/lag", requests.Lag, replies.Lags, f"The revision that each host holds. {_CURSOR}"),
    _message(requests.Register, replies.Registered, "Register a listener (function 2.1)."),
    _message(requests.Deregister, replies.Deregistered, "Deregister a listener (function 2.2)."),
    _message(requests.Drain, replies.Reported, "Set whether a listener accepts new users."),
    _message(requests.Report, replies.Reported, "Report that a listener is dead or slow (function 2.5)."),
    _message(requests.Put, replies.Done, "Add an object (`create`) or change one."),
    _message(requests.Remove, replies.Done, "Remove an object that nothing uses."),
    _message(requests.Rename, replies.Done, "Rename a category or a service, with all that is known under its name."),
    _message(requests.IssueCredential, replies.CredentialIssued, "Issue a token for a service; it is shown only once."),
    _message(requests.RevokeCredential, replies.Done, "Revoke a token."),
    _message(requests.Apply, replies.Done, "Apply a topology to the declared objects, all or nothing."),
    _message(requests.Steer, replies.Steered, "Send this server's hosts to other servers, or accept them again."),
    _message(requests.Invite, replies.Invited, "Make a join token for a host; it is shown only once."),
    _message(requests.TryWays, replies.WaysTried, "Send a test message by the channels to administrators."),
    _message(requests.Purge, replies.Done, "Remove rows of listeners that have been offline for long."),
)
"""Operations that are a request of the protocol."""

OPERATIONS = (HEALTH, READY, METRICS, OPENAPI, WHO, AUTHORITY, JOIN, *ASKED, PROMETHEUS, EVENTS_OF_ALL, HOST_SESSIONS)
SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "description": "Made by 'opengnsadmin token add'."},
    "certificate": {"type": "mutualTLS", "description": "Of this installation's authority, role admin or host."},
}
_ABOUT = "Everything that opengnsadmin can do, over HTTPS. A refusal has a code, and a text with advice."


def server_document() -> dict[str, Any]:
    """Return the OpenAPI document, ready for JSON."""
    events = (replies.Position, Change, HostSessions)
    return document("OpenGNS server API", _ABOUT, OPERATIONS, events, SECURITY)

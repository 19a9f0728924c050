"""What the server API can be asked for: the table that its routes and its OpenAPI document (3.1) are made from.

Reading is a GET of what is meant. Everything else is a POST to the name of a message of the protocol (opengnsp.md,
"Messages") with the message's own fields as JSON: what can be asked over OpenGNSP can be asked here, and is answered or
refused with the very same words.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from compass.gateway.host_api.operations import CategoryAsked, Revision
from compass.gateway.http.health import HEALTH, METRICS, READY
from compass.gateway.http.openapi import EVENTS, Operation, document
from compass.gateway.http.prometheus_sd import TargetGroup
from compass.model.replies import (
    CaseFile,
    CatalogueDigest,
    CredentialIssued,
    Dependencies,
    Deregistered,
    Done,
    Lags,
    LogEntries,
    Position,
    Registered,
    Reported,
    Rows,
    ServerStatus,
    Steered,
    Told,
    WayList,
    WaysTried,
)
from compass.model.requests import (
    Apply,
    Deregister,
    Digest,
    Drain,
    Examine,
    Fetch,
    Impact,
    IssueCredential,
    Lag,
    Pull,
    Purge,
    Put,
    ReadLog,
    Register,
    Remove,
    Report,
    RevokeCredential,
    Status,
    Steer,
    TryWays,
    Ways,
)
from compass.model.rows import Change


class Who(msgspec.Struct, frozen=True):
    """Who the server takes you for."""

    role: str
    name: str
    may: tuple[str, ...]
    """The messages that this role may send: what a page need not offer to others."""


class EventsAsked(msgspec.Struct, frozen=True):
    """From which revision on; without one, from now on."""

    since: Revision | UnsetType = UNSET


WHO = Operation(method="GET", path="/v1/who", summary="Who you are here, and what you may.", answers=Who)
OPENAPI = Operation(method="GET", path="/openapi.json", summary="This document.", no_authentication=True)
EVENTS_OF_ALL = Operation(
    method="GET",
    path="/v1/events",
    summary="Every committed change as it happens: an event `position` (data: Position), then `change` (data: Change); "
    "the id is the revision, and resumes. `position` with complete=false: read everything again.",
    asks=EventsAsked,
    media=EVENTS,
    headers=("Last-Event-ID",),
)
PROMETHEUS = Operation(
    method="GET",
    path="/v1/prometheus/{category}",
    summary="Every registered listener of a category, for Prometheus' http_sd_configs.",
    asks=CategoryAsked,
    answers=tuple[TargetGroup, ...],
)


def _rows(path: str, kind: str, summary: str, *omitted: str) -> Operation:
    fixed = {"kind": kind}
    return Operation(
        method="GET", path=path, summary=summary, asks=Fetch, answers=Rows, fixed=fixed, omitted=(*omitted, "type")
    )


def _message(asks: type[msgspec.Struct], answers: Any, summary: str) -> Operation:
    path = f"/v1/{asks.__struct_config__.tag}"
    return Operation(method="POST", path=path, summary=summary, asks=asks, answers=answers)


def _look(path: str, asks: type[msgspec.Struct], answers: Any, summary: str) -> Operation:
    return Operation(method="GET", path=path, summary=summary, asks=asks, answers=answers)


ASKED = (
    _rows("/v1/categories", "category", "The categories, with backup and policy.", "within", "state"),
    _rows("/v1/services", "service", "The services.", "state"),
    _rows("/v1/dependencies", "dependency", "Which category depends on which.", "state"),
    _rows("/v1/listeners", "listener", "The listeners, offline ones included."),
    _rows("/v1/credentials", "credential", "The credentials, without their digests.", "state"),
    _rows("/v1/hosts", "host", "The hosts.", "within", "state"),
    _rows("/v1/alerts", "alert", "The incidents that are open.", "within", "state"),
    _look("/v1/dependencies/{service}", Pull, Dependencies, "What a service depends on (function 2.3)."),
    _look("/v1/impact", Impact, Told, "Who would be told of a category, service or listener."),
    _look("/v1/examine", Examine, CaseFile, "What this server knows about a listener's health."),
    _look("/v1/logs/{log}", ReadLog, LogEntries, "Entries of the updates, security or administration log."),
    _look("/v1/status", Status, ServerStatus, "This server in figures."),
    _look("/v1/ways", Ways, WayList, "By which ways this server tells administrators of incidents, and how they do."),
    _look("/v1/digest", Digest, CatalogueDigest, "The digest of all rows at a revision, or as they are."),
    _look("/v1/lag", Lag, Lags, "Which host holds which revision."),
    _message(Register, Registered, "A listener comes up (function 2.1)."),
    _message(Deregister, Deregistered, "A listener goes away (function 2.2)."),
    _message(Drain, Reported, "A listener takes no new users, or takes them again."),
    _message(Report, Reported, "A listener was found dead or slow (function 2.5)."),
    _message(Put, Done, "Add an object (`create`) or change one."),
    _message(Remove, Done, "Remove an object that nothing uses."),
    _message(IssueCredential, CredentialIssued, "A new token for a service: the only time that it is seen."),
    _message(RevokeCredential, Done, "A token is refused from now on."),
    _message(Apply, Done, "Bring the declared objects into the state of a topology, all or nothing."),
    _message(Steer, Steered, "Send this server's hosts to others, or welcome them again."),
    _message(TryWays, WaysTried, "Send a message to try the ways by which administrators are told."),
    _message(Purge, Done, "Remove rows of listeners that are gone for long."),
)
"""Operations that are a request of the protocol and nothing more."""

OPERATIONS = (HEALTH, READY, METRICS, OPENAPI, WHO, *ASKED, PROMETHEUS, EVENTS_OF_ALL)
SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "description": "Made by 'opengnsadmin token add'."},
    "certificate": {"type": "mutualTLS", "description": "Of this installation's authority, role admin or host."},
}
_ABOUT = "What opengnsadmin can do, over HTTPS. A refusal has a code and says what to do next."


def server_document() -> dict[str, Any]:
    """The whole document, ready for JSON."""
    return document("OpenGNS server API", _ABOUT, OPERATIONS, (Position, Change), SECURITY)

"""Operations of the host API: the table from which its routes and its OpenAPI document (3.1) are made."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from compass.gateway.http.health import HEALTH, METRICS, READY
from compass.gateway.http.openapi import EVENTS, Operation, document
from compass.gateway.http.prometheus_sd import PROMETHEUS
from compass.gateway.http.sse import Revision
from compass.model.host_api import (
    PROCESSES_HEADER,
    HostStatus,
    LocalCheckResult,
    LocalDeregister,
    LocalDrain,
    LocalLoad,
    LocalRegister,
    LocalReport,
    Outcome,
    Resolved,
)
from compass.model.names import PoolName, ServiceId
from compass.model.replies import Dependencies
from compass.model.rows import Change

WAIT_SECONDS_MAX = 300.0
"""Longest long poll: five minutes, which is below the idle limits of most clients and proxies."""


class ServiceAsked(msgspec.Struct, frozen=True):
    """Service whose dependencies to return; with `wait`, after their next change since revision `since`."""

    service: ServiceId
    since: Revision | UnsetType = UNSET
    """Revision that the client holds."""
    wait: Annotated[float, Meta(ge=0)] = 0.0
    """Seconds to wait for a change after `since`; then the answer is unchanged."""


class NameAsked(msgspec.Struct, frozen=True):
    """Service or category to resolve."""

    name: PoolName


class WatchAsked(msgspec.Struct, frozen=True):
    """Service whose dependencies to watch, and the revision from which to resume."""

    service: ServiceId
    since: Revision | UnsetType = UNSET


def _outcome(path: str, asks: type[msgspec.Struct], summary: str) -> Operation:
    return Operation(method="POST", path=path, summary=summary, asks=asks, answers=Outcome, may_be_pending=True)


DEPENDENCIES = Operation(
    method="GET",
    path="/v1/dependencies/{service}",
    summary="The dependencies of a service (function 2.3). With `since` and `wait`: after their next change.",
    asks=ServiceAsked,
    answers=Dependencies,
)
RESOLVE = Operation(
    method="GET",
    path="/v1/resolve/{name}",
    summary="The listeners of a service or category to use, best first.",
    asks=NameAsked,
    answers=Resolved,
)
REGISTER = msgspec.structs.replace(
    _outcome("/v1/register", LocalRegister, "Register a listener (function 2.1)."), headers=(PROCESSES_HEADER,)
)
DEREGISTER = _outcome("/v1/deregister", LocalDeregister, "Deregister a listener (function 2.2).")
LOAD = _outcome("/v1/load", LocalLoad, "Report the load of a listener of this host, for the pool policies that use it.")
CHECK = _outcome(
    "/v1/check", LocalCheckResult, "Report the result of a check that a program makes of its own listener."
)
DRAIN = _outcome(
    "/v1/drain", LocalDrain, "Set whether a listener of this host accepts new users; this needs a reachable server."
)
REPORT = _outcome("/v1/report", LocalReport, "Report that a listener is dead or slow (function 2.5).")
WATCH = Operation(
    method="GET",
    path="/v1/watch",
    summary="Events `snapshot` (data: Dependencies) and `change` (data: Change); the id is the revision.",
    asks=WatchAsked,
    media=EVENTS,
    headers=("Last-Event-ID",),
)
STATUS = Operation(method="GET", path="/v1/status", summary="Figures of the daemon.", answers=HostStatus)
OPENAPI = Operation(method="GET", path="/openapi.json", summary="This document.")

CHANGES = (REGISTER, DEREGISTER, LOAD, CHECK, DRAIN, REPORT)
OPERATIONS = (DEPENDENCIES, RESOLVE, *CHANGES, WATCH, PROMETHEUS, STATUS, HEALTH, READY, METRICS, OPENAPI)
_ABOUT = "For programs on the host: the loopback and a Unix socket. A refusal has a code, and a text with advice."


def host_document() -> dict[str, Any]:
    """Return the OpenAPI document, ready for JSON."""
    return document("OpenGNS host API", _ABOUT, OPERATIONS, (Dependencies, Change))

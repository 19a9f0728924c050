"""Operations of the host API: the table from which its routes and its OpenAPI document (3.1) are made."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from compass.gateway.http.health import HEALTH, METRICS, READY
from compass.gateway.http.openapi import EVENTS, Operation, document
from compass.gateway.http.prometheus_sd import TargetGroup
from compass.gateway.http.sse import REVISION_MAX
from compass.model.host_api import (
    HostStatus,
    LocalDeregister,
    LocalDrain,
    LocalLoad,
    LocalRegister,
    LocalReport,
    Outcome,
    Resolved,
)
from compass.model.names import Label, PoolName, ServiceId
from compass.model.replies import Dependencies
from compass.model.rows import Change

WAIT_SECONDS_MAX = 300.0
"""Longest long poll: five minutes, which is below the idle limits of most clients and proxies."""

Revision = Annotated[int, Meta(ge=0, le=REVISION_MAX)]


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


class CategoryAsked(msgspec.Struct, frozen=True):
    """Category whose listeners to return."""

    category: Label


class WatchAsked(msgspec.Struct, frozen=True):
    """Service whose dependencies to watch, and the revision from which to resume."""

    service: ServiceId
    since: Revision | UnsetType = UNSET


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
REGISTER = Operation(
    method="POST",
    path="/v1/register",
    summary="Register a listener (function 2.1).",
    asks=LocalRegister,
    answers=Outcome,
    may_be_pending=True,
)
DEREGISTER = Operation(
    method="POST",
    path="/v1/deregister",
    summary="Deregister a listener (function 2.2).",
    asks=LocalDeregister,
    answers=Outcome,
    may_be_pending=True,
)
LOAD = Operation(
    method="POST",
    path="/v1/load",
    summary="Report the load of a listener of this host, for the pool policies that use it.",
    asks=LocalLoad,
    answers=Outcome,
    may_be_pending=True,
)
DRAIN = Operation(
    method="POST",
    path="/v1/drain",
    summary="Set whether a listener of this host accepts new users; this needs a reachable server.",
    asks=LocalDrain,
    answers=Outcome,
    may_be_pending=True,
)
REPORT = Operation(
    method="POST",
    path="/v1/report",
    summary="Report that a listener is dead or slow (function 2.5).",
    asks=LocalReport,
    answers=Outcome,
    may_be_pending=True,
)
WATCH = Operation(
    method="GET",
    path="/v1/watch",
    summary="Events `snapshot` (data: Dependencies) and `change` (data: Change); the id is the revision.",
    asks=WatchAsked,
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
STATUS = Operation(method="GET", path="/v1/status", summary="Figures of the daemon.", answers=HostStatus)
OPENAPI = Operation(method="GET", path="/openapi.json", summary="This document.")

OPERATIONS = (
    DEPENDENCIES,
    RESOLVE,
    REGISTER,
    DEREGISTER,
    LOAD,
    DRAIN,
    REPORT,
    WATCH,
    PROMETHEUS,
    STATUS,
    HEALTH,
    READY,
    METRICS,
    OPENAPI,
)
_ABOUT = "For programs on the host: the loopback and a Unix socket. A refusal has a code, and a text with advice."


def host_document() -> dict[str, Any]:
    """Return the OpenAPI document, ready for JSON."""
    return document("OpenGNS host API", _ABOUT, OPERATIONS, (Dependencies, Change))

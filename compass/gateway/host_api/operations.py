"""What the host API can be asked for: the table that its routes and its OpenAPI document (3.1) are made from."""

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
"""How long an answer may be waited for: five minutes, which the idle limits of most clients and proxies let pass."""

Revision = Annotated[int, Meta(ge=0, le=REVISION_MAX)]


class ServiceAsked(msgspec.Struct, frozen=True):
    """Whose dependencies; with `wait` not before they have changed after revision `since`."""

    service: ServiceId
    since: Revision | UnsetType = UNSET
    """The revision that the asker holds."""
    wait: Annotated[float, Meta(ge=0)] = 0.0
    """Seconds to wait for a change after `since`; then the answer is as it was."""


class NameAsked(msgspec.Struct, frozen=True):
    """A service or a category."""

    name: PoolName


class CategoryAsked(msgspec.Struct, frozen=True):
    """A category."""

    category: Label


class WatchAsked(msgspec.Struct, frozen=True):
    """Whose dependencies to tell of, and from which revision on."""

    service: ServiceId
    since: Revision | UnsetType = UNSET


DEPENDENCIES = Operation(
    method="GET",
    path="/v1/dependencies/{service}",
    summary="What a service depends on (function 2.3). With `since` and `wait`: as soon as that has changed.",
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
    summary="A listener comes up (function 2.1).",
    asks=LocalRegister,
    answers=Outcome,
    may_be_pending=True,
)
DEREGISTER = Operation(
    method="POST",
    path="/v1/deregister",
    summary="A listener goes away (function 2.2).",
    asks=LocalDeregister,
    answers=Outcome,
    may_be_pending=True,
)
LOAD = Operation(
    method="POST",
    path="/v1/load",
    summary="How busy a listener of this host is, for the pool policies that go by load.",
    asks=LocalLoad,
    answers=Outcome,
    may_be_pending=True,
)
DRAIN = Operation(
    method="POST",
    path="/v1/drain",
    summary="A listener of this host takes no new users, or takes them again; a server has to be reached for it.",
    asks=LocalDrain,
    answers=Outcome,
    may_be_pending=True,
)
REPORT = Operation(
    method="POST",
    path="/v1/report",
    summary="A listener was found dead or slow (function 2.5).",
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
STATUS = Operation(method="GET", path="/v1/status", summary="The daemon in figures.", answers=HostStatus)
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
_ABOUT = "For programs on the host: the loopback and a Unix socket. A refusal has a code and says what to do next."


def host_document() -> dict[str, Any]:
    """The whole document, ready for JSON."""
    return document("OpenGNS host API", _ABOUT, OPERATIONS, (Dependencies, Change))

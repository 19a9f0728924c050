"""Validation of the objects that administrators set: names in canonical form, values within their limits."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from compass.model.limits import (
    FLAP_SECONDS_MAX,
    FLAPS_MAX,
    GRACE_SECONDS_MAX,
    HOST_SERVICES_MAX,
    POOLS_PER_CATEGORY_MAX,
    PROBE_ATTEMPTS_MAX,
    PROBE_PATH_MAX,
    PROBE_TIMEOUT_SECONDS_MAX,
    RECOVERY_SECONDS_MAX,
    REPORTERS_NEEDED_MAX,
    WITNESSES_MAX,
)
from compass.model.names import parse_address, parse_host_name, parse_label, parse_port, parse_service_id
from compass.model.rows import Category, Dependency, Host, Policy, Service
from compass.model.rules.draft import refuse
from compass.model.selection.policies import LOCALITIES, POLICIES

Declared: TypeAlias = Category | Service | Dependency
"""Row of a topology."""


def parse_declared(row: Declared) -> Declared:
    """Return the row with its names in canonical form. Raises Refused for an invalid value."""
    match row:
        case Category():
            _check_policy(row.policy)
            backup = parse_service_id(row.backup) if row.backup else ""
            return msgspec.structs.replace(row, name=parse_label(row.name, "category"), backup=backup)
        case Service():
            return Service(parse_service_id(row.id))
        case Dependency():
            return Dependency(parse_label(row.category, "category"), parse_label(row.on, "category"))


def parse_host(row: Host) -> Host:
    """Return a host's row with its names, services and address in canonical form. Raises Refused, InvalidName."""
    if len(row.services) > HOST_SERVICES_MAX:
        refuse("too-large", f"{len(row.services)} services on one host; at most {HOST_SERVICES_MAX}")
    return Host(
        name=parse_host_name(row.name),
        update_address=parse_address(row.update_address) if row.update_address else "",
        update_port=parse_port(row.update_port) if row.update_port else 0,
        services=tuple(sorted({parse_service_id(service) for service in row.services})),
        barred=row.barred,
    )


def _check_policy(policy: Policy) -> None:
    scheme, _, path = policy.probe.partition(":")
    if scheme == "http" and not (path.startswith("/") and path.isascii() and path.isprintable() and " " not in path):
        refuse("bad-value", f"probe {policy.probe[:80]!r}: an HTTP probe is written http:/path")
    if len(path) > PROBE_PATH_MAX:
        refuse("bad-value", f"the probe's path has {len(path)} characters; at most {PROBE_PATH_MAX}")
    if scheme not in ("tcp", "http") or (scheme == "tcp" and path):
        refuse("bad-value", f"probe {policy.probe[:80]!r} is neither tcp nor http:/path")
    if not 0 < policy.probe_timeout_seconds <= PROBE_TIMEOUT_SECONDS_MAX:
        refuse(
            "bad-value",
            f"probe_timeout_seconds {policy.probe_timeout_seconds:g}: at most {PROBE_TIMEOUT_SECONDS_MAX:g}",
        )
    if not 1 <= policy.probe_attempts <= PROBE_ATTEMPTS_MAX:
        refuse("bad-value", f"probe_attempts {policy.probe_attempts}: 1 to {PROBE_ATTEMPTS_MAX}")
    if not 0 < policy.recovery_seconds <= RECOVERY_SECONDS_MAX:
        refuse("bad-value", f"recovery_seconds {policy.recovery_seconds:g}: at most {RECOVERY_SECONDS_MAX:g}")
    _check_judgement(policy)
    _check_pools(policy)


def _check_pools(policy: Policy) -> None:
    """Check the fields that concern the selection of listeners. Raises Refused."""
    if len(policy.pools) > POOLS_PER_CATEGORY_MAX:
        refuse(
            "too-large",
            f"{len(policy.pools)} services with a pool policy of their own; at most {POOLS_PER_CATEGORY_MAX}",
        )
    for label in policy.pools:
        if parse_label(label, "service") != label:
            refuse("bad-name", f"pools: write {label[:80]!r} in small letters")
    for pool in (policy.pool, *policy.pools.values()):
        if pool not in POLICIES:
            refuse("bad-value", f"pool {pool[:80]!r} is none of {', '.join(POLICIES)}")
    if policy.locality not in LOCALITIES:
        refuse("bad-value", f"locality {policy.locality[:80]!r} is none of {', '.join(LOCALITIES)}")


def _check_judgement(policy: Policy) -> None:
    """Check the fields of the failure policy: each within its range, none NaN. Raises Refused."""
    if not 0 < policy.cap <= 1:
        refuse("bad-value", f"cap {policy.cap:g}: a share, more than 0 and at most 1")
    for name, low, high in (
        ("reporters", 1, REPORTERS_NEEDED_MAX),
        ("witnesses", 0, WITNESSES_MAX),
        ("flaps", 1, FLAPS_MAX),
        ("grace_seconds", 0, GRACE_SECONDS_MAX),
        ("flap_seconds", 0, FLAP_SECONDS_MAX),
        ("hold_seconds", 0, FLAP_SECONDS_MAX),
    ):
        if not low <= getattr(policy, name) <= high:
            refuse("bad-value", f"{name} {getattr(policy, name):g}: {low} to {high:g}")

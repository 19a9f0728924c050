"""Validation of the objects that administrators set: names in canonical form, values within their limits."""

from __future__ import annotations

from typing import Any, TypeAlias, get_type_hints

import msgspec
from msgspec import Meta

from compass.model.limits import HOST_SERVICES_MAX, POOLS_PER_CATEGORY_MAX, PROBE_PATH_MAX
from compass.model.names import parse_address, parse_host_name, parse_label, parse_port, parse_service_id
from compass.model.rows import Category, Dependency, Host, Policy, Service
from compass.model.rules.draft import refuse
from compass.model.selection.policies import LOCALITIES, POLICIES

Declared: TypeAlias = Category | Service | Dependency
"""Row of a topology."""

_SCHEMAS: dict[str, Any] = {
    name: getattr(hint, "__metadata__", (Meta(),))[0].extra_json_schema or {}
    for name, hint in get_type_hints(Policy, include_extras=True).items()
}
_RANGES = {name: schema for name, schema in _SCHEMAS.items() if "maximum" in schema}
"""Ranges of a policy's numbers, as its fields declare them."""


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
    for name, schema in _RANGES.items():
        value, is_open = getattr(policy, name), "exclusiveMinimum" in schema
        least, most = schema.get("minimum", 0), schema["maximum"]
        # A comparison with NaN is false.
        if not (least <= value <= most and (value > least or not is_open)):
            accepted = f"more than {least:g}, at most {most:g}" if is_open else f"{least:g} to {most:g}"
            refuse("bad-value", f"{name} {value:g}: {accepted}")
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

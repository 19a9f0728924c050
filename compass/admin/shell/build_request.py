"""Requests built from the arguments of commands: pure functions that refuse invalid arguments locally.

Names are parsed here, so upper case is allowed; InvalidName says what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from compass.model.names import (
    format_endpoint,
    parse_endpoint,
    parse_host_name,
    parse_label,
    parse_pool_name,
    parse_service_id,
)
from compass.model.requests import (
    Drain,
    Fetch,
    Impact,
    Put,
    Register,
    Remove,
)
from compass.model.rows import ANY_HOST, Category, Listener, Policy

_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SECONDS = (604800, 86400, 3600, 60, 1)
POLICY_FIELDS: tuple[str, ...] = Policy.__struct_fields__
"""The names of a category's policy, as options and as keys of a topology file."""

LISTENER_PARAMETERS: tuple[str, ...] = ("weight", "metadata", "zone", "load", "degradation")
"""Parameters of a listener that a registration may contain and that `listener set` changes."""


def duration(text: str) -> float:
    """Return the seconds of `90s`, `30m`, `1h`, `1d12h`, `2w`. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{text!r} is not a length of time; write 90s, 30m, 1h, 1d12h or 2w")
    return float(sum(int(count or 0) * size for count, size in zip(match.groups(), _SECONDS, strict=True)))


def metadata(pairs: Iterable[str]) -> dict[str, str]:
    """Parse `key=value` pairs. Raises ValueError."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"{pair!r} is not of the form KEY=VALUE")
        if key in found:
            raise ValueError(f"duplicate key {key!r}")
        found[key] = value
    return found


def add_category(name: str, changes: Mapping[str, Any]) -> Put:
    """Return the request for a new category; `changes` as in `change_category`."""
    return Put(_category(Category(parse_label(name, "category")), changes), create=True)


def change_category(row: Category, changes: Mapping[str, Any]) -> Put:
    """Return the request that changes a category: `backup` and fields of the policy; absent ones stay unchanged."""
    return Put(_category(row, changes))


def _category(row: Category, changes: Mapping[str, Any]) -> Category:
    backup = changes.get("backup", row.backup)
    policy = {field: changes[field] for field in POLICY_FIELDS if field in changes}
    return msgspec.structs.replace(
        row,
        backup=parse_service_id(backup) if backup else "",
        policy=msgspec.structs.replace(row.policy, **policy),
    )


def change_pool(row: Category, service: str, pool: str) -> Put:
    """Return the request that sets the pool policy of one service; "": that of the category."""
    label = parse_service_id(service).partition(".")[0]
    others = {name: other for name, other in row.policy.pools.items() if name != label}
    policy = msgspec.structs.replace(row.policy, pools=others | ({label: pool} if pool else {}))
    return Put(msgspec.structs.replace(row, policy=policy))


def change_hosts(row: Category, service: str, hosts: tuple[str, ...]) -> Put:
    """Return the request that sets the hosts which may register one service; none: every host."""
    label = parse_service_id(service).partition(".")[0]
    names = tuple(sorted({parse_host_name(name) for name in hosts})) or (ANY_HOST,)
    return Put(msgspec.structs.replace(row, policy=msgspec.structs.replace(row.policy, hosts={label: names})))


def token_service(name: str, category: str) -> str:
    """Return the service whose credential is the token of that name."""
    return f"{parse_label(name, 'name')}.{category}"


def add_listener(service: str, endpoint: str, changes: Mapping[str, Any]) -> Register:
    """Return the registration of a listener that no host daemon manages. Epoch 0 lets the server choose the next one.

    `changes`: some of LISTENER_PARAMETERS.
    """
    address, port = parse_endpoint(endpoint)
    return Register(parse_service_id(service), "", address, port, 0, **changes)


def change_listener(row: Listener, changes: Mapping[str, Any]) -> Register:
    """Return the request that changes parameters of a listener. With its own epoch it stays the same instance."""
    kept = {name: getattr(row, name) for name in LISTENER_PARAMETERS}
    return Register(
        service=row.service,
        credential="",
        address=row.address,
        port=row.port,
        epoch=row.epoch,
        **{**kept, **changes},
    )


def remove_listener(service: str, endpoint: str) -> Remove:
    """Return the request that takes a listener out of use; its row stays as `offline`."""
    return Remove("listener", _listener_name(service, endpoint))


def drain_listener(service: str, endpoint: str, draining: bool) -> Drain:
    """Return the request that starts or ends the draining of a listener."""
    address, port = parse_endpoint(endpoint)
    return Drain(parse_service_id(service), address, port, draining)


def fetch_listener(service: str, endpoint: str) -> Fetch:
    """Return the request for the row of one listener."""
    return Fetch("listener", name=_listener_name(service, endpoint))


def impact(name: str, endpoint: str | None) -> Impact:
    """Return the request for the impact of a category, a service, or a listener of a service."""
    if endpoint is not None:
        return Impact(_listener_name(name, endpoint))
    return Impact(parse_pool_name(name))


def _listener_name(service: str, endpoint: str) -> str:
    return f"{parse_service_id(service)} {format_endpoint(*parse_endpoint(endpoint))}"


def older_than(rows: Iterable[Listener], age_seconds: float, now: float) -> tuple[Listener, ...]:
    """Return the listeners that have been in their state for at least `age_seconds`."""
    return tuple(row for row in rows if now - row.changed_at >= age_seconds)

"""Validation: objects that administrators set, in canonical form and within limits; epochs and hosts of requests; the
services that registrations declare in development mode."""

from __future__ import annotations

from typing import Any, TypeAlias, get_type_hints

import msgspec
from immutables import Map
from msgspec import Meta

from compass.model.catalogue.catalogue import Catalogue
from compass.model.limits import (
    ALLOWED_HOSTS_MAX,
    DETAIL_MAX,
    EPOCH_AHEAD_SECONDS_MAX,
    EPOCH_MAX,
    EPOCHS_PER_SECOND,
    HOST_SERVICES_MAX,
    POOLS_PER_CATEGORY_MAX,
    PROBE_PATH_MAX,
)
from compass.model.names import (
    RESERVED_PREFIX,
    category_of,
    parse_address,
    parse_host_name,
    parse_label,
    parse_port,
    parse_service_id,
)
from compass.model.requests import Deregister, Report
from compass.model.rows import ANY_HOST, Category, Dependency, Host, Listener, Policy, Service
from compass.model.rules.draft import Draft, Principal, refuse, text_problem
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
            policy = msgspec.structs.replace(row.policy, hosts=_parse_hosts(row.policy.hosts))
            return msgspec.structs.replace(row, name=parse_label(row.name, "category"), backup=backup, policy=policy)
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


def recorded_host(catalogue: Catalogue, watched: Host) -> Host:
    """Return the row to record for a host that watches: barred as it is, with the services of its own listeners.

    A registration records its service with the host. A watch that the host sent before the reply does not name it yet;
    without it the row would lose the service, and the next watch would bring it back.
    """
    known = catalogue.hosts.get(watched.name)
    if known is None:
        return watched
    others = (service for service in known.services if service not in watched.services)
    own = [service for service in others if _has_listener_of(catalogue, service, known.name)]
    kept = own[: HOST_SERVICES_MAX - len(watched.services)]
    return msgspec.structs.replace(watched, services=tuple(sorted((*watched.services, *kept))), barred=known.barred)


def _has_listener_of(catalogue: Catalogue, service: str, host: str) -> bool:
    listeners = catalogue.listeners.get(service, Map()).values()
    return any(listener.host == host and listener.state != "offline" for listener in listeners)


def _check_policy(policy: Policy) -> None:
    scheme, _, path = policy.probe.partition(":")
    if scheme == "http" and not (path.startswith("/") and path.isascii() and path.isprintable() and " " not in path):
        refuse("bad-value", f"probe {policy.probe[:80]!r}: an HTTP probe is written http:/path")
    if len(path) > PROBE_PATH_MAX:
        refuse("bad-value", f"the probe's path has {len(path)} characters; at most {PROBE_PATH_MAX}")
    if scheme not in ("none", "tcp", "http") or (scheme != "http" and policy.probe != scheme):
        refuse("bad-value", f"probe {policy.probe[:80]!r} is neither tcp nor http:/path nor none")
    for name, schema in _RANGES.items():
        value, is_open = getattr(policy, name), "exclusiveMinimum" in schema
        least, most = schema.get("minimum", 0), schema["maximum"]
        # A comparison with NaN is false.
        if not (least <= value <= most and (value > least or not is_open)):
            accepted = f"more than {least:g}, at most {most:g}" if is_open else f"{least:g} to {most:g}"
            refuse("bad-value", f"{name} {value:g}: {accepted}")
    check_pools(policy)


def check_pools(policy: Policy) -> None:
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


def check_host_lists(hosts: dict[str, tuple[str, ...]]) -> None:
    """Check the size of all lists of hosts of a category together. Raises Refused."""
    count = sum(map(len, hosts.values()))
    if count > ALLOWED_HOSTS_MAX:
        refuse("too-large", f"hosts: {count} names for the services of one category; at most {ALLOWED_HOSTS_MAX}")


def _parse_hosts(hosts: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the lists of hosts with their names in canonical form. Raises Refused, InvalidName."""
    check_host_lists(hosts)
    parsed: dict[str, tuple[str, ...]] = {}
    for label, names in hosts.items():
        if parse_label(label, "service") != label:
            refuse("bad-name", f"hosts: write {label[:80]!r} in small letters")
        if not names:
            refuse("bad-value", f"hosts: {label} has an empty list; name hosts, or {ANY_HOST!r} for every host")
        if ANY_HOST in names and len(names) > 1:
            refuse("bad-value", f"hosts: {label} names {ANY_HOST!r}, which is every host, and others")
        parsed[label] = names if ANY_HOST in names else tuple(sorted({parse_host_name(name) for name in names}))
    return parsed


def check_epoch(draft: Draft, epoch: int, old: Listener | None) -> None:
    """Check that an epoch is not further ahead of the clock than EPOCH_AHEAD_SECONDS_MAX. Raises Refused.

    The successor of an epoch that is stored already is valid: an older server accepted every epoch.
    """
    if not 1 <= epoch <= EPOCH_MAX:
        refuse("bad-value", f"epoch {epoch} is not between 1 and {EPOCH_MAX}")
    ahead = epoch / EPOCHS_PER_SECOND - draft.now
    if ahead > EPOCH_AHEAD_SECONDS_MAX and epoch > (old.epoch + 1 if old is not None else 0):
        refuse(
            "bad-value",
            f"epoch {epoch} is {ahead / 86_400:.1f} days ahead of the clock of this server; at most "
            f"{EPOCH_AHEAD_SECONDS_MAX / 86_400:g}: correct the clock of the host, then register again",
        )


def check_host(draft: Draft, service: str, action: str) -> None:
    """Check that the host may change listeners of a service, if the service has a list of hosts. Raises Refused.

    A host may always deregister and drain what it registered itself.
    """
    if draft.principal.role != "host":
        return
    label, _, category = service.partition(".")
    allowed = draft.catalogue.categories[category].policy.hosts.get(label, ())
    if allowed and draft.principal.name not in allowed:
        refuse(
            "forbidden",
            f"{draft.principal} may not {action} {service}, whatever its credential: the service has a list of hosts; "
            f"an administrator can add it with 'opengnsadmin service set {service} --hosts'",
        )


def is_doubtful(principal: Principal, request: Deregister, old: Listener) -> bool:
    """Return whether a host reports a death that it cannot have observed: a probe decides, not the report.

    The host says so itself, or the instance is one of another host: its journal is a copy of that host's. A listener
    that is down already has been probed.
    """
    if not request.died or principal.role != "host" or old.state in ("down", "offline"):
        return False
    return request.unverified or (request.epoch == old.epoch and old.host != principal.name)


def saw_it_die(catalogue: Catalogue, principal: Principal, service: str, request: Deregister) -> bool:
    """Return whether the request comes from the host that registered this instance and reports its death.

    The report is valid even if the credential has been revoked or has expired since: a dead listener must not stay.
    """
    if not request.died or principal.role != "host":
        return False
    old = catalogue.listener(service, parse_address(request.address), parse_port(request.port))
    return old is not None and old.host == principal.name and old.epoch == request.epoch


def detail_problem(report: Report) -> str:
    """Return why the texts of a report are refused, and what to do; empty if they are accepted."""
    if len(report.detail) > DETAIL_MAX:
        return f"detail has {len(report.detail)} characters; at most {DETAIL_MAX}: cut it"
    return text_problem(report)


def declare(draft: Draft, service: str) -> None:
    """Add the service of a host's registration in development mode, and its category if there is none.

    The category is open, and depends on itself, so that the host that serves it can look it up as well. A category that
    exists and is not open is left to the administrators, and so are those of tokens.
    """
    name = category_of(service)
    if not draft.in_development or draft.principal.role != "host" or name.startswith(RESERVED_PREFIX):
        return
    if name not in draft.catalogue.categories:
        draft.set("category-add", Category(name, policy=Policy(open=True)))
        draft.set("dependency-add", Dependency(name, name))
    if is_open(draft, service) and draft.catalogue.service(service) is None:
        draft.set("service-add", Service(service))
        draft.declared = service


def is_open(draft: Draft, service: str) -> bool:
    """Return whether hosts register, drain and deregister the service without a credential."""
    category = draft.catalogue.categories.get(category_of(service))
    return draft.in_development and category is not None and category.policy.open

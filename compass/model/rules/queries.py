"""Queries of the catalogue in memory: pull, fetch, impact. They use no SQL and change nothing."""

from __future__ import annotations

import msgspec
from immutables import Map

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import audience, dependencies_of
from compass.model.limits import FETCH_LIMIT_MAX
from compass.model.names import category_of, format_endpoint, parse_endpoint, parse_label, parse_service_id
from compass.model.replies import Dependencies, Rows, Told
from compass.model.requests import Fetch, Impact, Pull
from compass.model.rows import Category, Credential, Dependency, Listener, Row, Service, key_of
from compass.model.rules.draft import refuse


def query_pull(catalogue: Catalogue, request: Pull) -> Dependencies:
    """Return the dependencies of a service (function 2.3)."""
    service = parse_service_id(request.service)
    if category_of(service) not in catalogue.categories:
        refuse("unknown-category", f"there is no category {category_of(service)!r}")
    if catalogue.service(service) is None:
        refuse("unknown-service", f"there is no service {service!r}")
    return dependencies_of(catalogue, service)


def query_fetch(catalogue: Catalogue, request: Fetch) -> Rows:
    """Return rows of one kind in the order of their keys; credentials without their digests."""
    if not 1 <= request.limit <= FETCH_LIMIT_MAX:
        refuse("bad-value", f"limit {request.limit} is not between 1 and {FETCH_LIMIT_MAX}")
    rows = [row for row in _rows_of_kind(catalogue, request.kind) if _matches(row, request)]
    rows.sort(key=lambda row: _sort_key(row))
    page = rows[max(request.after, 0) :][: request.limit]
    shown = tuple(msgspec.structs.replace(row, digest="") if isinstance(row, Credential) else row for row in page)
    return Rows(catalogue.revision, shown, len(rows))


def _rows_of_kind(catalogue: Catalogue, kind: str) -> list[Row]:
    match kind:
        case "category":
            return list(catalogue.categories.values())
        case "service":
            return [row for ids in catalogue.services.values() for row in ids.values()]
        case "dependency":
            return [Dependency(category, on) for category, needs in catalogue.needs.items() for on in needs]
        case "listener":
            return [row for peers in catalogue.listeners.values() for row in peers.values()]
        case "credential":
            return [row for own in catalogue.credentials.values() for row in own.values()]
        case "host":
            return list(catalogue.hosts.values())
        case _:
            return list(catalogue.alerts.values())


def _matches(row: Row, request: Fetch) -> bool:
    if request.state and not (isinstance(row, Listener) and row.state == request.state):
        return False
    if request.within and request.within not in _places(row):
        return False
    return not request.name or request.name in (_sort_key(row)[0], _full_name(row))


def _full_name(row: Row) -> str:
    """Return the row's name as `Remove` and `Impact` accept it."""
    match row:
        case Listener():
            return f"{row.service} {format_endpoint(row.address, row.port)}"
        case _:
            return " ".join(map(str, _sort_key(row)))


def _places(row: Row) -> tuple[str, ...]:
    """Return the names that a row belongs to, for `Fetch.within`."""
    match row:
        case Listener():
            return (row.service, category_of(row.service), row.host)
        case Credential():
            return (row.service, category_of(row.service))
        case Service():
            return (category_of(row.id),)
        case Dependency():
            return (row.category, row.on)
        case _:
            return ()


def _sort_key(row: Row) -> tuple[str | int, ...]:
    key = key_of(row)
    return key if isinstance(key, tuple) else (key,)


def query_impact(catalogue: Catalogue, request: Impact) -> Told:
    """List the hosts that would be notified of a change of a category, a service or (`service address:port`) a
    listener."""
    name, _, endpoint = request.name.partition(" ")
    row: Row
    if endpoint:
        address, port = parse_endpoint(endpoint)
        listener = catalogue.listener(parse_service_id(name), address, port)
        if listener is None:
            refuse("unknown-listener", f"{name} has no listener {endpoint}")
        row = listener
    elif "." in name:
        service = parse_service_id(name)
        if catalogue.service(service) is None:
            refuse("unknown-service", f"there is no service {service!r}")
        row = Listener(service, "", 0, "up", 0.0, 0)
    else:
        category = parse_label(name, "category")
        if category not in catalogue.categories:
            refuse("unknown-category", f"there is no category {category!r}")
        row = Category(category)
    members = audience(catalogue, row)
    backed = catalogue.backed.get(row.service, frozenset()) if isinstance(row, Listener) else frozenset()
    return Told(
        name=request.name,
        revision=catalogue.revision,
        categories=tuple(sorted(members)),
        services=tuple(sorted(id for member in members for id in catalogue.services.get(member, Map()))),
        hosts=tuple(
            sorted(
                host.name for host in catalogue.hosts.values() if any(category_of(s) in members for s in host.services)
            )
        ),
        backup_of=tuple(sorted(backed)),
    )

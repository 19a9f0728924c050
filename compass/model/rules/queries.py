"""Queries of the catalogue in memory: pull, impact and fetch. They use no SQL and change nothing.

Lists of rows (the request `fetch`) are whole or in pages that are bounded in octets. Pages continue after a key, not
after a number of rows, so that a row which stays is in exactly one page, whatever is added or removed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from immutables import Map

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import audience, dependencies_of
from compass.model.limits import FETCH_LIMIT_MAX, PAGE_OCTETS_MAX
from compass.model.names import category_of, format_endpoint, parse_endpoint, parse_label, parse_service_id
from compass.model.replies import Dependencies, Rows, Told
from compass.model.requests import Fetch, Impact, Pull
from compass.model.rows import Category, Credential, Dependency, Listener, Row, Service, key_of, without_secret
from compass.model.rules.draft import refuse

SortKey = tuple[str | int, ...]

_encode = msgspec.msgpack.Encoder().encode


def query_pull(catalogue: Catalogue, request: Pull) -> Dependencies:
    """Return the dependencies of a service (function 2.3)."""
    service = parse_service_id(request.service)
    if category_of(service) not in catalogue.categories:
        refuse("unknown-category", f"there is no category {category_of(service)!r}")
    if catalogue.service(service) is None:
        refuse("unknown-service", f"there is no service {service!r}")
    return dependencies_of(catalogue, service)


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


def query_fetch(catalogue: Catalogue, request: Fetch) -> Rows:
    """Return rows of one kind in the order of their keys; credentials without their digests."""
    if not 1 <= request.limit <= FETCH_LIMIT_MAX:
        refuse("bad-value", f"limit {request.limit} is not between 1 and {FETCH_LIMIT_MAX}")
    if request.pages or request.cursor:
        return _page(catalogue, request)
    rows = [row for row in _rows_of_kind(catalogue, request.kind) if _matches(row, request)]
    rows.sort(key=sort_key)
    page = rows[max(request.after, 0) :][: request.limit]
    return Rows(catalogue.revision, tuple(map(without_secret, page)), len(rows))


def _page(catalogue: Catalogue, request: Fetch) -> Rows:
    """Return the rows after the request's cursor, up to `PAGE_OCTETS_MAX`, with the cursor of the next page."""
    after = _parsed(request)
    page: list[Row] = []
    octets = skipped = 0
    cursor = ""
    for row in _rows_after(catalogue, request.kind, after):
        if not _matches(row, request):
            continue
        if skipped < request.after and not request.cursor:
            skipped += 1
            continue
        if len(page) == request.limit or octets >= PAGE_OCTETS_MAX:
            cursor = _cursor_of(page[-1])
            break
        page.append(without_secret(row))
        octets += len(_encode(page[-1]))
    # A later page would count the same rows once more.
    total = 0 if request.cursor else sum(_matches(row, request) for row in _rows_of_kind(catalogue, request.kind))
    return Rows(catalogue.revision, tuple(page), total, cursor)


def _cursor_of(row: Row) -> str:
    return " ".join(map(str, sort_key(row)))


def _parsed(request: Fetch) -> SortKey:
    """Return the key that a cursor names; () without a cursor. Raises Refused."""
    cursor = request.cursor
    parts = cursor.split(" ") if request.kind in ("listener", "dependency") else [cursor]
    match request.kind, parts:
        case _, [""]:
            return ()
        case "listener", [service, address, port] if port.isascii() and port.isdigit() and len(port) < 6:
            return service, address, int(port)
        case "dependency", [category, on]:
            return category, on
        case "listener" | "dependency", _:
            refuse("bad-value", f"cursor {cursor[:80]!r} is not from a page of kind {request.kind}")
    return (cursor,)


def _rows_after(catalogue: Catalogue, kind: str, after: SortKey) -> Iterator[Row]:
    """Return the rows with larger keys in order. Listeners are sorted service by service: a page needs only some."""
    if kind != "listener":
        yield from sorted((row for row in _rows_of_kind(catalogue, kind) if sort_key(row) > after), key=sort_key)
        return
    for service in sorted(catalogue.listeners):
        if after[:1] <= (service,):
            peers = catalogue.listeners[service].values()
            yield from sorted((peer for peer in peers if sort_key(peer) > after), key=sort_key)


def _rows_of_kind(catalogue: Catalogue, kind: str) -> Iterator[Row]:
    match kind:
        case "category":
            yield from catalogue.categories.values()
        case "service":
            for ids in catalogue.services.values():
                yield from ids.values()
        case "dependency":
            for category, needs in catalogue.needs.items():
                yield from (Dependency(category, on) for on in needs)
        case "listener":
            for peers in catalogue.listeners.values():
                yield from peers.values()
        case "credential":
            for own in catalogue.credentials.values():
                yield from own.values()
        case "host":
            yield from catalogue.hosts.values()
        case _:
            yield from catalogue.alerts.values()


def _matches(row: Row, request: Fetch) -> bool:
    if request.state and not (isinstance(row, Listener) and row.state == request.state):
        return False
    if request.within and request.within not in _places(row):
        return False
    return not request.name or request.name in (sort_key(row)[0], _full_name(row))


def _full_name(row: Row) -> str:
    """Return the row's name as `Remove` and `Impact` accept it."""
    match row:
        case Listener():
            return f"{row.service} {format_endpoint(row.address, row.port)}"
        case _:
            return " ".join(map(str, sort_key(row)))


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


def sort_key(row: Row) -> tuple[str | int, ...]:
    key = key_of(row)
    return key if isinstance(key, tuple) else (key,)

"""Queries of the catalogue in memory: pull and impact. They use no SQL and change nothing."""

from __future__ import annotations

from immutables import Map

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import audience, dependencies_of
from compass.model.names import category_of, parse_endpoint, parse_label, parse_service_id
from compass.model.replies import Dependencies, Told
from compass.model.requests import Impact, Pull
from compass.model.rows import Category, Listener, Row
from compass.model.rules.draft import refuse


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

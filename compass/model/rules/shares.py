"""Shares: the octets of listeners that a service, a category and what one category depends on may hold.

Octets are bounded where they enter, at registration, so that no view grows beyond what every host loads. A service's
share is also that of its credentials: a credential registers listeners of its own service only. What is held already
stays: a registration that does not grow, and every change of state, is accepted beyond the bounds as well.
"""

from __future__ import annotations

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import audience, needed_octets
from compass.model.catalogue.octets import ALL, metadata_octets, octets_of
from compass.model.limits import (
    CATEGORY_OCTETS_MAX,
    METADATA_ENTRIES_MAX,
    METADATA_KEY_MAX,
    METADATA_OCTETS_MAX,
    METADATA_VALUE_MAX,
    SERVICE_OCTETS_MAX,
    VIEW_OCTETS_MAX,
    WEIGHT_MAX,
)
from compass.model.requests import Register
from compass.model.rows import Category, Dependency, Listener, Row
from compass.model.rules.draft import refuse
from compass.model.rules.instances import check_texts

_ADVICE = "shorten metadata, deregister listeners, or purge offline ones"


def check_metadata(metadata: dict[str, str]) -> None:
    """Check the octets of one listener's metadata. Raises Refused."""
    octets = metadata_octets(metadata)
    if octets > METADATA_OCTETS_MAX:
        refuse("too-large", f"metadata has {octets} octets; at most {METADATA_OCTETS_MAX}: keep larger data elsewhere")


def check_registration(catalogue: Catalogue, old: Listener | None, row: Listener) -> None:
    """Check that `row` in place of `old` leaves every share within its bound. Raises Refused."""
    grown = octets_of(row) - (octets_of(old) if old is not None else 0)
    if grown <= 0:
        return
    service, category = row.service, row.service.partition(".")[2]
    sums = catalogue.octets
    for what, name, most in (("service", service, SERVICE_OCTETS_MAX), ("category", category, CATEGORY_OCTETS_MAX)):
        octets = sums.get(name, 0) + grown
        if octets > most:
            refuse("too-large", f"{what} {name} would hold listeners of {octets} octets; at most {most}: {_ADVICE}")
    if sums.get(ALL, 0) + grown > VIEW_OCTETS_MAX:
        for member in sorted(audience(catalogue, row)):
            _check_view(member, needed_octets(catalogue, member) + grown)


def check_declaration(catalogue: Catalogue, row: Row) -> None:
    """Check that a dependency or backup leaves no view beyond its bound; `catalogue` is the one with it. Raises
    Refused."""
    if catalogue.octets.get(ALL, 0) <= VIEW_OCTETS_MAX:
        return
    match row:
        case Dependency():
            members = frozenset({row.category})
        case Category() if row.backup:
            members = catalogue.dependants.get(row.name, frozenset())
        case _:
            return
    for member in sorted(members):
        _check_view(member, needed_octets(catalogue, member))


def _check_view(member: str, octets: int) -> None:
    if octets > VIEW_OCTETS_MAX:
        text = f"services of category {member} would depend on listeners of {octets} octets"
        refuse("too-large", f"{text}; at most {VIEW_OCTETS_MAX}: {_ADVICE}")


def check_parameters(request: Register) -> None:
    """Check the parameters of a registration. Raises Refused."""
    if not 0 <= request.weight <= WEIGHT_MAX:
        refuse("bad-value", f"weight {request.weight} is not between 0 and {WEIGHT_MAX}")
    for name, share in (("load", request.load), ("degradation", request.degradation)):
        if not 0 <= share <= 1:
            refuse("bad-value", f"{name} {share:g} is no share: from 0 (idle) to 1 (full)")
    if len(request.metadata) > METADATA_ENTRIES_MAX:
        refuse("bad-value", f"metadata has {len(request.metadata)} entries; at most {METADATA_ENTRIES_MAX}")
    for key, value in request.metadata.items():
        if not 1 <= len(key) <= METADATA_KEY_MAX:
            refuse("bad-value", f"metadata key {key[:80]!r} has {len(key)} characters; 1 to {METADATA_KEY_MAX}")
        if len(value) > METADATA_VALUE_MAX:
            refuse("bad-value", f"metadata {key!r} has {len(value)} characters; at most {METADATA_VALUE_MAX}")
    if request.metadata:
        check_metadata(request.metadata)
    if request.check or request.failing:
        check_texts(request)

"""Explanation of a lookup, in sentences: why each listener of a name is returned or not, to a host, now.

Nothing is decided here: the scope of a host, the candidates, the rule of a pool, the distance and the cap come from the
functions that lookups and verdicts use.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from immutables import Map

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import listed
from compass.model.catalogue.lookup_scope import LookupScope, scope_of
from compass.model.names import category_of, format_endpoint
from compass.model.replies import Refusal
from compass.model.rows import USABLE, Category, Host, Listener, key_of
from compass.model.rules.failure import may_condemn
from compass.model.selection.policies import Location, distance
from compass.model.selection.selector import candidates, rule_of

_SOURCES = {
    "service": "Its own listeners that are up or slow are returned.",
    "backup": "None of its own listeners is up or slow, so those of the backup service {backup} are returned.",
    "draining": "No listener of it or of a backup is up or slow, so the draining ones, which still work, are returned.",
    "suspect": "No listener of it or of a backup is up, slow or draining, so the suspect ones are returned.",
    "none": "No listener is returned: none is up, slow, draining or suspect.",
}
_STATES = {
    "up": "It is up.",
    "slow": "It is slow: reported as slow, and in use.",
    "suspect": "It is suspect: it was reported, lost or failed a check, and the verdict is pending.",
    "down": "It is down, and a listener that is down is never returned.",
    "draining": "It is draining: it serves its current users and is not returned to new ones while another is usable.",
    "offline": "It is offline: deregistered, and never returned before it is registered again.",
}
_NEAR = {0: "It is on the host itself, so it comes first.", 1: "It is in the zone of the host, so it comes early."}


class ListenerReasons(msgspec.Struct, frozen=True):
    """Answer for one listener, with its reasons."""

    service: str
    address: str
    port: int
    state: str
    returned: bool
    reasons: tuple[str, ...]


class Explanation(msgspec.Struct, frozen=True):
    """Answer to a lookup of `name`, with its reasons."""

    name: str
    host: str
    """Host that looks the name up. Empty: a host that depends on it."""
    revision: int
    source: str
    """Source of the listeners, as in a lookup. Empty: the lookup is refused."""
    reasons: tuple[str, ...]
    listeners: tuple[ListenerReasons, ...] = ()


def explain(catalogue: Catalogue, name: str, host: Host | None = None) -> Explanation | Refusal:
    """Explain what a lookup of a parsed service id or category returns: to `host`, or to any host that depends on it.

    `catalogue` needs all categories and dependencies, and the services and listeners of the category and its backup.
    Returns the refusal of a name that does not exist.
    """
    if unknown := LookupScope(catalogue).problem(name):
        return unknown
    asker = host.name if host is not None else ""
    refused = _refusal(catalogue, name, host)
    if refused:
        return Explanation(name, asker, catalogue.revision, "", refused)
    found, source = candidates(catalogue, name)
    chosen = {key_of(row) for row in found}
    rule = rule_of(catalogue, name)
    category = catalogue.categories.get(category_of(name) or name)
    backup = category.backup if category is not None else ""
    reasons = [_SOURCES[source].format(backup=backup), *_about_backup(catalogue, backup, source)]
    if found:
        reasons.append(f"The pool policy {rule.policy} orders them, with the locality {rule.locality}.")
    ids = [name] if "." in name else sorted(catalogue.services.get(name, Map()))
    own = [row for id in ids for row in _all(catalogue, id)]
    if not own:
        reasons.append(f"No listener of {name} is registered.")
    spare = [] if not backup or backup in ids else _all(catalogue, backup)
    verdicts: list[ListenerReasons] = []
    for row in (*own, *spare):
        why = [*_about_state(catalogue, row)]
        if returned := key_of(row) in chosen:
            why += _about_order(row, distance(row, Location(asker), rule.locality))
        elif row.state not in ("down", "offline"):
            why.append(_passed_over(row, source, row.service in ids))
        verdicts.append(ListenerReasons(row.service, row.address, row.port, row.state, returned, tuple(why)))
    return Explanation(name, asker, catalogue.revision, source, tuple(reasons), tuple(verdicts))


def sentences_of(explanation: Explanation) -> Iterator[str]:
    """Yield the lines that a person reads."""
    yield f"{explanation.name}, for {explanation.host or 'a host that depends on it'}:"
    yield from explanation.reasons
    for row in explanation.listeners:
        verdict = "returned" if row.returned else "not returned"
        yield f"{row.service} {format_endpoint(row.address, row.port)}: {verdict}. {' '.join(row.reasons)}"


def _refusal(catalogue: Catalogue, name: str, host: Host | None) -> tuple[str, ...]:
    """Return why the host's daemon refuses the lookup; () if it does not."""
    if host is None:
        if scope_of(catalogue, catalogue.categories).problem(name):
            return (f"The lookup is refused at every host: no category depends on {category_of(name) or name}.",)
        return ()
    if host.barred:
        return (f"An administrator has barred {host.name}: servers refuse all of its requests.",)
    if not host.services:
        return (f"{host.name} has no service, so no dependency is loaded there, and the lookup is refused.",)
    problem = scope_of(catalogue, frozenset(map(category_of, host.services))).problem(name)
    return (f"The lookup is refused there: {problem.message}.",) if problem else ()


def _all(catalogue: Catalogue, service: str) -> list[Listener]:
    rows = catalogue.listeners.get(service, Map()).values()
    return sorted(rows, key=lambda row: (row.address, row.port))


def _about_backup(catalogue: Catalogue, backup: str, source: str) -> Iterator[str]:
    if source in ("service", "backup"):
        return
    if not backup:
        yield "Its category has no backup service."
    elif not any(row.state in USABLE for row in listed(catalogue, backup)):
        yield f"Its backup service {backup} has no listener that is up or slow either."


def _about_order(row: Listener, near: int) -> Iterator[str]:
    if not row.weight:
        yield "Its weight is 0, so it comes after all others."
    elif near in _NEAR:
        yield _NEAR[near]


def _about_state(catalogue: Catalogue, row: Listener) -> Iterator[str]:
    yield _STATES[row.state]
    if row.cause:
        yield f"The cause: {row.cause}."
    if row.draining and row.state != "draining":
        yield "It was draining before, and will be draining again, not up."
    if row.failing:
        yield f"The check of its own host ({row.check}) fails: {row.failing}. No probe brings it back before it passes."
    category: Category | None = catalogue.categories.get(category_of(row.service))
    if row.state != "suspect" or category is None:
        return
    cap = category.policy.cap
    if not may_condemn(catalogue.listeners_within(category.name), cap):
        yield f"It stays suspect: as many listeners of {category.name} are down as its cap of {cap:g} allows."


def _passed_over(row: Listener, source: str, own: bool) -> str:
    if not own:
        if row.state in USABLE:
            return "It is of the backup service, which is not needed now."
        return "It is of the backup service, of which only listeners that are up or slow are returned."
    better = {"service": "its own up or slow listeners", "backup": "the backup", "draining": "its draining listeners"}
    return f"It is passed over, because {better[source]} can be used."

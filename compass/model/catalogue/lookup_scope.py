"""Scope of lookups: the names that a program may look up, and the refusal of each other name (P5)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.names import InvalidName, category_of, parse_pool_name
from compass.model.replies import Refusal


class LookupScope(msgspec.Struct, frozen=True, eq=False):
    """Catalogue and the part of it that is complete: at a host, the dependencies of its services."""

    catalogue: Catalogue
    categories: frozenset[str] | None = None
    """Categories that are complete with all their services. None: all, as at a server."""
    services: frozenset[str] = frozenset()
    """Services that are held without their category: backups of these categories."""
    members: frozenset[str] = frozenset()
    """Categories that this host serves."""

    def problem(self, name: str) -> Refusal | None:
        """Return the refusal of a lookup of a parsed service id or category, or None if the lookup is possible."""
        category = category_of(name) or name
        if self.categories is not None and category not in self.categories and name not in self.services:
            return Refusal("unknown-dependency", f"{name}: {self._why_uncovered(category)}{self._meant(name)}")
        if name not in self.services and category not in self.catalogue.categories:
            text = f"there is no category {category!r}; an administrator can add it{self._meant(name)}"
            return Refusal("unknown-category", text)
        if "." in name and self.catalogue.service(name) is None:
            text = f"there is no service {name!r}; an administrator can add it{self._meant(name)}"
            return Refusal("unknown-service", text)
        return None

    def _why_uncovered(self, category: str) -> str:
        if category in self.members:
            return (
                f"this host serves category {category}, which does not depend on itself, so its changes are not pushed "
                f"to its own hosts; 'opengnsadmin dependency add {category} {category}' lets them look it up"
            )
        return (
            f"no service of this host depends on category {category}, so nothing is known of it here; "
            "ask for the dependencies of a service that does, or have an administrator declare the dependency"
        )

    def _meant(self, name: str) -> str:
        """Return a question with the service that has the two labels the other way round; empty: there is none."""
        first, _, second = name.partition(".")
        other = f"{second}.{first}"
        return f"; did you mean {other}?" if second and self.catalogue.service(other) is not None else ""


def scope_of(catalogue: Catalogue, categories: Iterable[str]) -> LookupScope:
    """Return the scope of services of these categories: the categories that they depend on, and their backups."""
    members = frozenset(categories)
    needed = frozenset().union(*(catalogue.needs.get(category, frozenset()) for category in members))
    rows = (catalogue.categories.get(category) for category in needed)
    backups = frozenset(row.backup for row in rows if row is not None and row.backup)
    return LookupScope(catalogue, needed, backups, members)


def parse_name(text: str) -> str | Refusal:
    """Parse a service id or a category's name. Returns its canonical form, or the refusal of an invalid name."""
    try:
        return parse_pool_name(text)
    except InvalidName as problem:
        return Refusal(problem.code, str(problem))

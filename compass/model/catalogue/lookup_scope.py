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

    def problem(self, name: str) -> Refusal | None:
        """Return the refusal of a lookup of a parsed service id or category, or None if the lookup is possible."""
        category = category_of(name) or name
        if self.categories is not None and category not in self.categories and name not in self.services:
            return Refusal(
                "unknown-dependency",
                f"{name}: no service of this host depends on category {category}, so nothing is known of it here; "
                "ask for the dependencies of a service that does, or have an administrator declare the dependency",
            )
        if name not in self.services and category not in self.catalogue.categories:
            return Refusal("unknown-category", f"there is no category {category!r}; an administrator can add it")
        if "." in name and self.catalogue.service(name) is None:
            return Refusal("unknown-service", f"there is no service {name!r}; an administrator can add it")
        return None


def scope_of(catalogue: Catalogue, categories: Iterable[str]) -> LookupScope:
    """Return the scope of services of these categories: the categories that they depend on, and their backups."""
    needed = frozenset().union(*(catalogue.needs.get(category, frozenset()) for category in categories))
    rows = (catalogue.categories.get(category) for category in needed)
    return LookupScope(catalogue, needed, frozenset(row.backup for row in rows if row is not None and row.backup))


def parse_name(text: str) -> str | Refusal:
    """Parse a service id or a category's name. Returns its canonical form, or the refusal of an invalid name."""
    try:
        return parse_pool_name(text)
    except InvalidName as problem:
        return Refusal(problem.code, str(problem))

"""Scope of lookups: what a program may look up, and which of the three answers for nothing it gets (P5)."""

from __future__ import annotations

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.names import InvalidName, category_of, parse_label, parse_service_id
from compass.model.replies import Refusal


class LookupScope(msgspec.Struct, frozen=True, eq=False):
    """A catalogue and the part of it that is held completely: at a host what its services depend on."""

    catalogue: Catalogue
    categories: frozenset[str] | None = None
    """Categories that are held with all their services. None: all there are, as at a server."""
    services: frozenset[str] = frozenset()
    """Services that are held without their category: backups of those above."""

    def problem(self, name: str) -> Refusal | None:
        """Why a parsed service id or category cannot be looked up, or None."""
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


def parse_name(text: str) -> str | Refusal:
    """A service id or a category's name in canonical form."""
    try:
        return parse_service_id(text) if "." in text else parse_label(text, "category")
    except InvalidName as problem:
        return Refusal(problem.code, str(problem))

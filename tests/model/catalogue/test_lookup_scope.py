"""Scope of lookups: what a refusal says about a name, and what to do."""

from __future__ import annotations

import pytest

from compass.model.catalogue.catalogue import catalogue_of
from compass.model.catalogue.lookup_scope import LookupScope, scope_of
from compass.model.rows import Category, Dependency, Row, Service

ROWS: list[Row] = [
    *(Category(name) for name in ("stock", "shop", "web")),
    *(Service(id) for id in ("bread.stock", "cart.shop", "page.web")),
    Dependency("web", "stock"),
    Dependency("shop", "shop"),
]
CATALOGUE = catalogue_of(ROWS, {}, 9)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("stock.bread", "unknown-dependency", "; did you mean bread.stock?"),
        ("bread.bread", "unknown-dependency", "or have an administrator declare the dependency"),
        ("page.web", "unknown-dependency", "this host serves category web, which does not depend on itself"),
        ("page.web", "unknown-dependency", "'opengnsadmin dependency add web web' lets them look it up"),
        ("milk.stock", "unknown-service", "there is no service 'milk.stock'; an administrator can add it"),
        ("cart.shop", "", ""),
        ("bread.stock", "", ""),
    ],
)
def test_a_host(name: str, code: str, words: str) -> None:
    """A host that serves `web` and `shop`: the first depends on `stock`, the second on itself."""
    refusal = scope_of(CATALOGUE, ["web", "shop"]).problem(name)
    assert (refusal.code if refusal else "") == code
    assert refusal is None or words in refusal.message


def test_a_server() -> None:
    """A server knows all names, so a name the wrong way round is a category that does not exist."""
    refusal = LookupScope(CATALOGUE).problem("stock.bread")
    assert refusal is not None and refusal.code == "unknown-category"
    assert refusal.message == "there is no category 'bread'; an administrator can add it; did you mean bread.stock?"

"""Open categories: registrations that declare their service, in development mode and nowhere else."""

from __future__ import annotations

import msgspec
import pytest

from compass.model.catalogue.catalogue import Catalogue
from compass.model.names import RESERVED_PREFIX
from compass.model.replies import Deregistered, Refusal, Registered, Reported
from compass.model.requests import Deregister, Drain, Register
from compass.model.rows import Category, Dependency, Policy, Service
from compass.model.rules.decide import decide
from compass.model.rules.tokens import TOKEN_ROLES
from tests.support.catalogue_rows import ADMIN, HOST, NOW, store

REGISTER = Register("Cart.shop", "", "10.0.0.1", 2028, 5)


def test_a_registration_declares_category_and_service() -> None:
    """The decision adds both, with a dependency on itself, and records this in the administration log."""
    made = decide(Catalogue(), REGISTER, HOST, NOW, "", True)
    assert isinstance(made.reply, Registered)
    operations = [change.operation for change in made.changes]
    assert operations == ["category-add", "dependency-add", "service-add", "register"]
    assert made.catalogue.categories["shop"] == Category("shop", policy=Policy(open=True))
    assert made.changes[1].row == Dependency("shop", "shop") and made.changes[2].row == Service("cart.shop")
    entry = made.administration
    assert entry is not None and (entry.operation, entry.principal, entry.revision) == ("declare", HOST.name, 4)
    # The same registration again, and another service's, declare only the rest.
    again = decide(made.catalogue, REGISTER, HOST, NOW, "", True)
    assert again.changes == () and again.administration is None
    second = decide(made.catalogue, msgspec.structs.replace(REGISTER, service="list.shop"), HOST, NOW, "", True)
    assert [change.operation for change in second.changes] == ["service-add", "register"]
    for request, reply in (
        (Drain("cart.shop", "10.0.0.1", 2028, True), Reported),
        (Deregister("cart.shop", "", "10.0.0.1", 2028, 5), Deregistered),
    ):
        assert isinstance(decide(made.catalogue, request, HOST, NOW, "", True).reply, reply)


def test_outside_of_development_mode_nothing_is_open() -> None:
    """The setting of the category alone opens nothing: a store of development mode may be served by others."""
    assert decide(Catalogue(), REGISTER, HOST, NOW, "").reply.code == "unknown-category"  # type: ignore[union-attr]
    opened = decide(Catalogue(), REGISTER, HOST, NOW, "", True).catalogue
    refused = decide(opened, msgspec.structs.replace(REGISTER, epoch=6), HOST, NOW, "")
    assert isinstance(refused.reply, Refusal) and refused.reply.code == "bad-credential" and refused.security


def test_what_stays_closed_in_development_mode() -> None:
    """Declared categories, those of tokens, and a credential that is wrong; an administrator declares nothing so."""
    world = store()
    closed = decide(world.catalogue, msgspec.structs.replace(REGISTER, service="new.store"), HOST, NOW, "", True)
    assert isinstance(closed.reply, Refusal) and closed.reply.code == "unknown-service" and not closed.changes
    without = decide(world.catalogue, msgspec.structs.replace(REGISTER, service="a.store"), HOST, NOW, "", True)
    assert isinstance(without.reply, Refusal) and without.reply.code == "bad-credential"
    opened = decide(Catalogue(), REGISTER, HOST, NOW, "", True).catalogue
    wrong = decide(opened, msgspec.structs.replace(REGISTER, credential="wrong", epoch=6), HOST, NOW, "", True)
    assert isinstance(wrong.reply, Refusal) and wrong.reply.code == "bad-credential"
    assert isinstance(decide(Catalogue(), REGISTER, ADMIN, NOW, "", True).reply, Refusal)


@pytest.mark.parametrize("category", sorted(TOKEN_ROLES))
def test_no_registration_declares_a_token(category: str) -> None:
    """The categories of tokens begin with the reserved prefix, and are not declared by a host."""
    assert category.startswith(RESERVED_PREFIX)
    request = msgspec.structs.replace(REGISTER, service=f"me.{category}")
    made = decide(Catalogue(), request, HOST, NOW, "", True)
    assert isinstance(made.reply, Refusal) and not made.changes

"""Bearer tokens: whose they are, what they may, and that nothing takes them away by accident."""

from __future__ import annotations

import hmac
from unittest import mock

import pytest

from compass.model.replies import CredentialIssued, Done, Refusal
from compass.model.requests import Apply, Impact, IssueCredential, Pull, Purge, Put, Remove, RevokeCredential, Status
from compass.model.rows import Category, Service
from compass.model.rules.decide import permit
from compass.model.rules.draft import Principal
from compass.model.rules.tokens import ADMIN_TOKENS, TOKEN_ROLES, VIEWER_TOKENS, principal_of
from tests.support.catalogue_rows import NOW, World, store


def with_tokens() -> tuple[World, str, str]:
    """A world, an administrator's token and a viewer's."""
    world = store()
    for category, name in ((ADMIN_TOKENS, "deploy"), (VIEWER_TOKENS, "grafana")):
        world.get(Done, Apply((Category(category), Service(f"{name}.{category}"))))
    return world, world.token(f"deploy.{ADMIN_TOKENS}"), world.token(f"grafana.{VIEWER_TOKENS}")


def test_a_token_says_who_asks_and_with_which_role() -> None:
    """The role is that of the service's category; the credential of any other service opens nothing."""
    world, admin, viewer = with_tokens()
    assert principal_of(world.catalogue, admin, "192.0.2.1", NOW) == Principal("admin", "deploy.gns-admin", "192.0.2.1")
    assert principal_of(world.catalogue, viewer, "192.0.2.1", NOW) == Principal(
        "viewer", "grafana.gns-viewer", "192.0.2.1"
    )
    for token in ("", "wrong", world.token("a.store"), admin[:-1], "\ud800"):
        assert principal_of(world.catalogue, token, "192.0.2.1", NOW) is None


def test_tokens_are_compared_in_constant_time() -> None:
    """Each of them is compared in full, whichever holds."""
    world, admin, viewer = with_tokens()
    for token in (admin, viewer, "wrong"):
        with mock.patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compared:
            principal_of(world.catalogue, token, "", NOW)
        assert compared.call_count == 2


def test_a_token_ends_when_it_is_revoked_replaced_or_removed() -> None:
    """P11: at once, or at the very end of the overlap."""
    world, admin, viewer = with_tokens()
    issued = world.get(CredentialIssued, IssueCredential(f"deploy.{ADMIN_TOKENS}", 60.0))
    assert principal_of(world.catalogue, admin, "", NOW + 59.9) is not None
    assert principal_of(world.catalogue, admin, "", NOW + 60.0) is None
    world.get(Done, RevokeCredential(f"deploy.{ADMIN_TOKENS}", issued.credential.id))
    assert principal_of(world.catalogue, issued.token, "", NOW) is None
    world.get(Done, Remove("service", f"grafana.{VIEWER_TOKENS}"))
    assert principal_of(world.catalogue, viewer, "", NOW) is None


def test_a_topology_that_does_not_name_tokens_leaves_them() -> None:
    """A topology that is applied with a token does not remove the token's category."""
    world, admin, viewer = with_tokens()
    world.get(Done, Apply((Category("only"),), prune=True))
    assert sorted(world.catalogue.categories) == ["gns-admin", "gns-viewer", "only"]
    assert principal_of(world.catalogue, admin, "", NOW) and principal_of(world.catalogue, viewer, "", NOW)


@pytest.mark.parametrize(
    ("request_", "may"),
    [
        (Status(), True),
        (Impact("store"), True),
        (Pull("a.store"), True),
        (Put(Category("store")), False),
        (IssueCredential(f"grafana.{ADMIN_TOKENS}"), False),
        (Purge(3600.0), False),
    ],
)
def test_a_viewer_looks_and_changes_nothing(request_: object, may: bool) -> None:
    """The refusal names who, what, and the role that it needs."""
    world, _, _ = with_tokens()
    refused = permit(world.catalogue, request_, Principal("viewer", "grafana.gns-viewer", "192.0.2.1"), NOW)
    assert (refused is None) == may
    if refused is not None:
        assert isinstance(refused.reply, Refusal) and "needs the role admin" in refused.reply.message
        assert refused.security is not None and refused.security.principal == "grafana.gns-viewer"


def test_the_categories_of_tokens_are_names() -> None:
    """The categories of tokens are created with the same requests as every other category."""
    world = store()
    for category in TOKEN_ROLES:
        world.get(Done, Put(Category(category), create=True))

"""Bearer tokens: whose a token is, and how many unknown ones are checked (P10, P11)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from compass.model.catalogue.catalogue import Catalogue
from compass.model.limits import TOKEN_MAX
from compass.model.replies import Refusal
from compass.model.rows import SecurityEntry
from compass.model.rules.draft import Principal
from compass.server.sessions import bearer_auth
from compass.server.sessions.bearer_auth import BearerAuth
from compass.server.sessions.rate_limit import FAILURES_PER_MINUTE_MAX, MINUTE_SECONDS
from tests.model.rules.test_tokens import with_tokens
from tests.support.catalogue_rows import NOW


class Tokens:
    """A catalogue with tokens, and the security log."""

    def __init__(self) -> None:
        self.clock: Any = Clock()
        world, self.admin, self.viewer = with_tokens()
        self.catalogue: Catalogue = world.catalogue
        self.entries: list[SecurityEntry] = []
        self.auth = BearerAuth(self, self)

    def now(self) -> float:
        return NOW

    def token(self) -> str:
        return "token"

    def random(self) -> float:
        return 0.5

    def log_security(self, entry: SecurityEntry) -> None:
        self.entries.append(entry)


def test_the_principal_of_a_token() -> None:
    """P11: role and name are those of the token's service, the origin that of the connection."""
    tokens = Tokens()
    admin = Principal("admin", "deploy.gns-admin", "192.0.2.1")
    assert tokens.auth.principal(tokens.admin, "192.0.2.1") == admin
    viewer = Principal("viewer", "grafana.gns-viewer", "192.0.2.1")
    assert tokens.auth.principal(tokens.viewer, "192.0.2.1") == viewer


def test_unknown_tokens_are_logged_and_bounded() -> None:
    """P10: each is logged with its origin; after too many of them no token from there is checked for a minute."""
    tokens = Tokens()
    for _ in range(FAILURES_PER_MINUTE_MAX):
        refused = tokens.auth.principal("guess", "192.0.2.1")
        assert isinstance(refused, Refusal) and refused.code == "bad-credential"
    assert {(entry.operation, entry.origin) for entry in tokens.entries} == {("authenticate", "192.0.2.1")}
    refused = tokens.auth.principal(tokens.admin, "192.0.2.1")
    assert isinstance(refused, Refusal) and refused.code == "busy" and refused.retry_after_seconds
    assert isinstance(tokens.auth.principal(tokens.admin, "192.0.2.2"), Principal)
    tokens.clock.advance(MINUTE_SECONDS)
    assert isinstance(tokens.auth.principal(tokens.admin, "192.0.2.1"), Principal)


def test_the_longest_token_that_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer token is refused without being hashed."""
    tokens = Tokens()
    seen: list[int] = []
    monkeypatch.setattr(bearer_auth, "principal_of", lambda catalogue, token, *_: seen.append(len(token)))
    for length in (TOKEN_MAX, TOKEN_MAX + 1):
        assert isinstance(tokens.auth.principal("x" * length, "192.0.2.1"), Refusal)
    assert seen == [TOKEN_MAX]

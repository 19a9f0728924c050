"""Bearer tokens: how callers over HTTPS prove who they are without a certificate (P11)."""

from __future__ import annotations

from typing import Protocol

from compass.model.catalogue.catalogue import Catalogue
from compass.model.interfaces import Environment
from compass.model.limits import TOKEN_MAX
from compass.model.replies import Refusal
from compass.model.rows import SecurityEntry
from compass.model.rules.draft import Principal
from compass.model.rules.tokens import principal_of
from compass.server.sessions.rate_limit import FAILURES_PER_MINUTE_MAX, RateLimiter


class TokenStore(Protocol):
    """The catalogue, which has the tokens' digests, and the security log."""

    @property
    def catalogue(self) -> Catalogue:
        """Catalogue as committed."""

    def log_security(self, entry: SecurityEntry) -> None:
        """Write an entry of the security log."""


class BearerAuth:
    """Finds the principal of a token; after too many unknown ones from an origin none from there is checked."""

    def __init__(self, environment: Environment, tokens: TokenStore) -> None:
        self._now = environment.now
        self._tokens = tokens
        self._unknown = RateLimiter(environment.clock, FAILURES_PER_MINUTE_MAX)

    def principal(self, token: str, origin: str) -> Principal | Refusal:
        """Return the principal that the token belongs to, or why it is refused."""
        wait = self._unknown.wait(origin)
        if wait:
            text = f"{FAILURES_PER_MINUTE_MAX} unknown tokens came from {origin} within a minute: "
            return Refusal("busy", f"{text}none is checked until the minute ends", retry_after_seconds=wait)
        catalogue = self._tokens.catalogue
        found = principal_of(catalogue, token, origin, self._now()) if len(token) <= TOKEN_MAX else None
        if found is not None:
            return found
        self._unknown.count(origin)
        text = "the bearer token is unknown: it was never made, was removed, or has expired"
        self._tokens.log_security(SecurityEntry(0, self._now(), "authenticate", "", "{}", origin, "", text))
        return Refusal("bad-credential", f"{text}; an administrator can make one with 'opengnsadmin token add'")

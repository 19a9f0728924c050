"""Bearer tokens: who asks without a certificate, over HTTPS.

A token is the credential of a service, made, rotated and revoked like any other, and stored as a digest only. What role
it has is said by the service's category: these two are there for nothing else. So there is one kind of secret and one
set of rules for it, every server knows of a token in the moment it is committed, and the name of the service stands in
the logs. A topology does not have to name these categories: they are not pruned.
"""

from __future__ import annotations

import hmac

from immutables import Map

from compass.model.catalogue.catalogue import Catalogue
from compass.model.names import category_of
from compass.model.rules.draft import Principal, Role
from compass.model.rules.listeners import digest_of

ADMIN_TOKENS = "gns-admin"
"""The category of those who may do whatever an administrator may."""
VIEWER_TOKENS = "gns-viewer"
"""The category of those who may look at everything and change nothing."""
TOKEN_ROLES: dict[str, Role] = {ADMIN_TOKENS: "admin", VIEWER_TOKENS: "viewer"}


def principal_of(catalogue: Catalogue, token: str, origin: str, now: float) -> Principal | None:
    """Return the principal of a token, or None if it belongs to none. Each stored token is compared in full."""
    digest = digest_of(token)
    found: Principal | None = None
    for category, role in TOKEN_ROLES.items():
        for service in catalogue.services.get(category, Map()):
            for credential in catalogue.credentials.get(service, Map()).values():
                current = not credential.expires_at or now < credential.expires_at
                if hmac.compare_digest(credential.digest, digest) and current:
                    found = Principal(role, service, origin)
    return found


def is_of_tokens(name: str) -> bool:
    """Return whether a category or a service is reserved for tokens."""
    return (category_of(name) or name) in TOKEN_ROLES

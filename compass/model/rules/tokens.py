"""Bearer tokens: authentication without a certificate, over HTTPS.

A token is the credential of a service, issued, rotated and revoked like any other, and stored as a digest only. The
service's category determines its role: two categories are reserved for this. So there is one kind of secret with one
set of rules, every server knows a token as soon as it is committed, and the logs contain the name of the service. A
topology does not have to name these categories: they are not pruned.
"""

from __future__ import annotations

import hmac

from immutables import Map

from compass.model.catalogue.catalogue import Catalogue
from compass.model.names import category_of
from compass.model.rules.draft import Principal, Role
from compass.model.rules.listeners import digest_of

ADMIN_TOKENS = "gns-admin"
"""Category of tokens with the rights of an administrator."""
VIEWER_TOKENS = "gns-viewer"
"""Category of tokens that may read everything and change nothing."""
TOKEN_ROLES: dict[str, Role] = {ADMIN_TOKENS: "admin", VIEWER_TOKENS: "viewer"}


def principal_of(catalogue: Catalogue, token: str, origin: str, now: float) -> Principal | None:
    """Return the principal of a token, or None if the token is invalid. Each stored digest is compared, so that the
    time shows nothing."""
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

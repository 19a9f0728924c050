"""Join token: one line of text with all that a host needs to get its certificate from a server, once.

The token has the servers' addresses, the id of their store, and the fingerprint of the authority. The host verifies
with the fingerprint who answers before it sends anything; only then the secret part is sent. The server stores a digest
of the secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import asdict, dataclass

PREFIX = "gnsjoin1."
"""Begin of each token: programs that search texts for secrets find it, and another form gets another number."""
TOKEN_LENGTH_MAX = 4096
"""Longest token: one with ten servers and names of full length has half of that."""
SERVERS_MAX = 10
"""Servers in a token: a host that has joined learns the others from its configuration or from DNS."""


class TokenInvalid(Exception):
    """Text that is not a join token; the message says what is wrong."""


@dataclass(frozen=True)
class JoinToken:
    """Content of a join token."""

    name: str
    """Name of the host in its certificate."""
    servers: tuple[str, ...]
    """Servers for OpenGNSP, `NAME:PORT`, for the configuration of the host."""
    https_port: int
    """Port of the servers' HTTPS API, where the host joins."""
    store: str
    """Id of the store."""
    authority: str
    """SHA-256 of the authority's certificate, 64 hexadecimal digits."""
    secret: str
    """Random text, which the server knows by its digest."""

    def __repr__(self) -> str:
        # A generated representation could put the secret into a log or a traceback.
        return f"<JoinToken for {self.name}>"


def encode(token: JoinToken) -> str:
    """Return the text of a token."""
    data = json.dumps(asdict(token), separators=(",", ":"), sort_keys=True).encode()
    return PREFIX + base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def decode(text: str) -> JoinToken:
    """Return the content of a token. Raises TokenInvalid."""
    text = text.strip()
    if not text.startswith(PREFIX) or len(text) > TOKEN_LENGTH_MAX:
        raise TokenInvalid("this is not a join token; an administrator makes one with 'opengnsadmin host invite NAME'")
    octets = text.removeprefix(PREFIX)
    try:
        data = json.loads(base64.b64decode(octets + "=" * (-len(octets) % 4), altchars=b"-_", validate=True))
        token = JoinToken(**data | {"servers": tuple(data["servers"])})
    except (ValueError, binascii.Error, TypeError, KeyError, RecursionError):
        raise TokenInvalid("the join token is damaged: copy all of it, it is one line") from None
    texts = (token.name, token.store, token.authority, token.secret, *token.servers)
    if not all(isinstance(one, str) and one.isprintable() and one for one in texts):
        raise TokenInvalid("the join token is damaged: copy all of it, it is one line")
    if not (isinstance(token.https_port, int) and 1 <= token.https_port <= 65535):
        raise TokenInvalid("the join token is damaged: copy all of it, it is one line")
    if not 1 <= len(token.servers) <= SERVERS_MAX:
        raise TokenInvalid(f"the join token must name 1 to {SERVERS_MAX} servers")
    return token


def digest_of(secret: str) -> str:
    """Return the digest by which a server knows a token: SHA-256, hexadecimal. The secret has 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()

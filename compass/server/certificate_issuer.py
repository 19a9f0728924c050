"""Certificates for hosts: invitations of administrators, the first certificate of a host that joins, and its renewals.

Only a server that holds the private authority's key does any of it (`signer`); where people have a PKI of their own
there is no signer, and nothing is tried. A host gets the role host and the names of its invitation, or those of the
certificate that it renews, and never more.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from twisted.logger import Logger

from compass.model.interfaces import StoreUnavailable
from compass.model.limits import INVITATION_NAMES_MAX, INVITATION_SECONDS_MAX, INVITATION_SECONDS_MIN, TOKEN_MAX
from compass.model.names import parse_host_name
from compass.model.replies import Certified, Code, Invited, Refusal
from compass.model.requests import Invite, Join, Renew
from compass.model.rows import AdministrationEntry, AuthorityInfo, Invitation, SecurityEntry
from compass.model.rules.decide import barred
from compass.model.rules.draft import Principal, parameters_of
from compass.model.rules.listeners import digest_of
from compass.server.commit.committer import Committer
from compass.server.commit.store_access import StoreAccess
from compass.server.sessions.rate_limit import FAILURES_PER_MINUTE_MAX, RateLimiter
from compass.server.sessions.session import Session

ID_LENGTH = 12
"""Digits of a token's id, the prefix of its digest: two of the tokens of a month do not share one by chance."""
ANOTHER = "an administrator makes another one with 'opengnsadmin host invite NAME'"
NO_AUTHORITY = Refusal(
    "unknown-authority",
    "this server does not hold the authority's key, so it signs no certificates: use 'opengnsadmin tls host NAME' "
    "where the authority is, or a server with 'authority' in [server] (docs/howto/join.md)",
)

NO_HTTPS = Refusal(
    "unknown-authority",
    "this server serves no HTTPS, where hosts join: set 'listen' in [server.https] of its file and restart it",
)


class SigningRefused(Exception):
    """Refusal of a certificate; the message says why."""


class Signer(Protocol):
    """Private authority with its key."""

    @property
    def authority(self) -> str:
        """Certificate of the authority, PEM."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of that certificate, hexadecimal."""

    @property
    def https_port(self) -> int:
        """Port of this server's HTTPS API; 0: it has none."""

    def check_names(self, name: str, also: tuple[str, ...]) -> None:
        """Check the names of a host. Raises SigningRefused."""

    def sign(self, name: str, also: tuple[str, ...], request: bytes) -> str:
        """Return the certificate of a host, PEM. Raises SigningRefused."""

    def renew(self, stream: object, request: bytes) -> str:
        """Return a certificate with the role and the names of the one that the peer of a connection has shown; the
        connection ends with the new one. Raises SigningRefused."""


class IssuerEnvironment(Protocol):
    """Surroundings of the issuer: time, randomness and the authority."""

    @property
    def signer(self) -> Signer | None:
        """Authority, if this server holds its key."""

    def now(self) -> float:
        """Return UNIX time in seconds."""

    def token(self) -> str:
        """Return 256 fresh random bits as text."""


class CertificateIssuer:
    """Issuer of hosts' certificates."""

    log = Logger()

    def __init__(
        self, store: str, environment: IssuerEnvironment, access: StoreAccess, committer: Committer, failed: RateLimiter
    ) -> None:
        """`store`: its id. `failed`: counts wrong tokens by origin."""
        self._store = store
        self._environment = environment
        self._access = access
        self._committer = committer
        self._failed = failed

    @property
    def renews(self) -> str:
        """Fingerprint of the authority whose certificates hosts can renew here; empty: none."""
        signer = self._environment.signer
        return "" if signer is None else signer.fingerprint

    def info(self) -> AuthorityInfo | Refusal:
        """Return what a host needs to verify the authority."""
        signer = self._environment.signer
        if signer is None:
            return NO_AUTHORITY
        return AuthorityInfo(signer.authority, self._store, self._environment.now())

    async def invite(self, request: Invite, asker: Principal) -> Invited | Refusal:
        """Make a join token for a host."""
        signer, now = self._environment.signer, self._environment.now()
        if signer is None:
            return NO_AUTHORITY
        if not signer.https_port:
            return NO_HTTPS
        name = parse_host_name(request.name)
        refusal = _wrong(signer, request, name)
        if refusal is not None:
            return refusal
        if barred(self._committer.catalogue, Principal("host", name, asker.origin)):
            return Refusal(
                "forbidden", f"the host {name!r} is barred: 'opengnsadmin host set {name} --not-barred' first"
            )
        secret = self._environment.token()
        digest, ends = digest_of(secret), now + request.seconds
        token = Invitation(digest[:ID_LENGTH], digest, name, request.also, now, asker.name, ends)
        revision = self._committer.catalogue.revision
        entry = AdministrationEntry(
            0, now, "invite", parameters_of(request), asker.origin, asker.name, "done", revision
        )
        try:
            await self._access.run(self._access.store.invite, token, entry)
        except StoreUnavailable as problem:
            return _unavailable(problem)
        return Invited(name, secret, self._store, signer.fingerprint, ends, signer.https_port)

    async def join(self, request: Join, origin: str) -> Certified | Refusal:
        """Return the first certificate of a host for its token, which is used up with it."""
        signer, entry = self._environment.signer, self._entry("join", origin)
        if signer is None:
            return NO_AUTHORITY
        wait = self._failed.wait(origin)
        if wait:
            text = f"{FAILURES_PER_MINUTE_MAX} join tokens from {origin} were refused within a minute"
            return Refusal("busy", f"{text}; try again later", retry_after_seconds=wait)
        try:
            return await self._join(signer, request, entry)
        except StoreUnavailable as problem:
            return _unavailable(problem)

    async def _join(self, signer: Signer, request: Join, entry: SecurityEntry) -> Certified | Refusal:
        store, run = self._access.store, self._access.run
        digest = digest_of(request.token) if len(request.token) <= TOKEN_MAX else ""
        token: Invitation | None = await run(store.invitation, digest[:ID_LENGTH])
        if token is None or not hmac.compare_digest(token.digest, digest):
            return self._refuse(entry, "bad-credential", f"the join token is unknown to this store; {ANOTHER}")
        entry = msgspec.structs.replace(entry, subject=token.host)
        if problem := _spent(token, entry.time):
            return self._refuse(entry, "bad-credential", problem)
        if barred(self._committer.catalogue, Principal("host", token.host, entry.origin)):
            text = f"the host {token.host!r} is barred: 'opengnsadmin host set {token.host} --not-barred' first"
            return self._refuse(entry, "forbidden", text)
        try:
            # Before the token is used: a request that cannot be signed does not use it up.
            certificate = signer.sign(token.host, token.also, request.request)
        except SigningRefused as problem:
            return self._refuse(entry, "forbidden", f"{problem}; the join token was not used")
        used = msgspec.structs.replace(
            entry, principal=token.created_by, reason=f"joined with the token {token.id}: a certificate was issued"
        )
        if not await run(store.join, token.id, used):
            return self._refuse(entry, "bad-credential", f"the join token was used at this moment; {ANOTHER}")
        self.log.info("host {host} joins from {origin}", host=token.host, origin=entry.origin)
        return Certified(certificate, signer.authority)

    async def renew(self, request: Renew, session: Session) -> Certified | Refusal:
        """Return a new certificate for the host of a session."""
        signer, asker = self._environment.signer, session.asker
        if signer is None:
            return NO_AUTHORITY
        try:
            certificate = signer.renew(session.transport, request.request)
        except SigningRefused as problem:
            entry = msgspec.structs.replace(
                self._entry("renew", asker.origin), subject=asker.name, principal=asker.name
            )
            return self._refuse(entry, "forbidden", str(problem))
        self.log.info("host {host} has renewed its certificate", host=asker.name)
        return Certified(certificate, signer.authority)

    def _entry(self, operation: str, origin: str) -> SecurityEntry:
        return SecurityEntry(0, self._environment.now(), operation, "", "{}", origin, "", "")

    def _refuse(self, entry: SecurityEntry, code: Code, why: str) -> Refusal:
        """Write a refusal to the security log, and count it."""
        if entry.operation == "join":
            self._failed.count(entry.origin)
        self._committer.log_security(msgspec.structs.replace(entry, reason=why))
        return Refusal(code, why)


def _spent(token: Invitation, now: float) -> str:
    """Return why a token cannot be used any more; empty: it can."""
    if token.used_at:
        when = datetime.fromtimestamp(token.used_at, UTC)
        return f"the join token was used at {when:%Y-%m-%d %H:%M:%S} UTC from {token.used_from}; {ANOTHER}"
    if token.expires_at <= now:
        when = datetime.fromtimestamp(token.expires_at, UTC)
        return f"the join token expired at {when:%Y-%m-%d %H:%M:%S} UTC; {ANOTHER}"
    return ""


def _wrong(signer: Signer, request: Invite, name: str) -> Refusal | None:
    """Return what is wrong with an invitation; None: nothing is."""
    if len(request.also) > INVITATION_NAMES_MAX:
        return Refusal("bad-value", f"{len(request.also)} further names; at most {INVITATION_NAMES_MAX}")
    if not INVITATION_SECONDS_MIN <= request.seconds <= INVITATION_SECONDS_MAX:
        text = f"a join token is valid for {INVITATION_SECONDS_MIN:g} to {INVITATION_SECONDS_MAX:g} seconds"
        return Refusal("bad-value", f"{text}, not for {request.seconds:g}")
    try:
        signer.check_names(name, request.also)
    except SigningRefused as problem:
        return Refusal("bad-name", str(problem))
    return None


def _unavailable(problem: StoreUnavailable) -> Refusal:
    text = f"the store is unavailable ({problem}); try again"
    return Refusal("store-unavailable", text, retry_after_seconds=1.0)

"""Renewal of a daemon's own certificate, before its end and without an interruption.

A certificate of the private authority is renewed when a third of its lifetime is left: by the server that a host has a
session with, or by the server itself if it holds the authority's key. The new certificate is used for new connections;
the running session continues. Where there is no such server, which is so with people's own PKI, nothing is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from cryptography import x509
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.logger import Logger

from compass.daemons.certificates.replacement import replace_pair, write_problem
from compass.daemons.certificates.signer import AuthoritySigner
from compass.daemons.config.sections import TlsSettings
from compass.daemons.net.live_identity import LiveIdentity
from compass.model.interfaces import Clock
from compass.model.replies import Certified, Refusal, Reply
from compass.model.requests import Renew, Request
from compass.pki.chain import is_issued_by
from compass.pki.signing import RequestRefused, fingerprint_of, new_request, pem, renewal_due, subject_of
from compass.server.certificate_issuer import SigningRefused
from compass.system.timers import Timers
from compass.wire.messages import Pushed, Welcome

CHECK_SECONDS = 3600.0
"""Longest time between two comparisons of the certificate's dates with the clock, which may be set meanwhile."""
AGAIN_SECONDS_MIN = 5.0
"""Shortest time from a renewal that failed to the next attempt."""
AGAIN_SHARE = 0.05
"""Share of the time that is left, after which a renewal that failed is tried again: about 20 attempts in the first half
of it, and more often towards the end."""
LOG_AGAIN_SECONDS = 3600.0
"""Interval between two log lines about renewals that fail."""


class RenewalFailed(Exception):
    """Renewal that failed; the message says why."""


class Issuer(Protocol):
    """Source of a new certificate."""

    @property
    def authority(self) -> str:
        """Fingerprint of the authority whose certificates it renews; empty: it renews none now."""

    def certificate(self, request: bytes, name: str) -> Deferred[str]:
        """Return a Deferred of the certificate for a request, PEM; fails with RenewalFailed."""


class CertificateRenewal:
    """Renews one daemon's certificate in time."""

    log = Logger()

    def __init__(self, clock: Clock, settings: TlsSettings, identity: LiveIdentity, issuer: Issuer) -> None:
        self._clock = clock
        self._settings = settings
        self._identity = identity
        self._issuer = issuer
        self._timers = Timers(clock)
        self._is_asking = False
        self._logged_at: float | None = None

    def start(self) -> None:
        """Renew when it is time, from now on; without effect if the settings forbid it."""
        if self._settings.renew and "check" not in self._timers:
            self._check()

    def stop(self) -> None:
        """Stop."""
        self._timers.cancel_all()

    def _check(self) -> None:
        """Renew if it is time; else wait for it. A change of the files or of the clock is found at the next check."""
        own = self._identity.identity.certificate
        left = (renewal_due(own) - self._identity.now()).total_seconds()
        if self._is_asking or not _is_renewable(own, self._identity, self._issuer.authority):
            return
        if left > 0:
            self._timers.start("check", min(left, CHECK_SECONDS), self._check)
            return
        self._is_asking = True
        ensureDeferred(self._renew()).addErrback(self._failed).addBoth(self._done)

    async def _renew(self) -> None:
        if problem := write_problem(self._settings):
            raise RenewalFailed(f"{problem}; give it the right, or set renew = false in [tls] and replace the files")
        name = self._identity.name
        key, request = new_request(name)
        certificate = (await self._issuer.certificate(request, name)).encode()
        _check_new(certificate, self._identity)
        try:
            replace_pair(self._settings, key, certificate)
        except OSError as error:
            raise RenewalFailed(f"cannot write {error.filename}: {error.strerror}") from None
        self._identity.look()
        end = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
        self.log.info("the certificate of {name} was renewed; it ends at {end}", name=name, end=f"{end:%F %T} UTC")

    def _failed(self, failure: Any) -> None:
        failure.trap(RenewalFailed)
        now = self._clock.seconds()
        if self._logged_at is None or now - self._logged_at >= LOG_AGAIN_SECONDS:
            self._logged_at = now
            self.log.warn("the certificate was not renewed, and will be tried again: {why}", why=failure.value)

    def _done(self, result: Any) -> Any:
        self._is_asking = False
        own = self._identity.identity.certificate
        left = (own.not_valid_after_utc - self._identity.now()).total_seconds()
        if (renewal_due(own) - self._identity.now()) <= timedelta(0):
            again = min(max(left * AGAIN_SHARE, AGAIN_SECONDS_MIN), CHECK_SECONDS)
            self._timers.start("check", again, self._check)
        else:
            self._check()
        return result


class SessionIssuer:
    """Issuer of a host: the server of its session. Follows the session (`compass.agent.upstream.upstream.Follower`)."""

    def __init__(self, ask: Callable[[Request], Deferred[Reply]], offered: Callable[[], None]) -> None:
        """`offered`: called at the beginning of each session in which the server renews certificates."""
        self._ask = ask
        self._offered = offered
        self.authority = ""
        """Fingerprint of the authority of the last server; empty: it does not renew."""

    def session_opened(self, welcome: Welcome) -> None:
        """Note whether the server renews certificates."""
        self.authority = welcome.renews
        if welcome.renews:
            self._offered()

    def session_pushed(self, messages: Sequence[Pushed]) -> None:
        """Ignore what is pushed."""

    def session_ended(self) -> None:
        """Ignore the end: in the mode `short` a request opens the next session."""

    def certificate(self, request: bytes, name: str) -> Deferred[str]:
        """Ask the server."""
        return self._ask(Renew(request)).addCallback(_certificate_in)


class OwnIssuer:
    """Issuer of a server that holds the authority's key."""

    def __init__(self, signer: AuthoritySigner, identity: LiveIdentity) -> None:
        self.authority = signer.fingerprint
        self._signer = signer
        self._identity = identity

    def certificate(self, request: bytes, name: str) -> Deferred[str]:
        """Sign."""
        own = self._identity.identity.certificate
        try:
            return succeed(pem(self._signer.certify(subject_of(own), request)))
        except (SigningRefused, RequestRefused) as problem:
            raise RenewalFailed(str(problem)) from None


def _certificate_in(reply: Reply) -> str:
    if isinstance(reply, Certified):
        return reply.certificate
    text = reply.message if isinstance(reply, Refusal) else f"unexpected reply {type(reply).__name__}"
    raise RenewalFailed(f"the server refuses: {text}")


def _is_renewable(own: x509.Certificate, identity: LiveIdentity, authority: str) -> bool:
    """Return whether an authority can renew a certificate: it has issued it, this daemon trusts it, and role and name
    are where the private authority puts them. `authority`: its fingerprint, may be empty."""
    try:
        subject_of(own)
    except RequestRefused:
        return False
    trusted = (one for one in identity.identity.authorities if fingerprint_of(one) == authority)
    return any(is_issued_by(own, one) for one in trusted)


def _check_new(certificate_pem: bytes, identity: LiveIdentity) -> None:
    """Check that a new certificate replaces the old one. Raises RenewalFailed."""
    try:
        new = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError:
        raise RenewalFailed("the server sent something that is not a certificate") from None
    old = identity.identity.certificate
    if new.subject != old.subject or not any(is_issued_by(new, one) for one in identity.identity.authorities):
        raise RenewalFailed("the server sent a certificate of another name, role or authority; the old one is kept")
    if new.not_valid_after_utc <= max(old.not_valid_after_utc, datetime.now(UTC)):
        raise RenewalFailed("the server sent a certificate that ends no later than the present one; its authority ends")

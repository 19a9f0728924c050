"""TLS contexts of compass: version 1.3 only, with mutual authentication.

`server_context` and `client_context` turn an `Identity` into contexts for Twisted. Both refuse a peer whose certificate
was not issued by a trusted authority; a client also refuses a server that cannot prove the name that was dialled.
`peer_of` returns the role and the name of the verified peer.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet import ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from compass.pki.authority import Role, names_of
from compass.pki.identity import Identity, PeerUnknown, RoleRules, leaf_problem, role_and_name
from compass.pki.tls_errors import refusal_of, subject_of

PEERS_KEPT_MAX = 20_000
"""Peers whose certificates' ends are kept for resumption: as many as have sessions; some 3 MB."""
AUTHORITIES_KEPT_MAX = 100
"""Authorities and intermediates whose ends are kept: an installation has one to three."""


class IdentityHolder(Protocol):
    """Holder of an identity whose files may be replaced while a port is open."""

    def current(self) -> Identity:
        """Return the identity for a new connection."""


IdentitySource: TypeAlias = Identity | IdentityHolder


class NameNotProven(Exception):
    """The server's certificate is trusted, but not for the name that was dialled."""


class CertificateExpired(Exception):
    """The peer's certificate has expired during the connection."""

    def __init__(self, end: datetime, certificate: x509.Certificate) -> None:
        subject = certificate.subject.rfc4514_string()
        which = "" if certificate.not_valid_after_utc == end else "a certificate above "
        text = (
            f"{which}the certificate {subject!r} expired on {end:%Y-%m-%d %H:%M:%S} UTC; "
            "replace it on its machine, whose daemon then uses the new one"
        )
        super().__init__(text)


class SecuredTransport(Protocol):
    """Part of a transport that `peer_of` needs (ITLSTransport has it)."""

    def getPeerCertificate(self) -> object: ...


def server_context(identity: IdentitySource) -> IOpenSSLServerConnectionCreator:
    """Return the context of a server, which requires a client certificate of a trusted authority."""
    return cast(IOpenSSLServerConnectionCreator, _ServerContext(identity, for_browsers=False))


def https_context(identity: IdentitySource) -> IOpenSSLServerConnectionCreator:
    """Return the context of a server for browsers and tools. A client without a certificate is admitted and may
    authenticate by a token; a client with an untrusted certificate is refused."""
    return cast(IOpenSSLServerConnectionCreator, _ServerContext(identity, for_browsers=True))


def _options(
    identity: Identity, protocols: Sequence[bytes] = (), *, requires_certificate: bool = True
) -> ssl.CertificateOptions:
    # Twisted passes these three to pyOpenSSL unchanged, and pyOpenSSL prefers the objects of cryptography to its own;
    # Twisted's annotations still require the latter.
    own: dict[str, Any] = {
        "privateKey": identity.key,
        "certificate": identity.certificate,
        "extraCertChain": list(identity.chain),
    }
    options = ssl.CertificateOptions(
        **own,
        trustRoot=TrustRoot(identity.authorities),
        raiseMinimumTo=ssl.TLSVersion.TLSv1_3,
        enableSessionTickets=True,
        acceptableProtocols=list(protocols) or None,
    )
    # CertificateOptions does not accept this argument together with a trust root.
    options.requireCertificate = requires_certificate
    return options


def client_context(identity: Identity, server_name: str) -> IOpenSSLClientConnectionCreator:
    """Return the context of a client for one server, which must prove `server_name`, a DNS name or an IP address.

    Raises ValueError if the name is neither. If the server cannot prove it, the connection ends with NameNotProven.
    """
    # The type checker cannot see what zope.interface's decorator declares.
    return cast(IOpenSSLClientConnectionCreator, _ClientContext(_options(identity), server_name.removesuffix(".")))


_Authorities: Any = type(ssl.trustRootFromCertificates([]))
"""Twisted's class of trust roots, which has no public name."""


class TrustRoot(_Authorities):  # type: ignore[misc]  # The type checker does not know the class.
    """Trusted certificates, also those that are not self-signed.

    So an installation may trust the issuing authority of a company without all others below the company's root.
    """

    def __init__(self, certificates: Sequence[x509.Certificate]) -> None:
        super().__init__([crypto.X509.from_cryptography(one) for one in certificates])
        self._certificates = certificates

    def _addCACertsToContext(self, context: SSL.Context) -> None:  # noqa: N802
        self.add_to(context)

    def add_to(self, context: SSL.Context) -> None:
        """Trust the certificates in a context."""
        store = cast(crypto.X509Store, context.get_cert_store())
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for certificate in self._certificates:
            store.add_cert(crypto.X509.from_cryptography(certificate))


class CertificateEnds:
    """Ends of verified certificates, also for sessions that are resumed.

    A session's ticket has the peer's own certificate only, and OpenSSL verifies nothing again. So the end of the chain
    is kept from the full handshake; a ticket that is valid was issued by this process after one.
    """

    def __init__(self) -> None:
        self._of_peers: dict[str, datetime] = {}
        self._of_authorities: dict[str, datetime] = {}

    def end_of(self, connection: SSL.Connection, certificate: x509.Certificate) -> datetime:
        """Return when the first certificate of the peer's verified chain expires, its own one or an authority's."""
        peer = certificate.fingerprint(hashes.SHA256()).hex()
        chain = connection.get_verified_chain()
        if not chain:
            # It is unknown if too many peers came after it. It has to do a full handshake.
            return self._of_peers.get(peer, datetime.min.replace(tzinfo=UTC))
        end = min(certificate.not_valid_after_utc, *(self._of_authority(one) for one in chain[1:]))
        self._of_peers.pop(peer, None)
        self._of_peers[peer] = end
        if len(self._of_peers) > PEERS_KEPT_MAX:
            del self._of_peers[next(iter(self._of_peers))]
        return end

    def _of_authority(self, authority: crypto.X509) -> datetime:
        digest = authority.digest("sha256").hex()
        end = self._of_authorities.get(digest)
        if end is None:
            if len(self._of_authorities) >= AUTHORITIES_KEPT_MAX:
                self._of_authorities.clear()
            end = self._of_authorities[digest] = authority.to_cryptography().not_valid_after_utc
        return end


def peer_of(transport: SecuredTransport, rules: RoleRules | None = None) -> tuple[Role, str]:
    """Return the role and the name of the verified peer of `transport`.

    Call this once the handshake is complete, that is after `handshakeCompleted` or the first bytes. See
    `role_and_name` for `rules`. Raises PeerUnknown, whose message says what is missing.
    """
    certificate = getattr(transport, "peer_certificate", None)
    if certificate is None:
        presented = transport.getPeerCertificate()
        if not isinstance(presented, crypto.X509):
            raise PeerUnknown("the peer has sent no certificate")
        certificate = presented.to_cryptography()
    found = role_and_name(certificate, rules)
    # The certificate of a peer that serves was checked in the handshake.
    problem = "" if getattr(transport, "peer_serves", False) else leaf_problem(certificate, server=False)
    if problem:
        raise PeerUnknown(problem)
    return found


def addresses_of(transport: SecuredTransport) -> tuple[str, ...]:
    """Return the IP addresses in the certificate of the verified peer of `transport`; none without a certificate."""
    presented = transport.getPeerCertificate()
    if not isinstance(presented, crypto.X509):
        return ()
    try:
        names = presented.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(str(address) for address in names.get_values_for_type(x509.IPAddress))


@implementer(IOpenSSLServerConnectionCreator)
class _ServerContext:
    """Server context with the current identity: connections that begin after a replacement get the new certificate."""

    def __init__(self, identity: IdentitySource, *, for_browsers: bool) -> None:
        self._source = identity
        self._for_browsers = for_browsers
        self._used = self._current()
        self._options = self._made(self._used)

    def _current(self) -> Identity:
        return self._source if isinstance(self._source, Identity) else self._source.current()

    def _made(self, identity: Identity) -> ssl.CertificateOptions:
        protocols = [b"http/1.1"] if self._for_browsers else []
        return _options(identity, protocols, requires_certificate=not self._for_browsers)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        current = self._current()
        if current is not self._used:
            self._used, self._options = current, self._made(current)
        connection = self._options.serverConnectionForTLS(tlsProtocol)
        protocol_reference = weakref.ref(tlsProtocol)

        def verify(_: SSL.Connection, shown: crypto.X509, error: int, depth: int, accepted: int) -> bool:
            if not accepted:
                _note_refusal(protocol_reference(), shown, error, depth)
            return bool(accepted)

        required = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if self._options.requireCertificate else 0
        connection.set_verify(SSL.VERIFY_PEER | required, verify)
        return connection


def _note_refusal(protocol: Any, shown: crypto.X509, error: int, depth: int) -> None:
    """Record at a connection why this end refuses the peer's certificate; OpenSSL's own error does not say it."""
    if protocol is not None:
        certificate = shown.to_cryptography()
        protocol.peer_refusal = refusal_of(certificate, error, depth)
        protocol.peer_subject = subject_of(certificate)


@implementer(IOpenSSLClientConnectionCreator)
class _ClientContext:
    """Client context like `twisted.internet.ssl.optionsForClientTLS`, with a stricter check of the name.

    Twisted's own check accepts a certificate without alternative names or with malformed ones: it refuses only on
    VerificationError, and service_identity raises CertificateError for these.
    """

    def __init__(self, options: ssl.CertificateOptions, server_name: str) -> None:
        self._options = options
        self._server_name = server_name
        self._is_address = isIPAddress(server_name) or isIPv6Address(server_name)
        self._expected = IPAddress_ID(server_name) if self._is_address else DNS_ID(server_name)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = self._options.clientConnectionForTLS(tlsProtocol)
        if isinstance(self._expected, DNS_ID):
            connection.set_tlsext_host_name(self._expected.hostname)
        # A weak reference, because the connection refers to its callback and the protocol to the connection.
        protocol_reference = weakref.ref(tlsProtocol)

        def verify(_: SSL.Connection, shown: crypto.X509, error: int, depth: int, accepted: int) -> bool:
            if not accepted:
                _note_refusal(protocol_reference(), shown, error, depth)
            if not accepted or depth != 0:
                return bool(accepted)
            reason = self._name_not_proven(shown)
            protocol = protocol_reference()
            if reason is not None and protocol is not None:
                protocol.failVerification(Failure(reason))
            return reason is None

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection

    def _name_not_proven(self, shown: crypto.X509) -> NameNotProven | None:
        problem = leaf_problem(shown.to_cryptography(), server=True)
        if problem:
            return NameNotProven(f"dialled {self._server_name}, but {problem}")
        try:
            verify_service_identity(extract_patterns(shown), [self._expected], [])
        except VerificationError:
            names = ", ".join(names_of(shown.to_cryptography()))
            return NameNotProven(f"dialled {self._server_name}, but the certificate shown is for {names}")
        except (CertificateError, ValueError) as error:
            return NameNotProven(f"dialled {self._server_name}, but the certificate shown proves no name: {error}")
        return None

"""TLS as compass speaks it: version 1.3 only, and both ends prove who they are.

From an `Identity` come two things to hand to Twisted: `server_context` for the listening end, `client_context` for the
calling end. Both refuse a peer whose certificate no authority of theirs vouches for; the calling end also refuses a
peer that cannot prove the name that was dialled. Who the peer then *is* comes out of its certificate by `peer_of`.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol, cast

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet import ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from compass.pki.authority import Role, names_of
from compass.pki.identity import Identity, PeerUnknown, RoleRules, role_and_name


class NameNotProven(Exception):
    """The peer dialled has a certificate of our authority, but not for the name that was dialled."""


class SecuredTransport(Protocol):
    """The one thing `peer_of` needs of a transport (ITLSTransport has it)."""

    def getPeerCertificate(self) -> object: ...


def server_context(identity: Identity) -> ssl.CertificateOptions:
    """The context of a listening end: only peers with a certificate that an authority of ours vouches for."""
    return _options(identity)


def https_context(identity: Identity) -> ssl.CertificateOptions:
    """The context of a listening end for browsers and tools: who has no certificate gets in as well, and says who he is
    in another way. Who shows one that nobody vouches for does not."""
    options = _options(identity, protocols=[b"http/1.1"])
    # Together with a trust root it is no argument.
    options.requireCertificate = False
    return options


def _options(identity: Identity, protocols: Sequence[bytes] = ()) -> ssl.CertificateOptions:
    # Twisted hands these three to pyOpenSSL as they are, and pyOpenSSL has come to prefer the objects of
    # cryptography to its own; Twisted's annotations still ask for the latter.
    own: dict[str, Any] = {
        "privateKey": identity.key,
        "certificate": identity.certificate,
        "extraCertChain": list(identity.chain),
    }
    return ssl.CertificateOptions(
        **own,
        trustRoot=ssl.trustRootFromCertificates(
            [ssl.Certificate(crypto.X509.from_cryptography(one)) for one in identity.authorities]
        ),
        raiseMinimumTo=ssl.TLSVersion.TLSv1_3,
        enableSessionTickets=True,
        acceptableProtocols=list(protocols) or None,
    )


def client_context(identity: Identity, server_name: str) -> IOpenSSLClientConnectionCreator:
    """The context of a calling end, for one peer: the DNS name or the IP address it must prove.

    Raises ValueError when `server_name` can be neither. A peer that fails to prove it ends the connection
    with NameNotProven as the reason.
    """
    # The type checker cannot see what zope.interface's decorator declares.
    return cast(IOpenSSLClientConnectionCreator, _Dialling(server_context(identity), server_name.removesuffix(".")))


def peer_of(transport: SecuredTransport, rules: RoleRules | None = None) -> tuple[Role, str]:
    """The role and the name of the verified peer at the other end of `transport`.

    Call it once the handshake is complete, that is not before `handshakeCompleted` or the first bytes.
    Without `rules` the subject's one OU is the role and its one CN the name. With them the OU counts for
    nothing, and the name is the one that matched. Raises PeerUnknown, whose message says what is missing.
    """
    presented = transport.getPeerCertificate()
    if not isinstance(presented, crypto.X509):
        raise PeerUnknown("the peer has shown no certificate")
    return role_and_name(presented.to_cryptography(), rules)


@implementer(IOpenSSLClientConnectionCreator)
class _Dialling:
    """Like `twisted.internet.ssl.optionsForClientTLS`, with a name check that refuses whatever it cannot
    judge.

    Twisted's own check lets a certificate pass that has no alternative names at all or malformed ones: it
    takes only VerificationError for a refusal, and service_identity raises CertificateError for these.
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
        # Weakly, because the connection keeps its callback and the protocol keeps the connection.
        protocol_reference = weakref.ref(tlsProtocol)

        def verify(_: SSL.Connection, shown: crypto.X509, _error: int, depth: int, accepted: int) -> bool:
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
        try:
            verify_service_identity(extract_patterns(shown), [self._expected], [])
        except VerificationError:
            names = ", ".join(names_of(shown.to_cryptography()))
            return NameNotProven(f"dialled {self._server_name}, but the certificate shown is for {names}")
        except (CertificateError, ValueError) as error:
            return NameNotProven(f"dialled {self._server_name}, but the certificate shown proves no name: {error}")
        return None

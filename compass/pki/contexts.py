"""TLS as compass speaks it: version 1.3 only, and both ends prove who they are.

A daemon or a tool has one `Identity`: its key, its certificate, and the authorities that it lets vouch for
others. From it come two things to hand to Twisted: `accepting` for the listening end, `dialling` for the
calling end. Both refuse a peer whose certificate no authority of theirs vouches for; the calling end also
refuses a peer that cannot prove the name that was dialled.

Who the peer then *is* comes out of its certificate by `peer_of`. Certificates of our own authority carry the
role in the organizational unit; an installation with a PKI of its own says with `RoleRules` which names have
which role.
"""

from __future__ import annotations

import stat
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Protocol, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID
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

from compass.pki.authority import ROLES, Role, names_of

EXPIRY_NOTICE: Final = timedelta(days=30)
"""A certificate that ends within this time is worth a warning at every start."""

_PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | rsa.RSAPrivateKey


class IdentityError(Exception):
    """Key and certificate files that cannot be used. `problems` has a sentence for each thing wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class NameNotProven(Exception):
    """The peer dialled has a certificate of our authority, but not for the name that was dialled."""


class PeerUnknown(Exception):
    """The peer's certificate is genuine, and still does not say who it is in this installation's terms."""


@dataclass(frozen=True)
class Identity:
    """What one end of a connection proves itself with, and whom it trusts. Only `load_identity` makes these.

    `chain` are intermediate certificates sent along. `warnings` are sentences for the log: nothing is broken
    yet.
    """

    key: _PrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class RoleRules:
    """For a PKI of one's own: who is what, by patterns over the common name and the DNS names of a
    certificate.

    The patterns are those of a shell, without regard to case, and `*` matches dots too. They are tried in the
    order admin, server, host; the first that matches decides.
    """

    admin: Sequence[str] = ()
    host: Sequence[str] = ()
    server: Sequence[str] = ()


class SecuredTransport(Protocol):
    """The one thing `peer_of` needs of a transport (ITLSTransport has it)."""

    def getPeerCertificate(self) -> object: ...


def load_identity(key_path: Path, certificate_path: Path, authority_path: Path, now: datetime) -> Identity:
    """Read and check the three PEM files of an identity.

    `certificate_path` may hold intermediates after the certificate itself, `authority_path` several
    authorities (that is how one authority replaces another without an outage). Raises IdentityError with all
    that is wrong.
    """
    problems: list[str] = []
    warnings: list[str] = []
    key = _load_key(key_path, problems, warnings)
    certificates = _load_certificates(certificate_path, problems)
    authorities = _load_certificates(authority_path, problems)
    if certificates:
        problems += _out_of_time(certificate_path, certificates[0], now)
        if key is not None and key.public_key() != certificates[0].public_key():
            problems.append(f"{key_path} is not the key of the certificate in {certificate_path}")
        left = certificates[0].not_valid_after_utc - now
        if timedelta(0) < left < EXPIRY_NOTICE:
            warnings.append(f"{certificate_path} expires in {left.days} days: issue a new certificate")
    expired = [why for authority in authorities for why in _out_of_time(authority_path, authority, now)]
    # One good authority is enough to work with; an old one left beside it is worth no more than a remark.
    (problems if len(expired) == len(authorities) else warnings).extend(expired)
    if certificates and authorities and not _vouched_for(certificates[-1], authorities):
        warnings.append(
            f"{certificate_path} was not issued by an authority in {authority_path}: "
            "peers that trust only these will refuse it"
        )
    if problems or key is None:
        raise IdentityError(problems)
    return Identity(
        key=key,
        certificate=certificates[0],
        chain=tuple(certificates[1:]),
        authorities=tuple(authorities),
        warnings=tuple(warnings),
    )


def server_context(identity: Identity) -> ssl.CertificateOptions:
    """The context of a listening end: only peers with a certificate that an authority of ours vouches for."""
    return _options(identity)


def accepting_https(identity: Identity) -> ssl.CertificateOptions:
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


def role_and_name(certificate: x509.Certificate, rules: RoleRules | None = None) -> tuple[Role, str]:
    """What a certificate says its holder is; see `peer_of`. Raises PeerUnknown."""
    subject = certificate.subject.rfc4514_string()
    common_names = _values(certificate.subject, NameOID.COMMON_NAME)
    if rules is not None:
        found = _ruled(rules, [*common_names, *_dns_names(certificate)])
        if found is None:
            raise PeerUnknown(f"no role rule matches the common name or a DNS name of the certificate {subject!r}")
        return found
    units = _values(certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
    role = next((role for role in ROLES if units == [role]), None)
    if role is None:
        raise PeerUnknown(
            f"the certificate {subject!r} needs exactly one OU, which is one of {', '.join(ROLES)}; "
            "for certificates without it, configure role rules"
        )
    if len(common_names) != 1 or not common_names[0].isprintable():
        raise PeerUnknown(f"the certificate {subject!r} needs exactly one CN, the name of its holder")
    return role, common_names[0]


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


def _ruled(rules: RoleRules, names: Sequence[str]) -> tuple[Role, str] | None:
    by_role: tuple[tuple[Role, Sequence[str]], ...] = (
        ("admin", rules.admin),
        ("server", rules.server),
        ("host", rules.host),
    )
    for role, patterns in by_role:
        for name in names:
            if name.isprintable() and any(fnmatchcase(name.lower(), one.lower()) for one in patterns):
                return role, name
    return None


def _values(name: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.DNSName)


def _load_key(path: Path, problems: list[str], warnings: list[str]) -> _PrivateKey | None:
    content = _read(path, problems)
    if content is None:
        return None
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        warnings.append(f"{path} is open to others than its owner (mode {mode:04o}): chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        problems.append(f"{path} has a passphrase: a daemon cannot be asked for it, store the key without one")
    except (ValueError, UnsupportedAlgorithm):
        problems.append(f"{path} is not a private key in PEM form")
    else:
        if isinstance(key, _PrivateKey):
            return key
        problems.append(f"{path} is a key of a kind that TLS 1.3 does not know (use ECDSA, EdDSA or RSA)")
    return None


def _load_certificates(path: Path, problems: list[str]) -> list[x509.Certificate]:
    content = _read(path, problems)
    if content is None:
        return []
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        problems.append(f"{path} is not a certificate in PEM form")
        return []


def _read(path: Path, problems: list[str]) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        problems.append(f"{path} does not exist")
    except OSError as error:
        problems.append(f"{path} cannot be read: {error.strerror}")
    return None


def _out_of_time(path: Path, certificate: x509.Certificate, now: datetime) -> list[str]:
    if certificate.not_valid_after_utc <= now:
        return [f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"]
    if certificate.not_valid_before_utc > now:
        return [f"{path} begins on {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: is the clock right?"]
    return []


def _vouched_for(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False

"""Chain of a daemon's own certificate: which certificate is its own, who issued which, and which dates count.

The file of a certificate may have its certificates in any order: the daemon's own one is that of the key, and each
issuer is found by its signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from compass.model.host_api import CertificateRole
from compass.model.rules.certificates import OwnCertificate
from compass.pki.authority import ROLES, attributes_of

CHAIN_MAX = 1_000
"""Certificates in one file: several times those of a system's bundle of authorities, all searched in milliseconds."""


@dataclass(frozen=True)
class Chain:
    """Certificates of one identity in order, with the trusted authorities.

    `path`: the own certificate, then the issuer of each, as far as the file of the certificate has them. `rest`: other
    certificates of that file.
    """

    path: tuple[x509.Certificate, ...]
    rest: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...]

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        """Return the authorities that are part of the path, or that issued a certificate of it."""
        return tuple(
            one for one in self.authorities if any(one == made or is_issued_by(made, one) for made in self.path)
        )

    @property
    def missing_issuer(self) -> str:
        """Return the subject of the certificate whose issuer is unknown; empty: the path ends at an authority."""
        return "" if self.anchors else self.path[-1].subject.rfc4514_string()


def order(
    certificates: Sequence[x509.Certificate],
    key: object,
    authorities: Sequence[x509.Certificate],
    now: datetime,
) -> Chain:
    """Put the certificates of a file in order. `key`: the public key; without a match the first certificate is the own.

    If several certificates issued the same one (a renewed intermediate has the key of the old one), a valid one is
    preferred, then the one that ends last.
    """
    own = next((one for one in certificates if one.public_key() == key), certificates[0])
    path, rest = [own], [one for one in certificates if one != own]
    while issuers := [one for one in rest if is_issued_by(path[-1], one)]:
        best = max(issuers, key=lambda one: (_is_valid(one, now), one.not_valid_after_utc))
        path.append(best)
        rest.remove(best)
    return Chain(tuple(path), tuple(rest), tuple(authorities))


def own_certificates(chain: Chain, file: Path, authority_file: Path, now: datetime) -> tuple[OwnCertificate, ...]:
    """Return the certificates whose end ends connections, the own one first.

    An authority that issued none of the path counts as long as it is valid, since peers may have its certificates. If
    no authority is valid, all count. An expired one beyond that is a leftover.
    """
    made = [_describe("leaf" if n == 0 else "intermediate", one, file) for n, one in enumerate(chain.path)]
    anchors = chain.anchors
    valid = [one for one in chain.authorities if _is_valid(one, now)]
    needed = (one for one in chain.authorities if one in anchors or one in valid or not valid)
    return (*made, *(_describe("authority", one, authority_file) for one in needed))


def leftovers(chain: Chain, now: datetime) -> Iterable[x509.Certificate]:
    """Return the certificates that are invalid now, and that nothing needs."""
    needed = {*chain.path, *chain.anchors}
    has_valid = any(_is_valid(one, now) for one in chain.authorities)
    unused = (*chain.rest, *(chain.authorities if has_valid else ()))
    return [one for one in unused if one not in needed and not _is_valid(one, now)]


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether the issuer's key signed the certificate."""
    if certificate.issuer != issuer.subject:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _describe(role: CertificateRole, certificate: x509.Certificate, file: Path) -> OwnCertificate:
    subject = certificate.subject.rfc4514_string()
    return OwnCertificate(
        role,
        subject,
        str(file),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        _renewal(role, certificate, file),
    )


def _renewal(role: CertificateRole, certificate: x509.Certificate, file: Path) -> str:
    """Return the advice: daemons read a replaced file by themselves."""
    if role == "authority":
        return "replace it on every machine, as docs/explanation/security.md describes"
    if role == "intermediate":
        return f"put its successor into {file}, from the authority that issued it: {_issuer_of(certificate)}"
    units = attributes_of(certificate.subject, x509.NameOID.ORGANIZATIONAL_UNIT_NAME)
    kind = units[0] if len(units) == 1 and units[0] in ROLES else ""
    how = f"'opengnsadmin tls {kind} NAME', or your own PKI" if kind else "your own PKI"
    return f"issue a new one ({how}) and put it into {file}, with its key"


def _issuer_of(certificate: x509.Certificate) -> str:
    return certificate.issuer.rfc4514_string()

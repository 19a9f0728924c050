"""Private authority in the server daemon: signs certificates of hosts, and of the server itself.

The key is read for each signature and kept in memory only while it signs.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from compass.daemons.config.reader import parse_listen
from compass.daemons.config.settings import ServerConfig
from compass.pki.authority import AuthorityError, Credentials, Subject, check_names
from compass.pki.chain import is_issued_by
from compass.pki.identity import IdentityError
from compass.pki.signing import RequestRefused, fingerprint_of, pem, read_authority, sign_request, subject_of
from compass.server.certificate_issuer import SigningRefused


class AuthoritySigner:
    """Signer of one server: `compass.server.certificate_issuer.Signer`."""

    def __init__(self, config: ServerConfig, trusted: tuple[x509.Certificate, ...]) -> None:
        """Read the authority once. `trusted`: the authorities in the server's own file.

        Raises IdentityError, also if the peers that trust the same file would refuse what this authority signs.
        """
        self._directory = Path(config.server.authority)
        self._lifetime = timedelta(seconds=config.server.certificate_seconds)
        listen = config.https.listen
        self.https_port = parse_listen(listen[0])[1] if listen else 0
        try:
            authority = read_authority(self._directory)
        except AuthorityError as problem:
            raise IdentityError([f"[server] authority: {problem}"]) from None
        self.authority = authority.certificate_pem.decode("ascii")
        self._certificate = x509.load_pem_x509_certificate(authority.certificate_pem)
        self.fingerprint = fingerprint_of(self._certificate)
        if self._certificate not in trusted:
            raise IdentityError(
                [
                    f"[server] authority: the certificate in {self._directory} is not in {config.tls.authority}, so "
                    "no peer would accept what it signs: add it there, or remove the key 'authority'"
                ]
            )

    def check_names(self, name: str, also: tuple[str, ...]) -> None:
        """Check the names of a host. Raises SigningRefused."""
        try:
            check_names(name, also)
        except AuthorityError as problem:
            raise SigningRefused(str(problem)) from None

    def sign(self, name: str, also: tuple[str, ...], request: bytes) -> str:
        """Return the certificate of a host, PEM. Raises SigningRefused."""
        return pem(self.certify(Subject("host", name, also), request))

    def renew(self, stream: Any, request: bytes) -> str:
        """Return a certificate with the role and the names of the one that the peer of a connection has shown; the
        connection ends with the new one. Raises SigningRefused."""
        shown: x509.Certificate | None = getattr(stream, "peer_certificate", None)
        if shown is None or not is_issued_by(shown, self._certificate):
            raise SigningRefused("the certificate of this session is not one of the authority that this server holds")
        try:
            subject = subject_of(shown)
        except RequestRefused as problem:
            raise SigningRefused(str(problem)) from None
        if subject.role != "host":
            raise SigningRefused("only hosts renew their certificates in a session")
        made = self.certify(subject, request)
        stream.peer_renewed(made)
        return pem(made)

    def certify(self, subject: Subject, request: bytes) -> x509.Certificate:
        """Return a certificate for the key of a request. Raises SigningRefused."""
        try:
            return sign_request(self._read(), subject, request, datetime.now(UTC), self._lifetime)
        except (AuthorityError, RequestRefused) as problem:
            raise SigningRefused(str(problem)) from None

    def _read(self) -> Credentials:
        """Read the authority again. Raises SigningRefused if another one is in its place."""
        authority = read_authority(self._directory)
        if authority.certificate_pem.decode("ascii") != self.authority:
            raise SigningRefused(f"{self._directory} has another authority now: restart this server")
        return authority

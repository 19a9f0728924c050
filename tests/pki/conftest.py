"""Identities for the tests of certificates: two authorities, and files in a temporary directory."""

from datetime import UTC, datetime
from pathlib import Path

from compass.pki.authority import Credentials, create_authority, write_credentials
from compass.pki.identity import Identity, load_identity

NOW = datetime.now(UTC).replace(microsecond=0)
AUTHORITY = create_authority("authority", NOW)
FOREIGN_AUTHORITY = create_authority("authority", NOW)


def identity(tmp_path: Path, own: Credentials, *authorities: Credentials) -> Identity:
    """The identity that a daemon would load, from files in a directory of their own."""
    directory = tmp_path / f"identity-{len(list(tmp_path.iterdir()))}"
    files = write_credentials(directory, "own", own)
    trusted = directory / "authority.crt"
    trusted.write_bytes(b"".join(one.certificate_pem for one in authorities or [AUTHORITY]))
    return load_identity(files.key, files.certificate, trusted, NOW)

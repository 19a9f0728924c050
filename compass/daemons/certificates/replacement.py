"""Replacement of a daemon's key and certificate on disk, such that the files fit at every moment, after a crash too.

A file of certificates may have several, and a daemon's own one is that of its key. So first the file of the certificate
gets the new one in addition to the old one, then the key is replaced, then the old certificate is removed.
"""

from __future__ import annotations

import os
from pathlib import Path

from compass.daemons.config.sections import TlsSettings
from compass.system.files import replace_file


def replace_pair(settings: TlsSettings, key_pem: bytes, certificate_pem: bytes) -> None:
    """Replace key and certificate. Raises OSError; then the files fit as before or as after."""
    certificate, key = Path(settings.certificate), Path(settings.key)
    old = certificate.read_bytes()
    replace_file(certificate, certificate_pem + b"\n" + old, None)
    replace_file(key, key_pem, None)
    replace_file(certificate, certificate_pem, None)


def write_problem(settings: TlsSettings) -> str:
    """Return why key and certificate cannot be replaced by this process; empty: they can."""
    for path in (Path(settings.certificate), Path(settings.key)):
        if not os.access(path.parent, os.W_OK):
            return f"this daemon cannot write in {path.parent}"
    return ""

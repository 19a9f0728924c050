"""Diagnosis of a server's certificates: which certificate of its chain is refused, and why.

The module `ssl` reports only a number for the whole chain, so a failed connection is made once more with pyOpenSSL.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL, crypto

from compass.pki.tls_contexts import TrustRoot
from compass.pki.tls_errors import refusal_of


def refused_certificate(plain: socket.socket, authority: Path, timeout_seconds: float) -> str:
    """Return why a certificate that the server shows is refused; empty: none is, or the server does not answer.

    `plain` is a fresh connection; the caller closes it.
    """
    found: list[str] = []

    def verify(_: SSL.Connection, shown: crypto.X509, error: int, depth: int, accepted: int) -> bool:
        if not accepted:
            found.append(refusal_of(shown.to_cryptography(), error, depth, "the server"))
        return bool(accepted)

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    try:
        TrustRoot(x509.load_pem_x509_certificates(authority.read_bytes())).add_to(context)
        context.set_verify(SSL.VERIFY_PEER, verify)
        # pyOpenSSL does not wait on a socket with a timeout of Python.
        plain.settimeout(None)
        seconds, rest = divmod(timeout_seconds, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), int(rest * 1e6)))
        connection = SSL.Connection(context, plain)
        connection.set_connect_state()
        connection.do_handshake()
    except (SSL.Error, OSError, ValueError):
        pass
    return found[0] if found else ""

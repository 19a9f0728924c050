"""Certificates: the private authority, identities, and TLS contexts for pyOpenSSL."""

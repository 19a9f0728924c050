"""URLs with a name in place of a host, for HTTP libraries: `gns://NAME/path`."""

from __future__ import annotations

import http.cookiejar
from typing import Any
from urllib.parse import urljoin, urlsplit

SCHEMES = {"gns": "http", "gns+https": "https"}
"""URL schemes, and the scheme used with the listener."""
SECURE_SCHEME = "gns+https"
"""Scheme over which cookies marked Secure are sent."""
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be repeated without harm (RFC 9110 section 9.2.2)."""
_PORTS = {"http": 80, "https": 443}


class AddressUnusable(ValueError):
    """A URL that is not of the form `gns://NAME/path`; the text says what would be right."""


def name_of(url: str) -> str:
    """Return the service or category of a URL. Raises AddressUnusable."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise AddressUnusable(f"{url}: write gns://NAME/path or gns+https://NAME/path, with a service or a category")
    if ":" in parts.netloc.rpartition("@")[2]:
        raise AddressUnusable(f"{url}: leave out the port; each listener of {parts.hostname} has its own")
    return parts.hostname


def replace_scheme(url: str, scheme: str) -> str:
    """Return the URL with another scheme."""
    return f"{scheme}:{url.partition(':')[2]}"


def resolve_reference(url: str, reference: str) -> str:
    """Resolve a reference in a response from `url` (RFC 3986 section 5); a relative one keeps the name. `urljoin` only
    supports schemes that it knows.

    A listener that writes absolute URLs builds them from the Host header, which is the name: `http://NAME/path` is
    `gns://NAME/path`, because NAME is no host name. Any other absolute URL is left as it is.
    """
    parts, scheme = urlsplit(reference), urlsplit(url).scheme
    if not parts.netloc:
        return replace_scheme(urljoin(replace_scheme(url, SCHEMES[scheme]), reference), scheme)
    if not parts.scheme:
        return f"{scheme}:{reference}"
    for own, other in SCHEMES.items():
        if parts.scheme.lower() == other and parts.netloc.lower() in _own_authorities(url, other):
            return replace_scheme(reference, own).replace(parts.netloc, urlsplit(url).hostname or "", 1)
    return reference


def _own_authorities(url: str, scheme: str) -> tuple[str, str]:
    name = urlsplit(url).hostname or ""
    return name, f"{name}:{_PORTS[scheme]}"


def _accept_as_secure() -> None:
    """Let http.cookiejar, which both libraries use, send cookies marked Secure over `gns+https`, as over https.

    It has no registry of secure schemes, and the libraries make their policies where a caller cannot set one.
    """
    policies: Any = http.cookiejar.DefaultCookiePolicy
    usual = policies.return_ok_secure

    def return_ok_secure(policy: Any, cookie: Any, request: Any) -> bool:
        return request.type == SECURE_SCHEME or bool(usual(policy, cookie, request))

    policies.return_ok_secure = return_ok_secure


_accept_as_secure()

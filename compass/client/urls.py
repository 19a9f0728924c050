"""URLs with a name in place of a host, for HTTP libraries: `gns://NAME/path`."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

SCHEMES = {"gns": "http", "gns+https": "https"}
"""URL schemes, and the scheme used with the listener."""
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be repeated without harm (RFC 9110 section 9.2.2)."""


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
    supports schemes that it knows."""
    if urlsplit(reference).netloc:
        return reference
    scheme = urlsplit(url).scheme
    return replace_scheme(urljoin(replace_scheme(url, SCHEMES[scheme]), reference), scheme)

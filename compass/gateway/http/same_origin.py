"""Requests that a page of another origin makes a browser send: they are refused on every path, whatever their method.

A browser adds its user's certificate, or reaches the loopback, for any page. It says where a request comes from by
`Sec-Fetch-Site` (W3C Fetch Metadata), by `Origin` and, for a name that was pointed to this machine (DNS rebinding), by
`Host`. Programs send none of the first two.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import NoReturn

from twisted.web.server import Request

from compass.gateway.http.request import RequestRejected
from compass.model.replies import Refusal

OWN_SITES = frozenset({"none", "same-origin"})
"""Values of Sec-Fetch-Site that are accepted: a user's own address bar, and a page of this very origin."""


def refuse_other_sites(request: Request, pages: Collection[bytes] = ()) -> None:
    """Raise RequestRejected if a page of another site caused the request. `pages`: paths that a link may lead to."""
    sites = set(values_of(request, "sec-fetch-site"))
    if sites <= OWN_SITES or (_is_followed_link(request) and request.path in pages):
        return
    refuse(f"the page of another site ({', '.join(sorted(sites))[:80]}) may not use this API; open it yourself")


def refuse(text: str) -> NoReturn:
    """Raise the refusal of a request that a page may have caused."""
    raise RequestRejected(403, Refusal("forbidden", text))


def values_of(request: Request, header: str) -> list[str]:
    """Return all values of a header, of which a hostile request may have several."""
    return [str(value).strip() for value in request.requestHeaders.getRawHeaders(header) or ()]


def host_of(named: str) -> str:
    """Return the name or address in a Host header, without its port and in lower case."""
    return (named[1:].partition("]")[0] if named.startswith("[") else named.partition(":")[0]).lower()


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a Host header names; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_followed_link(request: Request) -> bool:
    """Return whether the browser shows the answer in a window of its own, as for a link that a user follows."""
    modes, targets = values_of(request, "sec-fetch-mode"), values_of(request, "sec-fetch-dest")
    return request.method in (b"GET", b"HEAD") and modes == ["navigate"] and targets == ["document"]

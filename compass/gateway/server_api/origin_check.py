"""Check that a request to the server's HTTPS port does not come from a page of another site."""

from __future__ import annotations

from collections.abc import Collection

from twisted.web.server import Request

from compass.gateway.http import same_origin
from compass.model.names import matches_host_name


class OriginCheck:
    """Check of every request: its Host is a name of this server, and its page, if any, is of this very origin."""

    def __init__(self, names: Collection[str] | None, pages: Collection[bytes]) -> None:
        """`names`: DNS names of this server, perhaps with a wildcard; None: every name. `pages`: see same_origin."""
        self._names = None if names is None else {name.lower() for name in names} | {"localhost"}
        self._pages = pages

    def __call__(self, request: Request) -> None:
        """Raise RequestRejected for a request that a page of another site may have caused."""
        same_origin.refuse_other_sites(request, self._pages)
        hosts = same_origin.values_of(request, "host")
        if any(origin.partition("://")[2] not in hosts for origin in same_origin.values_of(request, "origin")):
            same_origin.refuse("this API is not for pages of other sites")
        for named in hosts:
            if not self._is_own(same_origin.host_of(named)):
                same_origin.refuse(
                    f"this server is not {named[:80]!r}: its certificate has other names; use one of them, or add "
                    "yours to `names` of [server.https]"
                )

    def _is_own(self, host: str) -> bool:
        # An address cannot be a name that its owner has pointed to this machine.
        if self._names is None or not host or same_origin.address_of(host) is not None:
            return True
        return any(matches_host_name(host, name) for name in self._names)

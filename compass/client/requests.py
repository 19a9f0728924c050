"""Adapter of requests for names: `gns://openuss/path` is requested from a listener of openuss, with failover.

    with Session() as web:
        web.get("gns://openuss/picture/42", params={"size": "small"})

The rules are those of `compass.client.httpx`. Without a usable listener the error is
requests.ConnectionError.
`Adapter` alone can be mounted on any other session (`session.mount("gns://", Adapter())`), but requests adds no
`params` to URLs with unknown schemes and follows no relative redirects there; `Session` does both.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
import requests.adapters
import urllib3.exceptions

import compass.client
from compass.client.blocking import Client
from compass.client.core.errors import ApiProblem
from compass.client.urls import IDEMPOTENT, SCHEMES, AddressUnusable, name_of, replace_scheme, resolve_reference
from compass.model.names import format_endpoint
from compass.model.rows import Listener

UNSENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)


class _Failed(Exception):
    """The listener failed, and another one may be tried."""


class Adapter(requests.adapters.HTTPAdapter):
    """Adapter for listeners selected by `client`, by default the program's. With TLS, the certificate is for
    `tls_name`, by default for the name."""

    def __init__(self, client: Client | None = None, *, tls_name: str = "", **more: Any) -> None:
        self._client = client
        self._tls_name = tls_name
        super().__init__(**more)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **named: Any) -> requests.Response:
        """Return the response of the first listener that answers."""
        name = _name(request)

        def once(peer: Listener) -> requests.Response:
            aimed = _aimed(request, name, peer)
            try:
                return self._sent(aimed, request, *arguments, **named)
            except requests.ConnectionError as failure:
                _pass_on(failure, request)
            # A listener may close an idle connection.
            try:
                return self._sent(aimed, request, *arguments, **named)
            except requests.ConnectionError as failure:
                _pass_on(failure, request)
                raise _Failed(str(failure)) from failure

        client = self._client or compass.client.default()
        try:
            return client.attempt(name, once, (_Failed,))
        except ApiProblem as problem:
            raise requests.ConnectionError(problem.message, request=request) from problem

    def _sent(
        self, aimed: requests.PreparedRequest, request: requests.PreparedRequest, *arguments: Any, **named: Any
    ) -> requests.Response:
        response = super().send(aimed, *arguments, **named)
        response.url, response.request = request.url or "", request
        return response

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        """Return the usual attributes, but with TLS verification of the name instead of the address."""
        where, how = super().build_connection_pool_key_attributes(request, verify, cert)
        if where["scheme"] == "https":
            name = self._tls_name or str(request.headers["Host"])
            how = {**how, "server_hostname": name, "assert_hostname": name}
        return where, how


class Session(requests.Session):
    """Session that supports `gns://` and `gns+https://`."""

    def __init__(self, client: Client | None = None, *, tls_name: str = "") -> None:
        super().__init__()
        for scheme in SCHEMES:
            self.mount(f"{scheme}://", Adapter(client, tls_name=tls_name))

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare the request as for HTTP, then restore the scheme."""
        scheme = urlsplit(str(request.url)).scheme
        if scheme not in SCHEMES:
            return super().prepare_request(request)
        url, request.url = request.url, replace_scheme(str(request.url), SCHEMES[scheme])
        try:
            prepared = super().prepare_request(request)
        finally:
            request.url = url
        prepared.url = replace_scheme(str(prepared.url), scheme)
        return prepared

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return the redirect target; a relative one is relative to the name."""
        target = super().get_redirect_target(resp)
        return resolve_reference(resp.url, target) if target and urlsplit(resp.url).scheme in SCHEMES else target


def _name(request: requests.PreparedRequest) -> str:
    try:
        return name_of(str(request.url))
    except AddressUnusable as problem:
        raise requests.exceptions.InvalidURL(str(problem), request=request) from None


def _aimed(request: requests.PreparedRequest, name: str, peer: Listener) -> requests.PreparedRequest:
    """Return the request to one listener. The Host header is the name."""
    parts = urlsplit(str(request.url))
    aimed = request.copy()
    where = format_endpoint(peer.address, peer.port)
    aimed.url = urlunsplit((SCHEMES[parts.scheme], where, parts.path or "/", parts.query, parts.fragment))
    aimed.headers.setdefault("Host", name)
    return aimed


def _may_repeat(request: requests.PreparedRequest) -> bool:
    return request.method in IDEMPOTENT and (request.body is None or isinstance(request.body, bytes | str))


def _pass_on(failure: requests.ConnectionError, request: requests.PreparedRequest) -> None:
    """Return only if the request may be repeated with the same listener. Raises _Failed if the listener cannot have
    received the request, and the failure itself if the request must not be repeated."""
    reason = getattr(failure.args[0] if failure.args else None, "reason", None)
    if isinstance(reason, UNSENT):
        raise _Failed(str(failure)) from failure
    if isinstance(failure, requests.exceptions.SSLError) or not _may_repeat(request):
        raise failure

"""requests over names: `gns://openuss/path` is asked of a listener of openuss, and of the next one when that fails.

    with Session() as web:
        web.get("gns://openuss/picture/42", params={"size": "small"})

The rules are those of `compass.client.httpx`. When nobody can be asked the error is requests.ConnectionError.
`Adapter` alone can be mounted on any other session (`session.mount("gns://", Adapter())`), but requests adds no
`params` to addresses that it does not know, and follows no relative redirects there; `Session` does both.
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
    """The listener failed, and another one may be asked."""


class Adapter(requests.adapters.HTTPAdapter):
    """Asks listeners, chosen by `client`; else by the program's default one. Over TLS with a certificate for
    `tls_name`, else for the name."""

    def __init__(self, client: Client | None = None, *, tls_name: str = "", **more: Any) -> None:
        self._client = client
        self._tls_name = tls_name
        super().__init__(**more)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **named: Any) -> requests.Response:
        """The response of the first listener that gives one."""
        name = _name(request)

        def once(peer: Listener) -> requests.Response:
            aimed = _aimed(request, name, peer)
            try:
                return self._sent(aimed, request, *arguments, **named)
            except requests.ConnectionError as failure:
                _pass_on(failure, request)
            # A listener may close a connection that was idle.
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
        """As always, but TLS asks for the certificate of the name, not of the address."""
        where, how = super().build_connection_pool_key_attributes(request, verify, cert)
        if where["scheme"] == "https":
            name = self._tls_name or str(request.headers["Host"])
            how = {**how, "server_hostname": name, "assert_hostname": name}
        return where, how


class Session(requests.Session):
    """A session that knows `gns://` and `gns+https://`."""

    def __init__(self, client: Client | None = None, *, tls_name: str = "") -> None:
        super().__init__()
        for scheme in SCHEMES:
            self.mount(f"{scheme}://", Adapter(client, tls_name=tls_name))

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """As for a web address; then it is one of ours again."""
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
        """A relative one is relative to the name."""
        target = super().get_redirect_target(resp)
        return resolve_reference(resp.url, target) if target and urlsplit(resp.url).scheme in SCHEMES else target


def _name(request: requests.PreparedRequest) -> str:
    try:
        return name_of(str(request.url))
    except AddressUnusable as problem:
        raise requests.exceptions.InvalidURL(str(problem), request=request) from None


def _aimed(request: requests.PreparedRequest, name: str, peer: Listener) -> requests.PreparedRequest:
    """The request to that listener. The Host header is the name."""
    parts = urlsplit(str(request.url))
    aimed = request.copy()
    where = format_endpoint(peer.address, peer.port)
    aimed.url = urlunsplit((SCHEMES[parts.scheme], where, parts.path or "/", parts.query, parts.fragment))
    aimed.headers.setdefault("Host", name)
    return aimed


def _may_repeat(request: requests.PreparedRequest) -> bool:
    return request.method in IDEMPOTENT and (request.body is None or isinstance(request.body, bytes | str))


def _pass_on(failure: requests.ConnectionError, request: requests.PreparedRequest) -> None:
    """Comes back only if the same listener may be asked once more. Raises _Failed when it cannot have seen anything of
    the request, and the failure itself when that is not the listener's or the request must not be repeated."""
    reason = getattr(failure.args[0] if failure.args else None, "reason", None)
    if isinstance(reason, UNSENT):
        raise _Failed(str(failure)) from failure
    if isinstance(failure, requests.exceptions.SSLError) or not _may_repeat(request):
        raise failure

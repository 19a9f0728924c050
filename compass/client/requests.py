"""Adapter of requests for names: `gns://openuss/path` is requested from a listener of openuss, with failover.

    with Session() as web:
        web.get("gns://openuss/picture/42", params={"size": "small"})

The rules are those of `compass.client.httpx`, also for proxies: those of the environment and of the session do not
count; one that is set here (`Adapter(proxies={"http": ...})`) does. Without a usable listener the error is
requests.ConnectionError.
`Adapter` alone can be mounted on any other session (`session.mount("gns://", Adapter())`), but requests adds no
`params` to URLs with unknown schemes and follows no relative redirects there; `Session` does both.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
import requests.adapters
import requests.cookies
import urllib3.exceptions

import compass.client
from compass.client.blocking import Client
from compass.client.core.errors import ApiProblem
from compass.client.failures import Exchange, Kind, TryNext
from compass.client.urls import IDEMPOTENT, SCHEMES, AddressUnusable, name_of, replace_scheme, resolve_reference
from compass.model.names import format_endpoint
from compass.model.rows import Listener

FAILURES = (requests.ConnectionError, requests.exceptions.ReadTimeout)
"""Exceptions of the adapter that may be a listener's failure."""
BODY_FAILURES = (urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError, urllib3.exceptions.SSLError)
"""Exceptions of a response's body."""


class Adapter(requests.adapters.HTTPAdapter):
    """Adapter for listeners selected by `client`, by default the program's. With TLS, the certificate is for
    `tls_name`, by default for the name. `proxies`: by scheme (`http`, `https`); by default listeners are requested
    directly, whatever the environment and the session say."""

    def __init__(
        self,
        client: Client | None = None,
        *,
        tls_name: str = "",
        proxies: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        self._client = client
        self._tls_name = tls_name
        self._proxies = dict(proxies or {})
        super().__init__(**more)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Return the response of the first listener that answers."""
        name = _name(request)
        client = self._client or compass.client.default()

        def once(peer: Listener) -> requests.Response:
            aimed = _aimed(request, name, peer, direct=not self._proxies)
            exchange = Exchange(client.core, peer, _Judge(), repeatable=_may_repeat(request), direct=not self._proxies)
            while True:
                exchange.begin()
                try:
                    response = super(Adapter, self).send(aimed, stream, timeout, verify, cert, self._proxies)
                except FAILURES as failure:
                    exchange.failed(failure)
                else:
                    return _answered(response, request, exchange)

        try:
            return client.attempt(name, once, (TryNext,))
        except TryNext as failed:
            # The cause is this machine's.
            raise failed.failure from None
        except ApiProblem as problem:
            raise requests.ConnectionError(problem.message, request=request) from problem

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


def _aimed(request: requests.PreparedRequest, name: str, peer: Listener, *, direct: bool) -> requests.PreparedRequest:
    """Return the request to one listener. The Host header is the name."""
    parts = urlsplit(str(request.url))
    aimed = request.copy()
    where = format_endpoint(peer.address, peer.port)
    aimed.url = urlunsplit((SCHEMES[parts.scheme], where, parts.path or "/", parts.query, parts.fragment))
    aimed.headers.setdefault("Host", name)
    if direct:
        # requests adds the credentials of the environment's proxy when it follows a redirect.
        aimed.headers.pop("Proxy-Authorization", None)
    return aimed


def _answered(response: requests.Response, request: requests.PreparedRequest, exchange: Exchange) -> requests.Response:
    """Return the response as one of the name: its URL, its cookies, and the failures of its body."""
    response.url, response.request = request.url or "", request
    response.cookies = requests.cookies.RequestsCookieJar()
    raw: Any = response.raw
    requests.cookies.extract_cookies_to_jar(response.cookies, request, raw)
    raw.read = exchange.reader(raw.read, BODY_FAILURES)
    stream = raw.stream
    raw.stream = lambda *arguments, **named: exchange.pieces(stream(*arguments, **named), BODY_FAILURES)
    return response


def _may_repeat(request: requests.PreparedRequest) -> bool:
    return request.method in IDEMPOTENT and (request.body is None or isinstance(request.body, bytes | str))


class _Judge:
    """Knowledge of the exceptions of this library."""

    def judged(self, failure: Exception) -> tuple[Kind, str]:
        """Return the kind of a failure, and the text of urllib3's own exception: requests puts the URL first."""
        wrapped = failure.args[0] if failure.args else None
        cause: Any = getattr(wrapped, "reason", None) or (wrapped if isinstance(wrapped, Exception) else failure)
        kinds: tuple[tuple[Kind, tuple[type[BaseException], ...]], ...] = (
            ("other", (urllib3.exceptions.ProxyError, urllib3.exceptions.ClosedPoolError)),
            ("refused", (urllib3.exceptions.NewConnectionError,)),
            ("unanswered", (urllib3.exceptions.ConnectTimeoutError,)),
            ("hung", (urllib3.exceptions.ReadTimeoutError,)),
            ("broken", (urllib3.exceptions.ProtocolError, OSError)),
        )
        if isinstance(cause, urllib3.exceptions.SSLError) and isinstance(cause.args[0], ssl.SSLEOFError):
            # The listener has closed the connection; any other failure of TLS is about certificates and versions.
            return "broken", str(cause)
        return next((kind for kind, its in kinds if isinstance(cause, its)), "other"), str(cause) or repr(cause)

"""Transport of httpx for names: `gns://openuss/path` is requested from a listener of openuss, with failover.

    with httpx.Client(mounts=gns.mounts()) as web:
        web.get("gns://openuss/picture/42")

`gns+https://` does the same over TLS, with a certificate for `tls_name`. The port comes from the listener; the Host
header is the name. A request that could not be sent goes to the next listener; a request that failed later is repeated
if its method is idempotent (RFC 9110 section 9.2.2) and its body can be sent again. Without a usable listener the error
is httpx.ConnectError, as for an unknown host name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

import compass.client
import compass.client.asyncio
from compass.client.blocking import Client
from compass.client.core.errors import ApiProblem
from compass.client.core.session import Failures
from compass.client.urls import IDEMPOTENT, SCHEMES, AddressUnusable, name_of, resolve_reference
from compass.model.rows import Listener

UNSENT: Failures = (httpx.ConnectError, httpx.ConnectTimeout)
BROKEN: Failures = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)


class Transport(httpx.BaseTransport):
    """Transport to listeners selected by `client`, by default the program's. `through`: transport to an address."""

    def __init__(
        self, client: Client | None = None, *, through: httpx.BaseTransport | None = None, tls_name: str = ""
    ) -> None:
        self._client = client
        self._through = through or httpx.HTTPTransport()
        self._tls_name = tls_name

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response of the first listener that answers."""

        def once(peer: Listener) -> httpx.Response:
            aimed = _aimed(request, peer, self._tls_name)
            try:
                return self._through.handle_request(aimed)
            except BROKEN:
                if not _may_repeat(request):
                    raise
                # A listener may close an idle connection.
                return self._through.handle_request(aimed)

        client = self._client or compass.client.default()
        with _translated(request):
            return _located(client.attempt(_name(request), once, _failures(request)), request)

    def close(self) -> None:
        """Close the connections."""
        self._through.close()


class AsyncTransport(httpx.AsyncBaseTransport):
    """Transport like `Transport`, for asyncio."""

    def __init__(
        self,
        client: compass.client.asyncio.Client | None = None,
        *,
        through: httpx.AsyncBaseTransport | None = None,
        tls_name: str = "",
    ) -> None:
        self._own = None if client else compass.client.asyncio.Client()
        self._client = client or self._own
        self._through = through or httpx.AsyncHTTPTransport()
        self._tls_name = tls_name

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response of the first listener that answers."""

        async def once(peer: Listener) -> httpx.Response:
            aimed = _aimed(request, peer, self._tls_name)
            try:
                return await self._through.handle_async_request(aimed)
            except BROKEN:
                if not _may_repeat(request):
                    raise
                return await self._through.handle_async_request(aimed)

        assert self._client is not None
        with _translated(request):
            return _located(await self._client.attempt(_name(request), once, _failures(request)), request)

    async def aclose(self) -> None:
        """Close the connections, and the client if it was created here."""
        await self._through.aclose()
        if self._own is not None:
            await self._own.close()


def mounts(client: Client | None = None, *, tls_name: str = "") -> dict[str, httpx.BaseTransport | None]:
    """Return the transports for `httpx.Client(mounts=...)`."""
    transport = Transport(client, tls_name=tls_name)
    return {f"{scheme}://": transport for scheme in SCHEMES}


def async_mounts(
    client: compass.client.asyncio.Client | None = None, *, tls_name: str = ""
) -> dict[str, httpx.AsyncBaseTransport | None]:
    """Return the transports for `httpx.AsyncClient(mounts=...)`."""
    transport = AsyncTransport(client, tls_name=tls_name)
    return {f"{scheme}://": transport for scheme in SCHEMES}


def _name(request: httpx.Request) -> str:
    try:
        return name_of(str(request.url))
    except AddressUnusable as problem:
        raise httpx.UnsupportedProtocol(str(problem), request=request) from None


def _aimed(request: httpx.Request, peer: Listener, tls_name: str) -> httpx.Request:
    """Return the request to one listener. The Host header stays the name."""
    scheme = SCHEMES[request.url.scheme]
    url = request.url.copy_with(scheme=scheme, host=peer.address, port=peer.port)
    extensions = dict(request.extensions)
    if scheme == "https":
        extensions["sni_hostname"] = tls_name or request.url.host
    return httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)


def _located(response: httpx.Response, request: httpx.Request) -> httpx.Response:
    """Resolve a redirect of the response relative to the name, not to the listener."""
    if response.has_redirect_location:
        response.headers["Location"] = resolve_reference(str(request.url), response.headers["Location"])
    return response


def _may_repeat(request: httpx.Request) -> bool:
    return request.method in IDEMPOTENT and isinstance(request.stream, httpx.ByteStream)


def _failures(request: httpx.Request) -> Failures:
    return (*UNSENT, *BROKEN) if _may_repeat(request) else UNSENT


@contextmanager
def _translated(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except ApiProblem as problem:
        raise httpx.ConnectError(problem.message, request=request) from problem

"""Transport of httpx for names: `gns://openuss/path` is requested from a listener of openuss, with failover.

    with httpx.Client(mounts=gns.mounts()) as web:
        web.get("gns://openuss/picture/42")

`gns+https://` does the same over TLS, with a certificate for `tls_name`. The port comes from the listener; the Host
header is the name. A request that could not be sent goes to the next listener; a request that failed later is repeated
if its method is idempotent (RFC 9110 section 9.2.2) and its body can be sent again. Without a usable listener the error
is httpx.ConnectError, as for an unknown host name.

Listeners are requested directly, whatever proxies the environment names. A proxy must be set here
(`Transport(through=httpx.HTTPTransport(proxy=...))`); then no failure is a listener's, since it may be the proxy's.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.request import getproxies

import httpx

import compass.client
import compass.client.asyncio
from compass.client.blocking import Client
from compass.client.core.client import CoreClient
from compass.client.core.errors import ApiProblem
from compass.client.core.session import Failures
from compass.client.failures import Exchange, Kind, TryNext
from compass.client.urls import IDEMPOTENT, SCHEMES, AddressUnusable, name_of, resolve_reference
from compass.model.rows import Listener

BROKEN: Failures = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)
HUNG: Failures = (httpx.ReadTimeout, httpx.WriteTimeout)

T = TypeVar("T")


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
        client = self._client or compass.client.default()

        def once(peer: Listener) -> httpx.Response:
            aimed = _aimed(request, peer, self._tls_name)
            exchange = _exchange(client.core, peer, request, self._through)
            while True:
                exchange.begin()
                try:
                    response = self._through.handle_request(aimed)
                except httpx.TransportError as failure:
                    exchange.failed(failure)
                else:
                    response.stream = _Body(response.stream, exchange)
                    return response

        with _translated(request):
            return _located(client.attempt(_name(request), once, (TryNext,)), request)

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
        client = self._client
        assert client is not None

        async def once(peer: Listener) -> httpx.Response:
            aimed = _aimed(request, peer, self._tls_name)
            exchange = _exchange(client, peer, request, self._through)
            while True:
                exchange.begin()
                try:
                    response = await self._through.handle_async_request(aimed)
                except httpx.TransportError as failure:
                    exchange.failed(failure)
                else:
                    response.stream = _AsyncBody(response.stream, exchange)
                    return response

        with _translated(request):
            return _located(await client.attempt(_name(request), once, (TryNext,)), request)

    async def aclose(self) -> None:
        """Close the connections, and the client if it was created here."""
        await self._through.aclose()
        if self._own is not None:
            await self._own.close()


def mounts(client: Client | None = None, *, tls_name: str = "") -> dict[str, httpx.BaseTransport | None]:
    """Return the transports for `httpx.Client(mounts=...)`."""
    return dict.fromkeys(_patterns(), Transport(client, tls_name=tls_name))


def async_mounts(
    client: compass.client.asyncio.Client | None = None, *, tls_name: str = ""
) -> dict[str, httpx.AsyncBaseTransport | None]:
    """Return the transports for `httpx.AsyncClient(mounts=...)`."""
    return dict.fromkeys(_patterns(), AsyncTransport(client, tls_name=tls_name))


def _patterns() -> list[str]:
    """Return the URL patterns of all names. httpx gives each host of NO_PROXY a pattern of its own, which would come
    before that of a scheme alone and whose transport does not know the scheme."""
    exempt = [host.strip().partition("://") for host in getproxies().get("no", "").split(",")]
    names = [after or before for before, _, after in exempt]
    hosts = [name for name in names if re.fullmatch(r"[\w.-]+", name)]
    return [f"{scheme}://{host}" for scheme in SCHEMES for host in ("", *hosts, *(f"*{host}" for host in hosts))]


class _Body(httpx.SyncByteStream):
    """Body of a response whose failures are the listener's."""

    def __init__(self, body: Any, exchange: Exchange) -> None:
        self._body = body
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        return self._exchange.pieces(iter(self._body), (httpx.TransportError,))

    def close(self) -> None:
        """Close the response."""
        self._body.close()


class _AsyncBody(httpx.AsyncByteStream):
    """Body like `_Body`, for asyncio."""

    def __init__(self, body: Any, exchange: Exchange) -> None:
        self._body = body
        self._exchange = exchange

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._exchange.pieces_async(aiter(self._body), (httpx.TransportError,))

    async def aclose(self) -> None:
        """Close the response."""
        await self._body.aclose()


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


def _exchange(core: CoreClient, peer: Listener, request: httpx.Request, through: object) -> Exchange:
    repeatable = request.method in IDEMPOTENT and isinstance(request.stream, httpx.ByteStream)
    # The transport of httpx has no public attribute for its proxy.
    has_proxy = "Proxy" in type(getattr(through, "_pool", None)).__name__
    return Exchange(core, peer, _Judge(), repeatable=repeatable, direct=not has_proxy)


class _Judge:
    """Knowledge of the exceptions of this library."""

    def judged(self, failure: Exception) -> tuple[Kind, str]:
        """Return the kind of a failure, and its text."""
        kinds: tuple[tuple[Kind, Failures], ...] = (
            ("refused", (httpx.ConnectError,)),
            ("unanswered", (httpx.ConnectTimeout,)),
            ("broken", BROKEN),
            ("hung", HUNG),
        )
        return next((kind for kind, its in kinds if isinstance(failure, its)), "other"), str(failure) or repr(failure)


def _located(response: httpx.Response, request: httpx.Request) -> httpx.Response:
    """Resolve a redirect of the response relative to the name, not to the listener."""
    if response.has_redirect_location:
        response.headers["Location"] = resolve_reference(str(request.url), response.headers["Location"])
    return response


@contextmanager
def _translated(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except TryNext as failed:
        # The cause is this machine's.
        raise failed.failure from None
    except ApiProblem as problem:
        raise httpx.ConnectError(problem.message, request=request) from problem

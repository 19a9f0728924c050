"""`gns://NAME/path` in httpx and requests: real HTTP servers behind a name, one of which is dead, drops, or lies."""

from __future__ import annotations

import asyncio
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
import requests

import compass.client.asyncio
from compass import client
from compass.client.httpx import AsyncTransport, Transport, async_mounts, mounts
from compass.client.requests import Adapter, Session
from compass.client.urls import AddressUnusable, name_of
from compass.model.rows import Listener
from compass.pki.authority import create_authority, issue, write_credentials
from tests.support.fake_api import LittleApi, outcome, refusal


class Site:
    """A listener that says what it was asked. `/drop` ends the connection, `/away` sends elsewhere."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        site = self

        class Answering(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length).decode()
                site.asked.append(f"{self.command} {self.path}")
                if self.path == "/drop":
                    self.close_connection = True
                    return
                where = urlsplit(self.path)
                said: dict[str, Any] = {"port": site.port, "host": self.headers["Host"], "path": where.path}
                data = msgspec.json.encode(said | {"query": parse_qs(where.query), "body": body})
                self.send_response(302 if self.path == "/away" else 200)
                self.send_header("Location", "hello?from=away")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_port
        self.row = Listener("a.openuss", "127.0.0.1", self.port, "up", 1.0, 1)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Town:
    """Sites behind the name openuss, in the order that the daemon gives them in."""

    def __init__(self, api: LittleApi) -> None:
        self.api = api
        self.first, self.second = Site(), Site()
        with socket.create_server(("127.0.0.1", 0)) as closed:
            self.dead = Listener("a.openuss", "127.0.0.1", closed.getsockname()[1], "up", 1.0, 1)
        api.answers["/v1/report"] = outcome("suspect")

    def order(self, *peers: Listener) -> None:
        found = {"name": "openuss", "revision": 5, "source": "service", "listeners": msgspec.to_builtins(peers)}
        self.api.answers["/v1/resolve/openuss"] = (200, found)

    def reported(self, count: int = 1) -> int:
        port: int = self.api.wait_for("/v1/report", count).body["port"]
        return port


@pytest.fixture
def town(api: LittleApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    """Two sites that answer and one port without a listener."""
    monkeypatch.delenv("OPENGNS_SERVICE", raising=False)
    made = Town(api)
    yield made
    made.first.close()
    made.second.close()


FAILURES = (httpx.HTTPError, requests.RequestException)


def ask(kind: str, town: Town, method: str, url: str, tls: Path | None = None, **more: Any) -> Any:
    """The answer by one of the libraries, as JSON."""
    tls_name = more.pop("tls_name", "")
    if kind == "asyncio":
        return asyncio.run(ask_on_asyncio(town, method, url, **more))
    used = client.Client(api=town.api.place)
    if kind == "httpx":
        transports = mounts(used, tls_name=tls_name)
        if tls is not None:
            through = httpx.HTTPTransport(verify=ssl.create_default_context(cafile=str(tls)))
            transports = {"gns+https://": Transport(used, through=through, tls_name=tls_name)}
        with httpx.Client(mounts=transports, follow_redirects=True) as web:
            return web.request(method, url, **more).json()
    with Session(used, tls_name=tls_name) as session:
        return session.request(method, url, verify=str(tls) if tls else True, **more).json()


async def ask_on_asyncio(town: Town, method: str, url: str, **more: Any) -> Any:
    async with (
        compass.client.asyncio.Client(api=town.api.place) as used,
        httpx.AsyncClient(mounts=async_mounts(used), follow_redirects=True) as web,
    ):
        return (await web.request(method, url, **more)).json()


@pytest.fixture(params=["httpx", "asyncio", "requests"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each of the libraries."""
    return str(request.param)


def test_a_name_is_asked_like_a_host(town: Town, kind: str) -> None:
    """Path, query and body arrive; the Host header is the name; the answer says it came from there."""
    town.order(town.first.row)
    said = ask(kind, town, "GET", "gns://openuss/a%20b", params={"size": "small"})
    expected = {"port": town.first.port, "host": "openuss", "path": "/a%20b", "query": {"size": ["small"]}, "body": ""}
    assert said == expected
    assert ask(kind, town, "POST", "gns://openuss", json={"a": 1})["body"].replace(" ", "") == '{"a":1}'
    assert town.api.paths().count("/v1/report") == 0


def test_a_dead_listener_is_passed_by_and_reported(town: Town, kind: str) -> None:
    """Whatever the method: it has seen nothing of the request."""
    town.order(town.dead, town.first.row)
    body: dict[str, Any] = {"data": "1"} if kind == "requests" else {"content": "1"}
    assert ask(kind, town, "POST", "gns://openuss/order", **body)["body"] == "1"
    assert (town.reported(), town.first.asked) == (town.dead.port, ["POST /order"])


def test_a_request_that_breaks_off_is_repeated_when_that_is_harmless(town: Town, kind: str) -> None:
    """RFC 9110 section 9.2.2. Once more on a new connection, for it may have been an idle one, then elsewhere; a POST
    is the caller's to decide.
    """
    town.order(town.first.row, town.second.row)
    with pytest.raises(FAILURES):
        ask(kind, town, "POST", "gns://openuss/drop", headers={"Content-Length": "0"})
    assert (town.first.asked, town.second.asked) == (["POST /drop"], [])
    with pytest.raises(FAILURES, match="all 2 listeners tried"):
        ask(kind, town, "GET", "gns://openuss/drop")
    assert town.first.asked[1:] == town.second.asked == ["GET /drop", "GET /drop"]
    assert {town.reported(1), town.reported(2)} == {town.first.port, town.second.port}


def test_a_redirect_stays_with_the_name(town: Town, kind: str) -> None:
    """A relative one is relative to the name, not to the listener that gave it."""
    town.order(town.first.row)
    said = ask(kind, town, "GET", "gns://openuss/away")
    assert (said["host"], said["path"], said["query"]) == ("openuss", "/hello", {"from": ["away"]})


def test_no_listener_is_an_error_of_the_library(town: Town, kind: str) -> None:
    """The one for a host that cannot be connected to; its cause is the client's own problem."""
    town.order()
    expected = requests.ConnectionError if kind == "requests" else httpx.ConnectError
    with pytest.raises(expected, match="no usable listener is registered") as nobody:
        ask(kind, town, "GET", "gns://openuss/")
    assert isinstance(nobody.value.__cause__, client.NoneRegistered)
    town.api.answers["/v1/resolve/openuss"] = refusal("unknown-dependency", 404)
    with pytest.raises(expected, match="refusal: unknown-dependency"):
        ask(kind, town, "GET", "gns://openuss/")
    with pytest.raises(FAILURES, match="leave out the port"):
        ask(kind, town, "GET", "gns://openuss:80/")


def test_addresses_that_are_none() -> None:
    """Each with what would be right; a user's name before the host is no port."""
    assert name_of("gns://me:secret@a.openuss/x:1") == "a.openuss"
    for wrong in ("http://openuss/", "gns:///path", "gns://openuss:80/"):
        with pytest.raises(AddressUnusable):
            name_of(wrong)
    with pytest.raises(httpx.UnsupportedProtocol):
        Transport().handle_request(httpx.Request("GET", "http://openuss/"))
    with pytest.raises(requests.exceptions.InvalidURL):
        Adapter().send(requests.Request("GET", "http://openuss/").prepare())


@pytest.mark.parametrize("kind", ["httpx", "requests"])
def test_over_tls_the_certificate_is_the_names(town: Town, kind: str, tmp_path: Path) -> None:
    """Not the address's; and one of another name is refused without blaming the listener."""
    now = datetime.now(UTC)
    authority = create_authority("tests", now)
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    files = write_credentials(tmp_path, "site", issue(authority, "server", "pictures.example", [], now))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.certificate, files.key)
    site = Site(tls)
    town.order(town.dead, site.row)
    asked = ("GET", "gns+https://openuss/x")
    said = ask(kind, town, *asked, tls=tmp_path / "ca.crt", tls_name="pictures.example")
    assert (said["port"], said["host"]) == (site.port, "openuss")
    assert town.reported() == town.dead.port
    town.order(site.row)
    with pytest.raises(FAILURES, match=r"(?i)certificate|mismatch"):
        ask(kind, town, *asked, tls=tmp_path / "ca.crt")
    assert town.api.paths().count("/v1/report") == 1
    site.close()


def test_transports_of_their_own_find_the_program_s_client(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a client: the default one, and on asyncio one that is closed with the transport."""
    monkeypatch.setenv("OPENGNS_API", town.api.place)
    client.default.cache_clear()
    town.order(town.first.row)
    with httpx.Client(mounts=mounts()) as web:
        assert web.get("gns://openuss/").json()["port"] == town.first.port
    with Session() as session:
        assert session.get("gns://openuss/").json()["port"] == town.first.port

    async def ask() -> Any:
        async with httpx.AsyncClient(mounts={"gns://": AsyncTransport()}) as web:
            return (await web.get("gns://openuss/")).json()

    assert asyncio.run(ask())["port"] == town.first.port
    client.default.cache_clear()

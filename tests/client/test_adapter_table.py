"""Table of cases for every HTTP library: `gns://NAME` behaves as the name's own host would, in each the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import requests

import compass.client.asyncio
from compass import client
from compass.client.failures import BLAME_SECONDS_MIN
from compass.client.httpx import AsyncTransport, Transport, async_mounts, mounts
from compass.client.requests import Adapter, Session
from compass.client.urls import resolve_reference
from compass.model.rows import Listener
from compass.pki.authority import create_authority, issue, write_credentials
from tests.support.fake_api import LittleApi, outcome

FAILURES = (httpx.HTTPError, requests.RequestException)
SECONDS = 0.3
"""A caller's time limit that a hanging listener exceeds; above BLAME_SECONDS_MIN."""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: "


class Site:
    """Listener at the level of octets: `script` answers each request, or leaves it without an answer."""

    def __init__(self, script: Callable[[Site, bytes], bytes | None], tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[bytes] = []
        self.script = script
        self._tls = tls
        self._held: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.row = Listener("a.openuss", "127.0.0.1", self.port, "up", 1.0, 1)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        received = b""
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            while b"\r\n\r\n" not in received or not complete(received):
                if not (piece := connection.recv(65536)):
                    return
                received += piece
            self.asked.append(received)
            answer = self.script(self, received)
            if answer is None:
                self._held.append(connection)
                return
            connection.sendall(answer)
            if answer.startswith(HEAD + b"9999"):
                self._held.append(connection)
                return
        except OSError:
            pass
        connection.close()

    def header(self, name: str, at: int = -1) -> list[str]:
        """The values of a header of a request, split at `; `."""
        lines = self.asked[at].split(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        found = [line.split(": ", 1)[1] for line in lines if line.lower().startswith(name.lower() + ":")]
        return sorted(part for value in found for part in value.split("; "))

    def lines(self) -> list[str]:
        return [asked.split(b" HTTP")[0].decode() for asked in self.asked]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            # Ends the thread's `accept`, which would keep the port open.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._held:
            connection.close()


def complete(received: bytes) -> bool:
    head, _, body = received.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(body) >= (int(length[0].split(b":")[1]) if length else 0)


def ok(site: Site, request: bytes) -> bytes:
    return HEAD + b"2\r\nConnection: close\r\n\r\nok"


def hang(site: Site, request: bytes) -> None:
    return None


def hang_in_the_body(site: Site, request: bytes) -> bytes:
    return HEAD + b"9999\r\n\r\nthe first piece"


def break_in_the_body(site: Site, request: bytes) -> bytes:
    return HEAD + b"5000\r\nConnection: close\r\n\r\nthe first piece"


def redirect(location: str, status: int = 302) -> Callable[[Site, bytes], bytes]:
    """Redirect the path `/old`, and answer any other."""

    def script(site: Site, request: bytes) -> bytes:
        if b" /old" not in request.split(b"\r\n")[0]:
            return ok(site, request)
        where = location.replace("PORT", str(site.port))
        return f"HTTP/1.1 {status} .\r\nLocation: {where}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()

    return script


class Town:
    """Listeners behind the names openuss and other."""

    def __init__(self, api: LittleApi) -> None:
        self.api = api
        self.sites: list[Site] = []
        api.answers["/v1/report"] = outcome("suspect")

    def site(self, script: Callable[[Site, bytes], bytes | None] = ok) -> Site:
        self.sites.append(Site(script))
        return self.sites[-1]

    def order(self, *peers: Listener, name: str = "openuss") -> None:
        found = {"name": name, "revision": 5, "source": "service", "listeners": msgspec.to_builtins(peers)}
        self.api.answers[f"/v1/resolve/{name}"] = (200, found)

    def reported(self) -> list[int]:
        return [asked.body["port"] for asked in self.api.asked if asked.path == "/v1/report"]


@pytest.fixture
def town(api: LittleApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    """Listeners, and an environment without proxies."""
    for name in ("OPENGNS_SERVICE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = Town(api)
    yield made
    for site in made.sites:
        site.close()


@pytest.fixture(params=["httpx", "asyncio", "requests"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each of the libraries."""
    return str(request.param)


def ask(kind: str, town: Town, method: str, url: str, times: int = 1, **more: Any) -> Any:
    """The last of some responses to the same request; all are made before one client is closed."""
    if kind == "asyncio":
        return asyncio.run(ask_on_asyncio(town, method, url, times, **more))
    with client.Client(api=town.api.place) as used:
        if kind == "httpx":
            with httpx.Client(mounts=mounts(used), follow_redirects=True) as web:
                return [web.request(method, url, **more) for _ in range(times)][-1]
        if "content" in more:
            more["data"] = more.pop("content")
        with Session(used) as session:
            return [session.request(method, url, **more) for _ in range(times)][-1]


async def ask_on_asyncio(town: Town, method: str, url: str, times: int, **more: Any) -> Any:
    if isinstance(more.get("content"), Iterator):
        more["content"] = pieces_async(more["content"])
    async with (
        compass.client.asyncio.Client(api=town.api.place) as used,
        httpx.AsyncClient(mounts=async_mounts(used), follow_redirects=True) as web,
    ):
        return [await web.request(method, url, **more) for _ in range(times)][-1]


async def pieces_async(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


# Listeners that hang ----------------------------------------------------------------------------------------


def test_a_listener_that_hangs_is_avoided_reported_and_another_asked(town: Town, kind: str) -> None:
    """The method may be repeated; the one that hangs is asked once and not again."""
    hanging, good = town.site(hang), town.site()
    town.order(hanging.row, good.row)
    assert ask(kind, town, "GET", "gns://openuss/", times=3, timeout=SECONDS).text == "ok"
    town.api.wait_for("/v1/report")
    assert (len(hanging.asked), len(good.asked), town.reported()) == (1, 3, [hanging.port])


def test_a_listener_that_hangs_in_a_post_is_reported_and_the_caller_decides(town: Town, kind: str) -> None:
    """The order may have been placed."""
    hanging, good = town.site(hang), town.site()
    town.order(hanging.row, good.row)
    with pytest.raises((httpx.ReadTimeout, requests.exceptions.ReadTimeout)):
        ask(kind, town, "POST", "gns://openuss/", timeout=SECONDS, content=b"1")
    assert town.api.wait_for("/v1/report").body["port"] == hanging.port
    assert (len(hanging.asked), good.asked) == (1, [])


def test_a_request_with_a_body_that_cannot_be_sent_twice_is_the_caller_s(town: Town, kind: str) -> None:
    """Even of a method that may be repeated: its generator is exhausted."""
    hanging, good = town.site(hang), town.site()
    town.order(hanging.row, good.row)
    with pytest.raises((httpx.ReadTimeout, requests.exceptions.ReadTimeout)):
        ask(kind, town, "PUT", "gns://openuss/", timeout=SECONDS, content=iter([b"a", b"b"]))
    assert town.api.wait_for("/v1/report").body["port"] == hanging.port
    assert good.asked == []


def test_a_body_that_cannot_be_sent_twice_goes_past_a_dead_listener(town: Town, kind: str) -> None:
    """Nothing of it was read."""
    dead, good = town.site(), town.site()
    dead.close()
    town.order(dead.row, good.row)
    assert ask(kind, town, "POST", "gns://openuss/", timeout=3, content=iter([b"a", b"b"])).text == "ok"
    assert b"a" in good.asked[0].partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(("seconds", "reports"), [(BLAME_SECONDS_MIN / 2, 0), (BLAME_SECONDS_MIN * 1.5, 2)])
def test_a_time_limit_that_no_listener_could_keep_blames_none(
    town: Town, kind: str, seconds: float, reports: int
) -> None:
    """Below BLAME_SECONDS_MIN the caller has its timeout, as from a host."""
    first, second = town.site(hang), town.site(hang)
    town.order(first.row, second.row)
    with pytest.raises(FAILURES) as failed:
        ask(kind, town, "GET", "gns://openuss/", timeout=seconds)
    assert isinstance(failed.value, httpx.ReadTimeout | requests.exceptions.ReadTimeout) == (not reports)
    if reports:
        town.api.wait_for("/v1/report", reports)
    assert len(town.reported()) == reports


@pytest.mark.parametrize("script", [hang_in_the_body, break_in_the_body])
def test_a_body_that_fails_is_the_caller_s_and_its_listener_is_reported(
    town: Town, kind: str, script: Callable[[Site, bytes], bytes]
) -> None:
    """A part was delivered, so nothing is repeated; the next request goes elsewhere."""
    bad, good = town.site(script), town.site()
    town.order(bad.row, good.row)
    used: Any = client.Client(api=town.api.place)
    if kind == "requests":
        session = Session(used)
        with pytest.raises(FAILURES):
            session.get("gns://openuss/", timeout=SECONDS)
        text = session.get("gns://openuss/", timeout=SECONDS).text
    elif kind == "httpx":
        with httpx.Client(mounts=mounts(used)) as web:
            with pytest.raises(FAILURES), web.stream("GET", "gns://openuss/", timeout=SECONDS) as response:
                assert b"".join(response.iter_raw()) == b""
            text = web.get("gns://openuss/", timeout=SECONDS).text
    else:
        text = asyncio.run(after_a_failure(town))
    assert town.api.wait_for("/v1/report").body["port"] == bad.port
    assert (text, len(bad.asked), len(good.asked)) == ("ok", 1, 1)


async def after_a_failure(town: Town) -> str:
    async with (
        compass.client.asyncio.Client(api=town.api.place) as used,
        httpx.AsyncClient(mounts=async_mounts(used)) as web,
    ):
        with pytest.raises(FAILURES):
            await web.get("gns://openuss/", timeout=SECONDS)
        return (await web.get("gns://openuss/", timeout=SECONDS)).text


def test_a_streamed_body_that_fails_is_reported(town: Town) -> None:
    """Also by requests with `stream=True`, whose body is read outside of the adapter, in pieces or from `raw`."""
    bad = town.site(break_in_the_body)
    for read in (
        lambda it: list(it.iter_content(10)),
        lambda it: [it.raw.read(9000), it.raw.read(9000)],
        lambda it: it.content,
    ):
        town.order(bad.row)
        town.api.asked.clear()
        with Session(client.Client(api=town.api.place)) as session:
            response = session.get("gns://openuss/", timeout=SECONDS, stream=True)
            with pytest.raises(Exception, match=r"(?i)incomplete|broken"):
                read(response)
        assert town.api.wait_for("/v1/report").body["port"] == bad.port


def test_retries_of_the_library_do_not_hide_a_listener_that_hangs(town: Town) -> None:
    """urllib3 wraps the last failure; httpx retries only connections."""
    hanging, good = town.site(hang), town.site()
    town.order(hanging.row, good.row)
    used = client.Client(api=town.api.place)
    with requests.Session() as session:
        session.mount("gns://", Adapter(used, max_retries=1))
        assert session.get("gns://openuss/", timeout=SECONDS).text == "ok"
    assert town.api.wait_for("/v1/report").body["port"] == hanging.port
    assert len(hanging.asked) == 2
    through = httpx.HTTPTransport(retries=1)
    with httpx.Client(mounts={"gns://": Transport(client.Client(api=town.api.place), through=through)}) as web:
        assert web.get("gns://openuss/", timeout=SECONDS).text == "ok"
    assert town.api.wait_for("/v1/report", 2).body["port"] == hanging.port


# Proxies ----------------------------------------------------------------------------------------------------

PROXIES = {
    "http": {"http_proxy": "PROXY"},
    "all": {"all_proxy": "PROXY", "ALL_PROXY": "PROXY"},
    "of the scheme": {"gns_proxy": "PROXY"},
    "exempt addresses": {"http_proxy": "PROXY", "no_proxy": "127.0.0.0/8,127.0.0.1,localhost"},
    "exempt names": {"http_proxy": "PROXY", "no_proxy": "openuss,.gns,a.openuss"},
    "only exempt names": {"no_proxy": "localhost,openuss"},
    "exempt domain": {"no_proxy": ".openuss,all://openuss,::1,10.0.0.0/8"},
}


@pytest.mark.parametrize("environment", PROXIES)
def test_proxies_of_the_environment_do_not_count(
    town: Town, kind: str, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they exempt: names are no hosts, and their credentials are for the listener alone."""
    proxy, good = town.site(), town.site()
    for variable, value in PROXIES[environment].items():
        monkeypatch.setenv(variable, value.replace("PROXY", f"http://me:secret@127.0.0.1:{proxy.port}"))
    for name in ("openuss", "a.openuss"):
        town.order(good.row, name=name)
        secret = {"Authorization": "Basic eA=="}
        assert ask(kind, town, "GET", f"gns://{name}/", timeout=3, headers=secret).text == "ok"
    assert (proxy.asked, good.header("Authorization"), town.reported()) == ([], ["Basic eA=="], [])
    assert good.header("Proxy-Authorization") == []


def test_a_redirect_does_not_add_the_proxy_s_credentials(
    town: Town, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests adds them when it follows a redirect."""
    proxy, good = town.site(), town.site(redirect("/new"))
    for variable in ("all_proxy", "gns_proxy"):
        monkeypatch.setenv(variable, f"http://me:secret@127.0.0.1:{proxy.port}")
    town.order(good.row)
    assert ask(kind, town, "GET", "gns://openuss/old", timeout=3).text == "ok"
    assert (proxy.asked, good.header("Proxy-Authorization")) == ([], [])


def test_a_proxy_of_the_session_does_not_count_either(town: Town) -> None:
    """`Session.proxies`, and those of one request: they are for hosts."""
    proxy, good = town.site(), town.site()
    town.order(good.row)
    with Session(client.Client(api=town.api.place)) as session:
        session.proxies = {kind: f"http://127.0.0.1:{proxy.port}" for kind in ("http", "all", "gns")}
        assert session.get("gns://openuss/", timeout=3).text == "ok"
        assert session.get("gns://openuss/", timeout=3, proxies=session.proxies).text == "ok"
    assert proxy.asked == []


@pytest.mark.parametrize("library", ["httpx", "requests"])
@pytest.mark.parametrize("fault", ["works", "dead", "hangs"])
def test_a_proxy_that_is_set_here_is_used_and_its_failures_are_its_own(town: Town, library: str, fault: str) -> None:
    """No listener is reported for it, and no other one tried."""
    proxy, good = town.site(hang if fault == "hangs" else ok), town.site()
    if fault == "dead":
        proxy.close()
    town.order(good.row, town.site().row)
    used, where = client.Client(api=town.api.place), f"http://127.0.0.1:{proxy.port}"

    def get() -> str:
        if library == "httpx":
            transport = Transport(used, through=httpx.HTTPTransport(proxy=where))
            with httpx.Client(mounts={"gns://": transport}) as web:
                return web.get("gns://openuss/", timeout=SECONDS).text
        with requests.Session() as session:
            session.mount("gns://", Adapter(used, proxies={"http": where}))
            return session.get("gns://openuss/", timeout=SECONDS).text

    if fault == "works":
        assert get() == "ok"
        assert proxy.lines() == [f"GET http://127.0.0.1:{good.port}/"]
    else:
        with pytest.raises(FAILURES):
            get()
    assert (good.asked, town.reported()) == ([], [])


def test_a_proxy_is_recognised_in_the_transport_of_asyncio(town: Town) -> None:
    """The transport of blocking programs does the same."""
    dead, good = town.site(), town.site()
    dead.close()
    town.order(good.row)

    async def main() -> None:
        through = httpx.AsyncHTTPTransport(proxy=f"http://127.0.0.1:{dead.port}")
        async with (
            compass.client.asyncio.Client(api=town.api.place) as used,
            httpx.AsyncClient(mounts={"gns://": AsyncTransport(used, through=through)}) as web,
        ):
            with pytest.raises(httpx.ConnectError):
                await web.get("gns://openuss/", timeout=3)

    asyncio.run(main())
    assert town.reported() == []


# Redirects --------------------------------------------------------------------------------------------------

REDIRECTS = {
    "relative": ("new?a=1", "openuss"),
    "absolute path": ("/new?a=1", "openuss"),
    "the name": ("gns://openuss/new?a=1", "openuss"),
    "the name as a host": ("http://openuss/new?a=1", "openuss"),
    "the name as a host with its port": ("http://OPENUSS:80/new?a=1", "openuss"),
    "without a scheme": ("//openuss/new?a=1", "openuss"),
    "another name": ("gns://other/new?a=1", "other"),
    "another name without a scheme": ("//other/new?a=1", "other"),
    "its own address": ("http://127.0.0.1:PORT/new?a=1", "127.0.0.1:PORT"),
}


@pytest.mark.parametrize("case", REDIRECTS)
@pytest.mark.parametrize("status", [302, 307])
def test_redirects_lead_where_those_of_a_host_lead(town: Town, kind: str, case: str, status: int) -> None:
    """Method and body stay with 307. Credentials stay with the name; another host does not get them."""
    location, host = REDIRECTS[case]
    site, other = town.site(redirect(location, status)), town.site()
    town.order(site.row)
    town.order(other.row, name="other")
    asked: dict[str, Any] = {"content": b"body", "headers": {"Authorization": "Basic eA=="}, "timeout": 3}
    assert ask(kind, town, "POST", "gns://openuss/old", **asked).text == "ok"
    last = other if host == "other" else site
    method = "POST" if status == 307 else "GET"
    assert last.lines()[-1] == f"{method} /new?a=1"
    assert last.header("Host") == [host.replace("PORT", str(site.port))]
    assert last.header("Authorization") == (["Basic eA=="] if host == "openuss" else [])
    assert last.asked[-1].endswith(b"body") == (status == 307)


@pytest.mark.parametrize(
    ("url", "reference", "expected"),
    [
        ("gns://a.b/x/y", "z", "gns://a.b/x/z"),
        ("gns://a.b/x/y", "../z", "gns://a.b/z"),
        ("gns://a.b/x/y?q", "?r", "gns://a.b/x/y?r"),
        ("gns://a.b/x", "https://a.b/z", "gns+https://a.b/z"),
        ("gns+https://a.b/x", "https://a.b:443/z", "gns+https://a.b/z"),
        ("gns+https://a.b/x", "http://a.b/z", "gns://a.b/z"),
        ("gns://a.b/x", "http://a.b:8080/z", "http://a.b:8080/z"),
        ("gns://a.b/x", "http://me@a.b/z", "http://me@a.b/z"),
        ("gns://a.b/x", "http://c.b/z", "http://c.b/z"),
        ("gns://me:secret@a.b/x", "http://a.b/z", "gns://a.b/z"),
    ],
)
def test_references(url: str, reference: str, expected: str) -> None:
    assert resolve_reference(url, reference) == expected


# Cookies ----------------------------------------------------------------------------------------------------


def test_cookies_are_the_name_s_not_the_address_s(town: Town, kind: str) -> None:
    """The other listener of the name has them, another name at the same address has not."""

    def script(site: Site, request: bytes) -> bytes:
        return HEAD + b"2\r\nSet-Cookie: a=1\r\nSet-Cookie: s=2; Secure\r\nConnection: close\r\n\r\nok"

    first, second = town.site(script), town.site(script)
    town.order(first.row)
    town.order(first.row, name="other")

    def run(get: Callable[[str], Any]) -> None:
        response = get("gns://openuss/")
        assert dict(response.cookies) == {"a": "1", "s": "2"}
        town.order(second.row)
        get("gns://openuss/")
        get("gns://other/")

    if kind == "asyncio":
        asyncio.run(cookies_on_asyncio(town, second))
    else:
        used = client.Client(api=town.api.place)
        with Session(used) if kind == "requests" else httpx.Client(mounts=mounts(used)) as web:
            run(web.get)
    assert (second.header("Cookie"), first.header("Cookie")) == (["a=1"], [])


async def cookies_on_asyncio(town: Town, second: Site) -> None:
    async with (
        compass.client.asyncio.Client(api=town.api.place) as used,
        httpx.AsyncClient(mounts=async_mounts(used)) as web,
    ):
        await web.get("gns://openuss/")
        town.order(second.row)
        await web.get("gns://openuss/")
        await web.get("gns://other/")


def test_cookies_marked_secure_are_sent_over_tls(town: Town, kind: str, tmp_path: Path) -> None:
    """Both are sent with the first request, and after a redirect; never over gns://."""
    now = datetime.now(UTC)
    authority = create_authority("tests", now)
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    files = write_credentials(tmp_path, "site", issue(authority, "server", "openuss", [], now))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.certificate, files.key)

    def script(site: Site, request: bytes) -> bytes:
        head = b"302 .\r\nLocation: /new" if b" /old" in request else b"200 OK"
        cookies = b"Set-Cookie: a=1\r\nSet-Cookie: s=2; Secure\r\n"
        return b"HTTP/1.1 " + head + b"\r\n" + cookies + b"Content-Length: 0\r\nConnection: close\r\n\r\n"

    secure, plain = Site(script, tls), town.site()
    town.sites.append(secure)
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))

    def run(get: Callable[..., Any], **more: Any) -> None:
        town.order(secure.row)
        get("gns+https://openuss/old", **more)
        get("gns+https://openuss/", **more)
        town.order(plain.row)
        get("gns://openuss/")

    async def run_on_asyncio() -> None:
        async with compass.client.asyncio.Client(api=town.api.place) as used:
            transport = AsyncTransport(used, through=httpx.AsyncHTTPTransport(verify=trust))
            both = {"gns+https://": transport, "gns://": AsyncTransport(used)}
            async with httpx.AsyncClient(mounts=both, follow_redirects=True) as web:
                town.order(secure.row)
                await web.get("gns+https://openuss/old")
                await web.get("gns+https://openuss/")
                town.order(plain.row)
                await web.get("gns://openuss/")

    used = client.Client(api=town.api.place)
    if kind == "asyncio":
        asyncio.run(run_on_asyncio())
    elif kind == "httpx":
        transports = {
            "gns+https://": Transport(used, through=httpx.HTTPTransport(verify=trust)),
            "gns://": Transport(used),
        }
        with httpx.Client(mounts=transports, follow_redirects=True) as web:
            run(web.get)
    else:
        with Session(used) as session:
            run(session.get, verify=str(tmp_path / "ca.crt"))
    found = [secure.header("Cookie", at) for at in range(3)]
    assert (found, plain.header("Cookie")) == ([[], ["a=1", "s=2"], ["a=1", "s=2"]], ["a=1"])

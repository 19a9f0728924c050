"""Pages of other sites at the server's HTTPS port: what a browser says of where a request comes from, on every path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ServerEndpoint

from compass.console import pages
from compass.gateway.http.request import BODY_MAX, SAFE_HEADERS
from compass.gateway.server_api import routes
from compass.model.names import matches_host_name
from compass.model.requests import Apply
from tests.gateway.server_api.test_routes import Api, NoCertificates, server_api
from tests.support.reactor_thread import ReactorThread

__all__ = ["server_api"]
PATHS = ("/v1/status", "/v1/events", "/healthz", "/openapi.json", "/", "/console/", "/console/api.js", "/nothing")
NAMES = ("gns1.example.net", "*.gns.example.org")


class NamedApi(Api):
    """The site with the console, for a server that knows its names."""

    def __init__(self, thread: ReactorThread) -> None:
        super().__init__(thread)
        site = routes.site(self.server, thread.reactor, NoCertificates(), pages.routes(), names=NAMES)
        endpoint = TCP4ServerEndpoint(thread.reactor, 0, interface="127.0.0.1")
        self.named = thread.call(endpoint.listen, site)
        self.port = self.named.getHost().port


@pytest.fixture
def named(thread: ReactorThread) -> Iterator[NamedApi]:
    """Serve the API under its names."""
    api = NamedApi(thread)
    yield api
    for port in (api.named, api.listening):
        thread.call(port.stopListening)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none, cross-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Host": "a.b.gns.example.org"},
        {"Host": "gns1.example.net.evil.example:4864"},
    ],
    ids=str,
)
def test_no_path_is_for_pages_of_other_sites(named: NamedApi, path: str, headers: dict[str, str]) -> None:
    """The refusal is JSON with the headers of every answer, and the server is not asked."""
    response = named.open("GET", path, **headers)
    assert response.status == 403 and json.loads(response.read())["code"] == "forbidden"
    assert {name: response.getheader(name) for name in SAFE_HEADERS} == SAFE_HEADERS
    assert named.server.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Host": "GNS1.example.net:4864", "Origin": "https://GNS1.example.net:4864"},
        {"Host": "a.gns.example.org"},
        {"Host": "192.0.2.1:4864"},
        {"Host": "[2001:db8::1]"},
    ],
    ids=str,
)
def test_programs_and_the_console_are_answered(named: NamedApi, headers: dict[str, str]) -> None:
    """Programs send none of the headers; the console's page is of this origin; addresses are not rebound."""
    for path in ("/healthz", "/console/"):
        response = named.open("GET", path, **headers)
        assert response.status == 200
        assert {name: response.getheader(name) for name in SAFE_HEADERS} == SAFE_HEADERS


def test_a_link_of_another_site_leads_to_the_console_only(named: NamedApi) -> None:
    """A user may follow a link to the page, which cannot be framed; the API is not shown that way."""
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert named.open("GET", "/console/", **link).status == 200
    assert named.open("GET", "/", **link).status == 308
    for method, path in (("GET", "/v1/status"), ("GET", "/console/api.js"), ("POST", "/console/")):
        assert named.open(method, path, **link).status == 403


@pytest.mark.parametrize("status", ["401", "404", "405", "413", "415", "503", "400", "304"])
def test_every_answer_has_the_safe_headers(named: NamedApi, status: str) -> None:
    """Refusals of each layer and an answer without a body have them, too."""
    tag = named.open("GET", "/openapi.json").getheader("ETag")
    named.server.is_ready = False
    cases: dict[str, tuple[Any, ...]] = {
        "401": ("GET", "/v1/status", None, {"Authorization": "Bearer wrong"}),
        "404": ("GET", "/nothing", None, {}),
        "405": ("POST", "/v1/status", {}, {}),
        "413": ("POST", "/v1/put", "x" * routes.TOPOLOGY_MAX, {}),
        "415": ("POST", "/v1/put", {}, {"Content-Type": "text/plain"}),
        "503": ("GET", "/readyz", None, {}),
        "400": ("GET", "/v1/status?x=1", None, {}),
        "304": ("GET", "/openapi.json", None, {"If-None-Match": tag}),
    }
    method, path, body, headers = cases[status]
    response = named.open(method, path, body, **headers)
    assert response.status == int(status)
    assert {name: response.getheader(name) for name in SAFE_HEADERS} == SAFE_HEADERS


def test_the_right_comes_before_the_body(server_api: Api) -> None:
    """A request that the caller may not make is not even parsed, nor read beyond what any request may have."""
    server_api.server.may = {Apply}
    assert server_api.open("POST", "/v1/put", {"nonsense": 1}).status == 403
    assert server_api.open("POST", "/v1/put", {"x": "x" * BODY_MAX}).status == 403
    assert server_api.open("POST", "/v1/apply", {"nonsense": "x" * BODY_MAX}).status == 400
    assert server_api.server.asked == []


@pytest.mark.parametrize(
    ("host", "pattern", "matches"),
    [
        ("gns1", "GNS1", True),
        ("a.example.org", "*.example.org", True),
        ("a.b.example.org", "*.example.org", False),
        ("example.org", "*.example.org", False),
        (".example.org", "*.example.org", False),
        ("a", "*", False),
    ],
)
def test_names_with_a_wildcard(host: str, pattern: str, matches: bool) -> None:
    """An asterisk stands for one whole label, the first."""
    assert matches_host_name(host, pattern) is matches

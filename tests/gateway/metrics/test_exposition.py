"""Metrics over real sockets, in front of fake daemons: formats, access, and scrapers that hang."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any, cast, get_args

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text_004
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.names import dns
from twisted.python.failure import Failure

from compass.agent.metrics import AgentMetrics
from compass.gateway.dns.rcodes import RCODES, rcode_of
from compass.gateway.host_api import operations
from compass.gateway.http import channel as http_ground
from compass.gateway.metrics import exposition
from compass.gateway.metrics.exposition import ACCEPT_OCTETS_MAX, KEPT_SECONDS, GatewayMetrics, Metrics, Snapshot
from compass.gateway.server_api import routes
from compass.model.metrics import MetricSpec, Registry, specs_of
from compass.model.replies import CODES, Refusal
from compass.model.rows import State
from compass.server.metrics import ServerMetrics
from tests.gateway.server_api.test_routes import NoCertificates
from tests.gateway.server_api.test_routes import Told as ToldServer
from tests.support.reactor_thread import ReactorThread

SERVER, HOST = "opengns_server_", "opengns_host_"
OPENMETRICS = "application/openmetrics-text; version=1.0.0, text/plain; q=0.5"
TALLY = ServerMetrics(ready=True, store_reachable=False, listeners={"up": 3, "down": 1})
HOST_TALLY = AgentMetrics(
    loaded=False,
    revision=0,
    view_age_seconds=None,
    session="waiting",
    sessions_opened=0,
    servers={},
    servers_known={},
    services=0,
    listeners=0,
    services_unanswered=0,
    state_unwritten=0,
    registrations={},
    lookups={},
    notices={},
    snapshots=0,
    cache_writes={},
    reports={},
    suspicions={},
    reactions={("hook", "failed"): 2},
    reactions_failing=1,
    watchers=0,
)


class Api:
    """Server site with metrics."""

    def __init__(self, thread: ReactorThread, *, is_open: bool) -> None:
        self.server = ToldServer()
        self.thread = thread
        self.metrics = Metrics(thread.reactor, {"version": "1"}, Snapshot(ServerMetrics, SERVER, lambda: TALLY))
        self.site = routes.site(
            self.server, thread.reactor, NoCertificates(), metrics=self.metrics, metrics_are_open=is_open
        )
        endpoint = TCP4ServerEndpoint(thread.reactor, 0, interface="127.0.0.1")
        self.listening = thread.call(endpoint.listen, self.site)
        self.port = self.listening.getHost().port

    def get(self, path: str = "/metrics", **headers: str | bytes) -> tuple[int, str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type") or "", response.read().decode()


@pytest.fixture(params=[False, True], ids=["known", "open"])
def scraped(thread: ReactorThread, request: Any) -> Iterator[Api]:
    api = Api(thread, is_open=request.param)
    yield api
    thread.call(api.listening.stopListening)


@pytest.fixture
def for_all(thread: ReactorThread) -> Iterator[Api]:
    api = Api(thread, is_open=True)
    yield api
    thread.call(api.listening.stopListening)


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the samples by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_004(text)
        for sample in family.samples
    }


def test_who_may_read_them(scraped: Api, request: pytest.FixtureRequest) -> None:
    """Callers that may read the server's status may read metrics; every caller, if the configuration says so."""
    is_open = request.node.callspec.params["scraped"]
    assert scraped.get()[0] == (200 if is_open else 401)
    assert scraped.get(Authorization="Bearer good")[0] == 200
    scraped.server.answer = Refusal("forbidden", "that needs the role admin or viewer")
    status, _, body = scraped.get(Authorization="Bearer good")
    assert (status, "needs the role" in body) == ((200, False) if is_open else (403, True))


def test_a_scraper_gets_the_format_that_it_asks_for(for_all: Api) -> None:
    """Text 0.0.4 is the default, OpenMetrics is sent on request; both contain the same."""
    status, media, text = for_all.get()
    assert status == 200 and media.startswith("text/plain; version=0.0.4")
    assert values(text)["opengns_server_listeners", (("state", "up"),)] == 3.0
    _, media, other = for_all.get(Accept=OPENMETRICS)
    assert media.startswith("application/openmetrics-text; version=1.0.0")
    one, two = ([family.name for family in parsed] for parsed in (text_004(text), cast(Any, openmetrics)(other)))
    own = [name for name in one if name.startswith("opengns_server")]
    assert own == [name for name in two if name.startswith("opengns_server")] != []


@pytest.mark.parametrize(
    "accept",
    [
        "",
        ";;;q",
        "*/*;q=zebra",
        "application/openmetrics-text;version=99",
        "application/openmetrics-text;version=1.zero",
        "text/plain;version=latest",
        'text/plain;version="1.0.0"',
        "text/plain;version=1.0.0;version=",
        "text/plain;version=\u00b9",
        "text/plain;q=0",
        "x" * 5_000,
    ],
)
def test_whatever_is_accepted_gets_something(for_all: Api, accept: str) -> None:
    """An invalid header, or one for an unknown version, causes no failure."""
    status, media, text = for_all.get(Accept=accept.encode())
    assert status == 200 and media == "text/plain; version=0.0.4; charset=utf-8"
    assert "opengns_server_ready" in text


def test_an_offer_that_cannot_be_used_leaves_the_others(for_all: Api) -> None:
    """Prometheus sends several, the newest first."""
    accept = "application/openmetrics-text;version=2.0.0,text/plain;version=x, application/openmetrics-text;q=0.3"
    assert for_all.get(Accept=accept)[1].startswith("application/openmetrics-text; version=1.0.0")


def test_the_longest_header_that_is_read(for_all: Api) -> None:
    """A header of the greatest length is obeyed, one octet more is not."""
    padded = f"{OPENMETRICS}, ".ljust(ACCEPT_OCTETS_MAX - 1) + "x"
    assert len(padded) == ACCEPT_OCTETS_MAX
    assert for_all.get(Accept=padded)[1].startswith("application/openmetrics-text")
    assert for_all.get(Accept=f"{padded}x")[1].startswith("text/plain")


def test_requests_are_counted_by_operation_and_status(for_all: Api) -> None:
    """All unknown paths are counted under one name: callers cannot create series."""
    for path in ("/healthz", "/v1/status", "/a", "/b/c"):
        for_all.get(path)
    counts = for_all.metrics.gateways.http_requests.values
    assert counts["/healthz", "200"] == counts["/v1/status", "401"] == 1
    assert counts["none", "404"] == 2 and len(counts) == 3
    with socket.create_connection(("127.0.0.1", for_all.port), 10) as client:
        client.sendall(b"POST /v1/put HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413")
    with socket.create_connection(("127.0.0.1", for_all.port), 10) as client:
        client.sendall(b"GET /%FF HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400")
    assert counts["none", "413"] == counts["none", "400"] == 1


def test_a_flood_of_scrapes_costs_one() -> None:
    """The same text is sent for a second."""
    asked: list[int] = []
    clock = Clock()

    def tally() -> ServerMetrics:
        asked.append(1)
        return TALLY

    told = Metrics(clock, {}, Snapshot(ServerMetrics, SERVER, tally))
    assert told.text("")[0] == told.text("*/*")[0] and len(asked) == 1
    clock.advance(KEPT_SECONDS * 0.99)
    told.text("")
    assert len(asked) == 1
    clock.advance(KEPT_SECONDS * 0.02)
    told.text("")
    assert len(asked) == 2
    for number in range(50):
        told.text(f"text/plain;version=1.{number}.0" if number % 2 else f"{OPENMETRICS};q=0.{number}")
    assert len(asked) == 3


def test_a_scraper_that_does_not_read_holds_nobody_up(for_all: Api) -> None:
    """A client that sends requests and reads nothing is disconnected once the kernel's buffers are full."""
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000
    with socket.create_connection(("127.0.0.1", for_all.port), 10) as client, pytest.raises(ConnectionError):
        while True:
            client.send(asked)
    answered = for_all.metrics.gateways.http_requests.values["/openapi.json", "200"]
    # Twice what Linux keeps for a loopback connection, in answers of 60 kB.
    assert 0 < answered < 500
    assert for_all.get()[0] == 200


@pytest.mark.parametrize("half", [b"", b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_scraper_that_hangs_is_let_go(for_all: Api, half: bytes) -> None:
    """A client that hangs before, within or after its request is disconnected."""
    for_all.site.timeOut = 0.2
    with socket.create_connection(("127.0.0.1", for_all.port), 10) as client:
        client.sendall(half)
        client.settimeout(10)
        began = time.monotonic()
        while client.recv(65536):
            assert time.monotonic() - began < 10


def test_the_host_answers_the_same_way(thread: ReactorThread) -> None:
    """Unknown values are absent; every state of the session is present, as 0 or 1."""
    told = Metrics(thread.reactor, {}, Snapshot(AgentMetrics, HOST, lambda: HOST_TALLY))
    found = values(told.text("")[0].decode())
    assert not any(name == "opengns_host_view_age_seconds" for name, _ in found)
    assert found["opengns_host_session", (("state", "waiting"),)] == 1.0
    assert found["opengns_host_session", (("state", "open"),)] == 0.0
    assert found["opengns_host_reactions_total", (("kind", "hook"), ("result", "failed"))] == 2.0
    assert any(operation.path == "/metrics" for operation in operations.OPERATIONS)


def specs_of_both() -> list[MetricSpec]:
    """Return the metrics of both daemons, each once."""
    registry = Registry()
    GatewayMetrics(registry)
    return [*specs_of(ServerMetrics, SERVER).values(), *specs_of(AgentMetrics, HOST).values(), *registry.specs]


def test_names_are_those_that_prometheus_advises() -> None:
    """Names are unique, in base units, without the ending that the text adds; help ends as a sentence."""
    specs = specs_of_both()
    names = [spec.name for spec in specs]
    assert len(names) == len(set(names))
    for spec in specs:
        assert spec.name.startswith(("opengns_server_", "opengns_host_", "opengns_http_", "opengns_dns_"))
        assert not spec.name.endswith(("_total", "_count", "_sum", "_bucket", "_milliseconds", "_octets"))
        assert spec.about.endswith((".", "…"))
        assert not {"service", "host", "listener", "address"} & set(spec.labels)
        assert not spec.known or len(spec.labels) == 1


def test_every_code_has_its_line_before_it_is_seen() -> None:
    """States and refusals are present with 0 from the start: a rate needs a beginning."""
    found = values(Metrics(Clock(), {}, Snapshot(ServerMetrics, SERVER, lambda: TALLY)).text("")[0].decode())
    assert {dict(labels)["code"] for name, labels in found if name == "opengns_server_refusals_total"} == set(CODES)
    states = {dict(labels)["state"] for name, labels in found if name == "opengns_server_listeners"}
    assert states == {*get_args(State), "died"}


def test_codes_of_dns_have_names() -> None:
    """The rcodes of refusals and of invalid queries have names; another one is counted as such."""
    assert {rcode_of(code) for code in CODES} <= set(RCODES) and RCODES[dns.OK] == "NOERROR"
    metrics = Metrics(Clock(), {}, Snapshot(ServerMetrics, SERVER, lambda: TALLY))
    metrics.gateways.dns_answers.add("NOERROR", 5)
    metrics.gateways.dns_answers.add("other")
    found = values(metrics.text("")[0].decode())
    assert found["opengns_dns_answers_total", (("rcode", "NOERROR"),)] == 5.0
    assert found["opengns_dns_answers_total", (("rcode", "other"),)] == 1.0


def test_nothing_is_global() -> None:
    """Two daemons in one process have two registries; the library's own registry has none of our metrics."""
    assert not hasattr(exposition, "REGISTRY")
    one, other = (Metrics(Clock(), {"version": str(n)}, Snapshot(ServerMetrics, SERVER, lambda: TALLY)) for n in (1, 2))
    assert b'version="1"' in one.text("")[0] and b'version="2"' in other.text("")[0]


def test_health_has_one_shape(api: Any) -> None:
    """The host's health has the same form as the server's."""
    assert json.loads(json.dumps(api.ask("GET", "/healthz"))) == [200, {"status": "running", "store": "available"}]
    assert api.ask("GET", "/readyz") == (200, {"status": "ready", "store": "available"})


def test_what_a_peer_may_leave_unread() -> None:
    """A limited number of requests is answered while the peer reads nothing; the count restarts when it reads."""
    channel: Any = cast(Any, http_ground._Channel)()
    channel.makeConnection(StringTransport())
    assert not any(channel.has_unread() for _ in range(2 * http_ground.UNREAD_ANSWERS_MAX))
    for _ in range(2):
        channel.pauseProducing()
        assert not any(channel.has_unread() for _ in range(http_ground.UNREAD_ANSWERS_MAX))
        assert channel.has_unread()
        channel.resumeProducing()
    channel.connectionLost(Failure(ConnectionDone()))

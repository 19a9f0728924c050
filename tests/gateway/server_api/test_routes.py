"""HTTP API of the server, over real sockets in front of a fake server; without TLS, by token only."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from threading import Event as Flag
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint

from compass.gateway.http import schemas, sse
from compass.gateway.http.status_codes import STATUS
from compass.gateway.server_api import operations, routes
from compass.model.cluster import HostSession, HostSessions
from compass.model.host_api import Condition
from compass.model.replies import CODES, Certified, FeedEvent, Position, Refusal, Rows
from compass.model.requests import Fetch, Findings, Join, Watch
from compass.model.rows import AuthorityInfo
from compass.model.rules.decide import ROLES
from compass.model.rules.draft import Principal
from compass.wire import limits
from tests.support.fake_host_api import CHANGE
from tests.support.reactor_thread import ReactorThread

ADMIN = Principal("admin", "ci.gns-admin", "127.0.0.1")


class Told:
    """Fake server that returns the prepared answer, and knows one token."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Any = None
        self.token = "good"
        self.may: set[Any] | None = None
        """Requests that the caller may make; None: all."""
        self.is_ready = True
        self.store_answers = True
        self.certificates: Condition = "valid"
        self.deliver: Callable[[FeedEvent], None] = lambda event: None
        self.stopped = Flag()

    def ready(self) -> tuple[str, int] | None:
        return ("st", 7) if self.is_ready else None

    def bearer(self, token: str, origin: str) -> Principal | Refusal:
        return ADMIN if token == self.token else Refusal("bad-credential", "nobody's")

    def turned_away(self, name: str, origin: str, why: str) -> None:
        self.asked.append(("turned away", name, why))

    def authority(self) -> AuthorityInfo | Refusal:
        return AuthorityInfo("PEM", "store", 1.5)

    def join(self, request: Join, origin: str) -> Deferred[Any]:
        self.asked.append((request, origin))
        return succeed(Certified("PEM of the host", "PEM"))

    def may_ask(self, asker: Principal, kind: Any) -> Refusal | None:
        return None if self.may is None or kind in self.may else Refusal("forbidden", "only some")

    def may_look(self, asker: Principal) -> Refusal | None:
        return self.answer if isinstance(self.answer, Refusal) else None

    def ask_as(self, asker: Principal, request: Any) -> Deferred[Any]:
        self.asked.append((asker, request))
        return succeed(self.answer)

    def follow(self, asker: Principal, since: int | None, deliver: Callable[[FeedEvent], None]) -> Any:
        self.asked.append((asker, since))
        if isinstance(self.answer, Refusal):
            return self.answer
        self.deliver = deliver
        deliver(Position("st", 7, complete=True))
        return self.stopped.set

    def follow_hosts(self, asker: Principal, deliver: Callable[[HostSessions], None]) -> Any:
        self.asked.append((asker, "sessions"))
        if isinstance(self.answer, Refusal):
            return self.answer
        deliver(HostSessions(7, (HostSession("web1", "open", "gns1", 1.5, "192.0.2.1"),), complete=True))
        return self.stopped.set


class NoCertificates:
    """Connections whose peers have no usable certificate."""

    def identify(self, transport: Any) -> tuple[str, str, str]:
        return "", "", "none"


class Api:
    """Fake server with the site in front of it, and a client."""

    def __init__(self, thread: ReactorThread) -> None:
        self.server = Told()
        self.thread = thread
        site = routes.site(self.server, thread.reactor, NoCertificates())
        endpoint = TCP4ServerEndpoint(thread.reactor, 0, interface="127.0.0.1")
        self.listening = thread.call(endpoint.listen, site)
        self.port = self.listening.getHost().port

    def open(self, method: str, path: str, body: Any = None, **headers: str | bytes) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        sent = {"Authorization": "Bearer good", "Content-Type": "application/json", **headers}
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        return connection.getresponse()


@pytest.fixture
def server_api(thread: ReactorThread) -> Iterator[Api]:
    api = Api(thread)
    yield api
    thread.call(api.listening.stopListening)


def test_everything_an_administrator_may_ask_has_its_path() -> None:
    """Every request of the protocol has an operation, except those of hosts' sessions."""
    may = {request for request, roles in ROLES.items() if roles & {"admin", "viewer"}}
    offered = {operation.asks for operation in operations.ASKED}
    # A report is weighed by the desk itself before it is decided.
    assert {request for request in may if request.__name__ != "WeighedReport"} == offered
    assert not {Watch, Findings} & offered


def test_the_document_says_what_the_rules_say() -> None:
    """Repeated limits are those of the protocol; every reference resolves; each operation has a unique id."""
    assert routes.TOPOLOGY_MAX == limits.FRAME_MAX_FROM_ADMIN
    document = json.loads(json.dumps(operations.server_document()))
    names = set(document["components"]["schemas"])
    assert set(schemas.referred(document)) <= names and {"Position", "Change"} <= names
    written = [one for path in document["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in written}) == len(written)
    assert [path for path, one in document["paths"].items() if one.get("get", {}).get("security") == []] == [
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/v1/join",
    ]


@pytest.mark.parametrize("code", CODES)
def test_every_refusal_has_its_status(server_api: Api, code: Any) -> None:
    """Each refusal has its status, as on the host."""
    server_api.server.answer = Refusal(code, "why", retry_after_seconds=2.0)
    response = server_api.open("GET", "/v1/status")
    assert response.status == STATUS[code] and response.getheader("Retry-After") == "2"
    assert json.loads(response.read())["code"] == code


def test_a_host_without_a_certificate_reads_the_authority_and_joins(server_api: Api) -> None:
    """Without a token in the header; the request has its origin, and what it misses is refused."""
    anonymous = {"Authorization": "Basic ignored"}
    read = server_api.open("GET", "/v1/join", **anonymous)
    assert read.status == 200 and json.loads(read.read()) == {"authority": "PEM", "store": "store", "time": 1.5}
    joined = server_api.open("POST", "/v1/join", {"token": "secret", "request": "MIG1"}, **anonymous)
    assert joined.status == 200 and json.loads(joined.read())["certificate"] == "PEM of the host"
    assert server_api.server.asked == [(Join("secret", bytes.fromhex("3081b5")), "127.0.0.1")]
    assert server_api.open("POST", "/v1/join", {"token": "secret"}, **anonymous).status == 400


def test_questions_become_messages(server_api: Api) -> None:
    """Path, query and body are the fields of the message; an unknown field is refused with its place."""
    server_api.server.answer = Rows(7, (), 0)
    assert server_api.open("GET", "/v1/listeners?within=openuss&state=down&limit=5").status == 200
    assert server_api.server.asked == [(ADMIN, Fetch("listener", "openuss", "", "down", 5, pages=True))]
    for body, said in (
        ({"row": {"row": "category", "name": "x", "policy": {"pobe": "tcp"}}}, "`pobe` - at `$.row.policy`"),
        ({"row": {"row": "planet", "name": "x"}}, "$.row"),
        ({"row": {"row": "category", "name": 3}}, "$.row.name"),
        ({"type": "remove", "row": {"row": "category", "name": "x"}}, "$.type"),
    ):
        response = server_api.open("POST", "/v1/put", body)
        assert response.status == 400 and said in json.loads(response.read())["message"]
    response = server_api.open("POST", "/v1/apply", {"rows": [{"row": "service", "id": "a.b"}, {"row": "service"}]})
    assert "$.rows[1]" in json.loads(response.read())["message"]
    assert len(server_api.server.asked) == 1


@pytest.mark.parametrize(
    "declared", [b"application/jso\xed\x85\xbfn", b"multipart/form-data; boundary=", b"text/plain"]
)
def test_media_types_that_cannot_be_read(server_api: Api, declared: Any) -> None:
    """Only the API reads media types: another type than JSON is refused, and nothing fails."""
    body = {"servers": [{"address": "10.0.0.1", "port": 4867}], "seconds": 1.0}
    for path in ("/v1/steer", "/v1/put"):
        response = server_api.open("POST", path, body, **{"Content-Type": declared})
        assert response.status == 415
        assert "application/json" in json.loads(response.read())["message"]
    assert server_api.server.asked == []


def test_health_and_readiness(server_api: Api) -> None:
    """P5: a server without a loaded catalogue is alive but not ready; an unavailable store is reported."""
    server_api.server.is_ready, server_api.server.store_answers = False, False
    assert json.loads(server_api.open("GET", "/healthz").read()) == {"status": "running", "store": "away"}
    response = server_api.open("GET", "/readyz")
    assert response.status == 503 and response.getheader("Retry-After") == "1"
    assert server_api.open("HEAD", "/readyz").status == 503


def test_a_fault_inside_is_told_in_json(server_api: Api) -> None:
    """The log has the traceback."""
    server_api.server.answer = object()
    response = server_api.open("GET", "/v1/status")
    assert response.status == 500 and response.getheader("Content-Type") == "application/json"
    assert "its log has the details" in json.loads(response.read())["message"]


def test_a_stream_ends_when_its_token_is_removed(server_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """P11: access is checked again at each heartbeat."""
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    response = server_api.open("GET", "/v1/events?since=3")
    assert response.readline() == b"id: 7\n" and server_api.server.asked == [(ADMIN, 3)]
    server_api.thread.call(server_api.server.deliver, CHANGE)
    lines = [response.readline() for _ in range(7)]
    assert b"event: change\n" in lines
    server_api.server.token = "another"
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    assert server_api.server.stopped.wait(10)


def test_who_may_not_follow_is_told_so(server_api: Api) -> None:
    """The refusal is JSON, with its status."""
    server_api.server.answer = Refusal("forbidden", "no")
    assert server_api.open("GET", "/v1/events").status == 403


def test_targets_of_a_category_that_there_is_not(server_api: Api) -> None:
    """P5: refusals are passed on, none becomes an empty list."""
    server_api.server.answer = Refusal("not-ready", "no", 1.0)
    assert server_api.open("GET", "/v1/prometheus/openuss").status == 503
    server_api.server.answer = Rows(7, (), 0)
    response = server_api.open("GET", "/v1/prometheus/OpenUSS")
    assert response.status == 404 and msgspec.json.decode(response.read())["code"] == "unknown-category"
    assert server_api.server.asked[-1] == (ADMIN, Fetch("category", name="openuss"))


def test_the_sessions_of_hosts_are_a_stream(server_api: Api) -> None:
    """A1: the first event has all; a caller without the right gets the refusal."""
    response = server_api.open("GET", "/v1/hosts/sessions")
    lines = [response.readline() for _ in range(3)]
    assert lines[:2] == [b"id: 7\n", b"event: sessions\n"]
    assert json.loads(lines[2].removeprefix(b"data: "))["hosts"][0]["host"] == "web1"
    response.close()
    server_api.server.answer = Refusal("forbidden", "no")
    assert server_api.open("GET", "/v1/hosts/sessions").status == 403

"""HTTP API of the host, over real sockets with a real client, in front of a fake daemon."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred

from compass.gateway.host_api.operations import host_document
from compass.gateway.http import request as http_ground
from compass.gateway.http import sse
from compass.gateway.http.status_codes import STATUS
from compass.model.host_api import (
    LocalDeregister,
    LocalEvent,
    LocalRegister,
    LocalReport,
    Outcome,
    Resolved,
)
from compass.model.replies import CODES, Dependencies, Refusal
from compass.model.rows import Change
from tests.support.fake_host_api import CHANGE, LISTENER, Api


def test_lookups(api: Api) -> None:
    """Dependencies, resolve and status are JSON, and no cache keeps them."""
    api.daemon.answer = Dependencies("a.b", 7)
    assert api.ask("GET", "/v1/dependencies/a.b") == (200, {"type": "dependencies", "service": "a.b", "revision": 7})
    api.daemon.answer = Resolved("a.b", 7, "service", (LISTENER,))
    response = api.open("GET", "/v1/resolve/a.b")
    assert response.getheader("Cache-Control") == "no-store"
    assert json.loads(response.read())["listeners"][0]["port"] == 80
    assert api.ask("GET", "/v1/status")[1]["revision"] == 7
    assert api.daemon.asked == [("dependencies", "a.b"), ("resolve", "a.b")]


def test_wishes(api: Api) -> None:
    """Register, deregister and report pass the body on; pending is 202."""
    api.daemon.answer = Outcome("up", "a.b", "10.0.0.1", 80, 5, 7)
    body = {"service": "a.b", "port": 80, "credential": "t", "metadata": {"k": "v"}}
    status, answer = api.ask("POST", "/v1/register", body)
    assert (status, answer["epoch"]) == (200, 5)
    api.daemon.answer = Outcome("pending", "a.b", "10.0.0.1", 80, 5)
    assert api.ask("POST", "/v1/deregister", {"service": "a.b", "port": 80, "credential": "t"})[0] == 202
    assert api.ask("POST", "/v1/report", {"service": "a.b", "address": "10.0.0.1", "port": 80})[0] == 202
    assert api.daemon.asked == [
        (LocalRegister("a.b", 80, "t", metadata={"k": "v"}),),
        (LocalDeregister("a.b", 80, "t"),),
        (LocalReport("a.b", "10.0.0.1", 80),),
    ]


@pytest.mark.parametrize("code", CODES)
def test_every_refusal_has_a_status(api: Api, code: Any) -> None:
    """Each refusal of the daemon is an HTTP error with the refusal as its body."""
    api.daemon.answer = Refusal(code, "why", retry_after_seconds=2.0)
    response = api.open("GET", "/v1/resolve/a.b")
    assert response.status == STATUS[code] >= 400
    assert response.getheader("Retry-After") == "2"
    assert json.loads(response.read())["code"] == code


def test_what_there_is_not(api: Api) -> None:
    """Unknown paths and wrong methods are refused in JSON."""
    assert api.ask("GET", "/v2/nothing")[0] == 404
    response = api.open("DELETE", "/v1/status")
    assert response.status == 405 and "GET" in response.getheader("Allow")
    assert json.loads(response.read())["code"] == "unknown-message"


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"{", {"Content_Type": "application/json"}, 400, "openapi"),
        (b"\xff\xfe", {"Content_Type": "application/json"}, 400, "openapi"),
        (b"{}", {"Content_Type": "text/plain"}, 415, "application/json"),
        (b"{}", {}, 415, "application/json"),
        (b"{}", {"Content_Type": b"application/jso\xed\x85\xbfn"}, 415, "application/json"),
        (b"{}", {"Content_Type": "multipart/form-data; boundary="}, 415, "application/json"),
        (b"{}", {"Content_Type": "application/x-www-form-urlencoded"}, 415, "application/json"),
        ({"service": "a.b", "port": "80", "credential": ""}, {}, 400, "port"),
        ({"service": "a.b", "port": 80, "credential": "", "wieght": 3}, {}, 400, "wieght"),
        ({"service": "a.b", "port": 80}, {}, 400, "credential"),
    ],
)
def test_bodies_that_cannot_be_used(api: Api, body: Any, headers: Any, status: int, said: str) -> None:
    """The refusal names the mistake; the daemon is not called."""
    got, answer = api.ask("POST", "/v1/register", body, **headers)
    assert got == status and said in answer["message"]
    assert api.daemon.asked == []


@pytest.mark.parametrize("chunked", [False, True])
def test_the_longest_body(api: Api, chunked: bool) -> None:
    """An octet above the limit is refused, with and without an announced length."""
    api.daemon.answer = Outcome("up", "a.b", "10.0.0.1", 80, 5, 7)
    for size, status in ((http_ground.BODY_MAX, 200), (http_ground.BODY_MAX + 1, 413)):
        body = json.dumps({"service": "a.b", "port": 80, "credential": "t"}).encode()
        body += b" " * (size - len(body))
        connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
        content: Any = iter([body[:1000], body[1000:]]) if chunked else body
        connection.request(
            "POST", "/v1/register", content, {"Content-Type": "application/json"}, encode_chunked=chunked
        )
        response = connection.getresponse()
        assert response.status == status
        assert ("code" in json.loads(response.read())) == (status == 413)


def test_who_is_still_sending_a_body_that_is_too_long_gets_the_answer(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the body is discarded up to a limit; then the connection ends."""
    rest = 1024 * 1024
    monkeypatch.setattr(http_ground, "DISCARDED_MAX", rest - http_ground.BODY_MAX - 1)
    head = "POST /v1/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    for length, hears in ((http_ground.BODY_MAX + 1, True), (rest - 1, True), (8 * rest, False)):
        with socket.create_connection(("127.0.0.1", api.port), 10) as client:
            client.sendall(f"{head}{length}\r\n\r\n".encode())
            try:
                for _ in range(-(-length // 65536)):
                    client.sendall(b" " * min(65536, length))
                answer = b"".join(iter(lambda: client.recv(65536), b""))
            except ConnectionError:
                assert not hears
            else:
                assert answer.startswith(b"HTTP/1.1 413") and answer.count(b"HTTP/1.1") == 1
    assert api.daemon.asked == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:4866"}, 200),
        ({"Host": "127.0.0.11:4866"}, 200),
        ({"Host": "[::1]:4866"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "10.0.0.1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 403),
    ],
)
def test_web_pages_are_kept_out(api: Api, headers: dict[str, str], status: int) -> None:
    """Requests that a web page made a browser send are recognised by Origin or Host."""
    assert api.ask("GET", "/v1/status", **headers)[0] == status


def test_the_unix_socket(api: Api) -> None:
    """The Unix socket serves the same API; the Host header does not matter there, since browsers cannot connect."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(api.unix))
        client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200") and b'"revision":7' in answer


def event(response: Any) -> dict[str, str]:
    lines = iter(lambda: response.readline().decode().rstrip("\n"), "")
    return dict(line.split(": ", 1) for line in lines)


def test_watching(api: Api) -> None:
    """Events carry the revision as id; the watch ends when the client disconnects."""
    response = api.open("GET", "/v1/watch?service=a.b")
    assert response.getheader("Content-Type") == "text/event-stream"
    first = event(response)
    assert (first["id"], first["event"]) == ("7", "snapshot")
    api.thread.call(api.daemon.deliver, LocalEvent("change", 8, CHANGE))
    second = event(response)
    assert (second["id"], second["event"]) == ("8", "change")
    assert msgspec.json.decode(second["data"], type=Change) == CHANGE
    response.close()
    assert api.daemon.stopped.wait(10)
    assert api.daemon.asked == [("watch", "a.b", None)]


def test_watching_again(api: Api) -> None:
    """A stream resumes from `Last-Event-ID` or `since`; an invalid id counts as none."""
    api.open("GET", "/v1/watch?service=a.b", Last_Event_ID="12").close()
    api.open("GET", "/v1/watch?service=a.b&since=11").close()
    api.open("GET", "/v1/watch?service=a.b", Last_Event_ID="x").close()
    assert api.daemon.asked == [("watch", "a.b", 12), ("watch", "a.b", 11), ("watch", "a.b", None)]
    assert api.ask("GET", "/v1/watch")[0] == 400
    api.daemon.answer = Refusal("unknown-service", "no")
    assert api.ask("GET", "/v1/watch?service=a.b")[0] == 404


def test_a_silent_stream_shows_that_it_lives(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Periodic comments keep a silent stream alive."""
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    response = api.open("GET", "/v1/watch?service=a.b")
    event(response)
    assert response.readline().startswith(b":") and response.readline() == b"\n"
    assert response.readline().startswith(b":")
    response.close()


def test_a_program_that_does_not_read_is_let_go(api: Api) -> None:
    """Waiting events are bounded; the client may resume from its last id."""
    response = api.open("GET", "/v1/watch?service=a.b")
    large = Change(8, 7, 1.0, "register", msgspec.structs.replace(LISTENER, cause="x" * 60_000))

    def flood() -> None:
        for _ in range(sse.EVENTS_HELD_MAX + 200):
            api.daemon.deliver(LocalEvent("change", 8, large))

    api.thread.call(flood)
    assert api.daemon.stopped.wait(10)
    response.close()


def test_a_held_registration(api: Api) -> None:
    """The answer is sent at once and the response stays open; its end ends the registration."""
    outcome = api.daemon.answer = Outcome("up", "a.b", "10.0.0.1", 80, 5, 7)
    response = api.open("POST", "/v1/register", {"service": "a.b", "port": 80, "credential": "t", "hold": True})
    assert json.loads(response.readline())["epoch"] == 5
    assert not api.daemon.left.is_set()
    response.close()
    assert api.daemon.left.wait(10)
    assert api.daemon.asked[-1] == ("released", outcome)


def test_a_held_registration_whose_program_left_early(api: Api) -> None:
    """A registration whose client has left is released as soon as it is made; a refusal needs no release."""
    waiting: Deferred[Any] = Deferred()
    api.daemon.answer = waiting
    body = {"service": "a.b", "port": 80, "credential": "t", "hold": True}
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    connection.request("POST", "/v1/register", json.dumps(body), {"Content-Type": "application/json"})
    while not api.daemon.asked:
        api.ask("GET", "/v1/status")
    connection.close()
    api.ask("GET", "/v1/status")
    api.thread.call(waiting.callback, Outcome("up", "a.b", "10.0.0.1", 80, 5, 7))
    assert api.daemon.left.wait(10)
    api.daemon.answer = Refusal("bad-credential", "no")
    assert api.ask("POST", "/v1/register", body)[0] == 403


def test_the_document_is_true(api: Api) -> None:
    """The OpenAPI document has every path, and every schema that it refers to."""
    status, served = api.ask("GET", "/openapi.json")
    assert status == 200 and served == json.loads(json.dumps(host_document()))
    assert served["openapi"].startswith("3.1")
    api.daemon.answer = Refusal("unknown-service", "no")
    for path, operations in served["paths"].items():
        for method in operations:
            got, _ = api.ask(method.upper(), path.replace("{service}", "a.b").replace("{name}", "a.b"))
            assert got in (200, 400, 404, 415), path
    names = set(served["components"]["schemas"])
    referred = {part.split('"')[0] for part in json.dumps(served).split("#/components/schemas/")[1:]}
    assert referred <= names

"""Deadlines of a request's head and body: a peer that sends slowly on purpose loses its connection."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from compass.gateway.http import channel
from compass.gateway.http.request import SAFE_HEADERS
from compass.model.host_api import Outcome
from tests.support.fake_host_api import Api

HEAD = b"POST /v1/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
QUESTION = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
SECONDS = 0.4


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both deadlines be short."""
    monkeypatch.setattr(channel, "HEAD_SECONDS", SECONDS)
    monkeypatch.setattr(channel, "BODY_SECONDS", SECONDS)


@pytest.fixture
def client(api: Api) -> Iterator[socket.socket]:
    """Connect to the host's API."""
    with socket.create_connection(("127.0.0.1", api.port), 10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client


def dribble(client: socket.socket, octets: bytes) -> tuple[bytes, float]:
    """Send one octet after another until the server closes the connection. Returns its answer, and when it came."""
    began = time.monotonic()
    client.settimeout(SECONDS / 8)
    for octet in octets:
        try:
            client.sendall(bytes([octet]))
            answer = client.recv(65536)
        except TimeoutError:
            continue
        except ConnectionError:
            return b"", time.monotonic() - began
        return answer, time.monotonic() - began
    raise AssertionError("the server waits for ever")


@pytest.mark.parametrize(
    ("before", "slow", "part"),
    [(b"", HEAD, "head"), (HEAD, b"x" * 50, "body"), (QUESTION, HEAD, "head")],
    ids=["head", "body", "head after an answer"],
)
def test_an_octet_from_time_to_time_gains_nothing(
    api: Api, client: socket.socket, before: bytes, slow: bytes, part: str
) -> None:
    """The deadline counts from the first octet; the answer says what was too slow, with the headers of every answer."""
    client.sendall(before)
    if before == QUESTION:
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    answer, seconds = dribble(client, slow)
    assert SECONDS * 0.8 < seconds < SECONDS * 3
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n") and f"the request's {part} did not".encode() in answer
    assert all(f"{name}: {value}\r\n".encode() in answer for name, value in SAFE_HEADERS.items())
    assert api.daemon.asked == []


def test_a_silent_connection_ends(client: socket.socket) -> None:
    """A new connection has to begin its request; one that was answered may be idle for longer."""
    assert client.recv(65536).startswith(b"HTTP/1.1 408") and client.recv(65536) == b""


def test_an_answered_connection_may_be_idle(client: socket.socket) -> None:
    """Programs keep connections open between requests, and use them again."""
    for _ in range(2):
        client.sendall(QUESTION)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        time.sleep(SECONDS * 1.5)


def test_a_request_that_is_answered_late_has_no_deadline(api: Api, client: socket.socket) -> None:
    """Held responses and streams stay open as long as both sides want."""
    api.daemon.answer = Outcome("up", "a.b", "10.0.0.1", 80, 5, 7)
    body = b'{"service":"a.b","port":80,"credential":"t","hold":true}'
    client.sendall(HEAD.replace(b"50", str(len(body)).encode()) + body)
    assert client.recv(65536).startswith(b"HTTP/1.1 200")
    time.sleep(SECONDS * 1.5)
    assert not api.daemon.left.is_set()


def test_what_is_not_http_is_refused_with_the_headers_of_every_answer(client: socket.socket) -> None:
    """A browser that was led here by another page learns nothing from the refusal either."""
    client.sendall(b"NONSENSE\r\n\r\n")
    answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert all(f"{name}: {value}\r\n".encode() in answer for name, value in SAFE_HEADERS.items())

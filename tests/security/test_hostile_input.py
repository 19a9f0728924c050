"""Input that fuzzers and the review found, each case by itself: sent by a peer, or left on a disk."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from compass.agent.registration.journal import RegistrationJournal
from compass.daemons.process.logging import text_line
from compass.gateway.host_api.routes import site
from compass.model.host_api import LocalRegister
from compass.model.limits import EPOCH_MAX
from compass.model.replies import Refusal, ServerStatus
from compass.model.requests import Put, Report, Status
from compass.model.rows import Category, Policy
from compass.server.sessions import rate_limit
from compass.wire import limits
from compass.wire.messages import InvalidMessage, decode_from_client
from tests.fuzz.http import critical
from tests.support.reactor_thread import ReactorThread
from tests.support.virtual_world import World

TOPOLOGY = {"web": ["portal.web", ">disk"], "disk": ["store.disk"]}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(1, tmp_path)


class Door:
    """The API of a simulated host behind real sockets."""

    def __init__(self, world: World, thread: ReactorThread, unix: Path) -> None:
        world.declare(TOPOLOGY)
        world.server()
        factory = site(world.host("web1").daemon, thread.reactor)
        endpoints = (
            TCP4ServerEndpoint(thread.reactor, 0, interface="127.0.0.1"),
            UNIXServerEndpoint(thread.reactor, str(unix)),
        )
        self.listening = [thread.call(endpoint.listen, factory) for endpoint in endpoints]
        self._unix = unix

    def ask(self, request: bytes, *, unix: bool = False) -> tuple[int, Any]:
        """Status and JSON of the answer to these octets."""
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as client:
            client.settimeout(10)
            client.connect(str(self._unix) if unix else ("127.0.0.1", self.listening[0].getHost().port))
            client.sendall(request)
            response = http.client.HTTPResponse(client)
            response.begin()
            return response.status, json.loads(response.read())


@pytest.fixture
def door(world: World, tmp_path: Path) -> Any:
    thread = ReactorThread()
    door = Door(world, thread, tmp_path / "api.sock")
    yield door
    for port in door.listening:
        thread.call(port.stopListening)
    thread.stop()


@pytest.mark.parametrize(
    "line",
    [
        b"Host: \xff",
        b"Content-Type: application/\xc0",
        b"Content-Type: a\x1cb",
        b"Origin: \xfe",
        b"Last-Event-ID: \xc3",
        "X: \u2028".encode(),
    ],
)
def test_headers_that_are_no_text_are_the_callers_mistake(door: Door, line: bytes) -> None:
    """Such numbers are refused as malformed, and nothing fails inside."""
    with critical() as found:
        for method in (b"GET", b"POST"):
            status, body = door.ask(method + b" /v1/status HTTP/1.1\r\nHost: localhost\r\n" + line + b"\r\n\r\n")
            assert (status, body["code"]) == (400, "malformed")
    assert not found


def test_a_path_that_is_no_text_is_the_callers_mistake(door: Door) -> None:
    """Likewise what stands between the slashes."""
    with critical() as found:
        assert door.ask(b"GET /v1/resolve/%ff HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 400
    assert not found


def test_a_path_with_an_empty_part_is_not_there(door: Door) -> None:
    """The path leads nowhere, and no client is sent elsewhere."""
    status, body = door.ask(b"GET /v1//status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (status, body["code"]) == (404, "unknown-message")


def test_a_program_may_leave_out_the_host_header_on_the_unix_socket(door: Door) -> None:
    """HTTP/1.0 has none."""
    assert door.ask(b"GET /v1/status HTTP/1.0\r\n\r\n", unix=True)[0] == 200


@pytest.mark.parametrize("field", ["weight", "pid", "port", "epoch"])
def test_an_integer_that_no_message_can_carry_is_refused_at_the_door(door: Door, world: World, field: str) -> None:
    """The value must not get into the journal, from where it would break every later session."""
    path = "deregister" if field == "epoch" else "register"
    wish: dict[str, Any] = {"service": "store.disk", "credential": "t", "port": 80, field: 2**63}
    body = json.dumps(wish).encode()
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    status, answer = door.ask(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert (status, answer["code"]) == (400, "malformed")
    assert not world.hosts["web1"].daemon.status().registrations


ENTRY = {"service": "s.a", "address": "10.0.0.1", "port": 80, "epoch": 5, "credential": "t", "standing": "registered"}


def book(**changed: Any) -> bytes:
    entry = {**ENTRY, **{name: value for name, value in changed.items() if name in ENTRY or name == "weight"}}
    whole = {"version": 1, "last_epoch": 7, "registrations": [entry]}
    return json.dumps({**whole, **{name: value for name, value in changed.items() if name in whole}}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b'{"x": "\xff"}',
        b'{"x":' * 100_000,
        book(version=2),
        book(last_epoch=EPOCH_MAX + 1),
        book(epoch=EPOCH_MAX + 1),
        book(epoch=-1),
        book(port=0),
        book(port=65536),
        book(weight=2**63),
        book(service="S.A"),
        book(service="nothing"),
        book(address="10.0.0.01"),
    ],
    ids=lambda data: repr(data[-60:]),
)
def test_a_book_that_this_program_has_not_written_is_set_aside(tmp_path: Path, data: bytes) -> None:
    """The file is neither believed nor fatal: the daemon starts with an empty one."""
    (tmp_path / "registrations.json").write_bytes(data)
    found = RegistrationJournal(tmp_path)
    found.load()
    assert not found.all() and found.last_epoch == 0
    assert (tmp_path / "registrations.corrupt-1").read_bytes() == data


def test_a_book_at_its_limits_is_read(tmp_path: Path) -> None:
    """The largest values that are right."""
    (tmp_path / "registrations.json").write_bytes(book(last_epoch=EPOCH_MAX, epoch=EPOCH_MAX, port=65535))
    found = RegistrationJournal(tmp_path)
    found.load()
    assert [entry.epoch for entry in found.all()] == [EPOCH_MAX]


def test_what_is_said_about_an_unreadable_body_is_short_and_plain() -> None:
    """A refusal quotes what a stranger sent, and is logged: it is cut, and has no commands to a terminal."""

    def said(kind: str) -> str:
        with pytest.raises(InvalidMessage) as unreadable:
            decode_from_client(msgspec.msgpack.encode({"type": kind}))
        assert unreadable.value.refusal.code == "unknown-message"
        return unreadable.value.refusal.message

    around = len(said(""))
    fits = limits.UNREADABLE_MAX - around
    assert said("x" * fits).count("x") == fits and len(said("x" * fits)) == limits.UNREADABLE_MAX
    assert said("x" * (fits + 1)).endswith("...") and len(said("x" * (fits + 1))) == limits.UNREADABLE_MAX
    assert said("\x1b[2J\n\x00").isprintable()


def test_two_incidents_of_one_moment_are_shown(world: World) -> None:
    """Alerts that were opened at the same time have an order all the same."""
    tokens = world.declare({**TOPOLOGY, "disk": ["store.disk", "copy.disk"]})
    world.server()
    host = world.host("web1")
    world.run(1.0)
    for service in ("store.disk", "copy.disk"):
        pid = host.processes.start(len(service))
        world.wait(host.daemon.register(LocalRegister(service, 8000 + pid, tokens[service], pid=pid)))
    moment = world.now()
    world.servers["gns1"].nameserver.commits.writer._decider._now = lambda: moment
    admin = world.admin()
    admin.ask(Put(Category("disk", policy=Policy(slow="alert"))))
    for pid in list(host.processes.living):
        host.processes.kill(pid)
    world.run(1.0)
    status = admin.ask(Status())
    assert isinstance(status, ServerStatus) and len({alert.opened_at for alert in status.alerts}) == 1
    assert [alert.id.split()[1] for alert in status.alerts] == ["copy.disk", "store.disk"]


def test_a_peers_words_do_not_command_the_terminal_that_shows_the_log() -> None:
    """Control characters are spelled out, and no peer can forge a line of the log."""
    event = {
        "log_format": "it said {said}",
        "said": "\x1b[2J\x9b1m\rfoo\n2026-01-01T00:00:00+0000 [-] all is well",
        "log_level": LogLevel.info,
        "log_namespace": "n",
        "log_time": 0.0,
    }
    text = text_line(event)
    assert text is not None
    assert "\\u001b[2J\\u009b1m\\u000dfoo\\u000a2026" in text and text.count("\n") == 1
    assert not set(text) & {"\x1b", "\x9b", "\r"}
    assert text_line({}) is None


def test_a_report_with_control_characters_is_refused(world: World) -> None:
    """The detail of a report stands in tables and in the alert command's input."""
    world.declare(TOPOLOGY)
    world.server()
    refusal = world.admin().ask(Report("store.disk", "10.0.0.1", 80, detail="\x1b[2J"))
    assert isinstance(refusal, Refusal) and refusal.code == "bad-value"


def test_many_strangers_do_not_get_the_innocent_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the peers that are counted one by one the guilty share a count; who has done nothing has all its quota."""
    monkeypatch.setattr(rate_limit, "PEERS_COUNTED_MAX", 3)
    quota = rate_limit.RateLimiter(Clock(), 2)
    for number in range(20):
        quota.count(f"stranger {number}")
    assert not quota.count("one more stranger")
    assert quota.wait("innocent") == 0.0
    for _ in range(2):
        quota.count("stranger 0")
    assert quota.wait("stranger 0") > 0

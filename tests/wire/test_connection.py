"""Both ends of a session: greeting, requests, notices, deadlines, limits, and every state with every input."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compass.model.replies import CODES, Refusal
from compass.model.rows import Change, Service
from compass.wire import limits, states
from compass.wire.client_connection import ClientConnection, RequestTooLong
from compass.wire.connection import Connection
from compass.wire.events import (
    AcknowledgementReceived,
    PushReceived,
    ReplyReceived,
    RequestReceived,
    SessionEnded,
    SessionOpened,
)
from compass.wire.frames import HEADER_LENGTH, frame
from compass.wire.messages import Acknowledge, Bookmark, Goodbye, Hello, Notice, Welcome, encode
from compass.wire.server_connection import ServerConnection
from compass.wire.states import End, Input, SessionState
from tests.wire.link import DONE, HELLO, NOW, PULL, WELCOME, Pair, asked, end_in, end_of, sent_by

NOTICE = Notice(Change(42, 41, 5.0, "service-add", Service("chinaserver.openuss")))
PIECES = pytest.mark.parametrize("piece", [1, 5, 1 << 30])


# -- the course of a session


@PIECES
def test_hello_is_answered_by_welcome(piece: int) -> None:
    """The client sends the hello by itself; each end learns about the other."""
    pair = Pair(piece)
    assert pair.to_server() == [SessionOpened(Hello((1,), "test", limits.MESSAGE_MAX))]
    pair.server.welcome("gns1", "store", 41, "test", 1)
    assert pair.to_client() == [SessionOpened(Welcome(1, "gns1", "store", 41, limits.FRAME_MAX_FROM_HOST, "test"))]


@PIECES
def test_each_reply_finds_its_request_in_whatever_order(piece: int) -> None:
    """Three requests at once, answered backwards."""
    pair = Pair(piece)
    pair.greet()
    numbers = [pair.client.ask(PULL, pair.now) for _ in range(3)]
    assert pair.to_server() == [RequestReceived(number, PULL) for number in numbers]
    assert pair.server.in_flight == 3
    for number in reversed(numbers):
        pair.server.reply(number, DONE, pair.now)
    assert pair.to_client() == [ReplyReceived(number, DONE) for number in reversed(numbers)]
    assert pair.server.in_flight == 0


@PIECES
def test_a_notice_is_acknowledged_with_all_before_it(piece: int) -> None:
    """Two notices, one acknowledgement: both are done with."""
    pair = Pair(piece)
    pair.greet()
    notices = [Notice(Change(at, at - 1, 5.0, "service-add", Service("northeast.openuss"))) for at in (42, 43, 44)]
    for notice in notices:
        pair.server.push(frame(encode(notice)), notice.change.revision, pair.now)
    assert pair.to_client() == [PushReceived(notice) for notice in notices]
    assert pair.server.unacknowledged == 42
    pair.client.acknowledge(43)
    assert pair.to_server() == [AcknowledgementReceived(Acknowledge(43), waited=0.0)]
    assert pair.server.unacknowledged == 44
    pair.client.acknowledge(43, "gap")
    assert pair.to_server() == [AcknowledgementReceived(Acknowledge(43, "gap"))]


def test_a_request_that_the_server_would_not_accept_is_not_sent() -> None:
    """The shorter of both limits counts; the longest request that fits is sent."""
    size = len(encode(PULL))
    for server, own, is_sent in ((size, size, True), (size - 1, size, False), (size, size - 1, False), (0, size, True)):
        client = ClientConnection(NOW, "test", request_max=own)
        client.receive(frame(encode(Welcome(1, "s", "store", 0, server))), NOW)
        client.bytes_to_send()
        if is_sent:
            assert client.ask(PULL, NOW) == 1 and client.octets_to_send == HEADER_LENGTH + size
        else:
            with pytest.raises(RequestTooLong, match=str(size)):
                client.ask(PULL, NOW)
            assert not client.octets_to_send and client.deadline() is None


def test_an_acknowledgement_says_how_long_it_was_awaited() -> None:
    """The delay is measured from the commit of the timed notice; the next notice is timed only if it is sent
    afterwards."""
    pair = Pair()
    pair.greet()
    pair.server.push(frame(encode(NOTICE)), 42, pair.now)
    pair.server.push(frame(encode(NOTICE)), 43, pair.now + 1.0)
    assert pair.server.timed_since == pair.now
    pair.to_client()
    pair.now += 3.0
    for revision, waited in ((41, None), (42, 3.0), (43, None)):
        pair.client.acknowledge(revision)
        assert pair.to_server() == [AcknowledgementReceived(Acknowledge(revision), waited)]
    assert pair.server.timed_since is None
    pair.server.push(frame(encode(NOTICE)), 44, pair.now)
    pair.client.acknowledge(44)
    assert pair.to_server() == [AcknowledgementReceived(Acknowledge(44), 0.0)]


def test_what_is_replayed_is_not_timed() -> None:
    """A replayed notice is acknowledged like any other, but it was committed long ago."""
    pair = Pair()
    pair.greet()
    pair.server.replay(frame(encode(NOTICE)), 42, 41, pair.now)
    assert (pair.server.unacknowledged, pair.server.timed_since) == (42, None)
    pair.to_client()
    pair.client.acknowledge(42)
    assert pair.to_server() == [AcknowledgementReceived(Acknowledge(42), None)]
    assert pair.server.unacknowledged == 0


def test_a_bookmark_needs_no_acknowledgement() -> None:
    """A bookmark is sent like a notice, but no acknowledgement is expected."""
    pair = Pair()
    pair.greet()
    pair.server.watching = True
    pair.server.bookmark(frame(encode(Bookmark(5000))), 5000)
    assert pair.server.octets_to_send == len(frame(encode(Bookmark(5000))))
    assert pair.to_client() == [PushReceived(Bookmark(5000))]
    assert (pair.server.unacknowledged, pair.server.octets_to_send, pair.server.deadline()) == (0, 0, None)


def test_goodbye_ends_both_ends() -> None:
    """The client learns why, and when to come back; the server sends nothing more."""
    pair = Pair()
    pair.greet()
    number = pair.client.ask(PULL, pair.now)
    pair.to_server()
    pair.server.goodbye("this server stops", 0.5)
    pair.server.goodbye("again")
    pair.server.reply(number, DONE, pair.now)
    pair.server.push(frame(encode(NOTICE)), 42, pair.now)
    pair.server.bookmark(frame(encode(Bookmark(42))), 42)
    assert pair.to_client() == [SessionEnded("this server stops", retry_after_seconds=0.5)]
    assert pair.server.bytes_to_send() == b""
    assert pair.server.receive(HELLO, pair.now) == []
    assert pair.client.deadline() is None
    assert pair.server.deadline() is None
    pair.client.acknowledge(42)
    assert pair.client.bytes_to_send() == b""


def test_asking_before_the_welcome_is_a_mistake_of_our_own() -> None:
    """A request before the welcome raises; nothing is sent."""
    client = end_of("client")
    assert isinstance(client, ClientConnection)
    with pytest.raises(RuntimeError, match="greeting"):
        client.ask(PULL, NOW)
    client.acknowledge(1)
    assert client.bytes_to_send() == b""


def test_request_numbers_begin_again_after_the_largest() -> None:
    """After 2^32 - 1 comes 1; 0 is never a request's number."""
    client = end_in("client", "open")
    assert isinstance(client, ClientConnection)
    client._last_number = 0xFFFFFFFE
    assert [client.ask(PULL, NOW), client.ask(PULL, NOW)] == [0xFFFFFFFF, 1]


def test_a_good_request_before_a_violation_in_the_same_piece_is_asked() -> None:
    """The meaning of a stream does not depend on the pieces in which it arrives."""
    server = end_in("server", "open")
    events = server.receive(frame(encode(PULL), 1) + b"\xff" * HEADER_LENGTH, NOW)
    assert events[0] == RequestReceived(1, PULL)
    assert [type(event) for event in events] == [RequestReceived, SessionEnded]


# -- every state with every input


def received(number: int, message: object) -> Callable[[Connection], list[object]]:
    return lambda end: list(end.receive(frame(encode(message), number), NOW))  # type: ignore[arg-type]


def run_out(end: Connection) -> list[object]:
    if isinstance(end, ClientConnection) and end.state == "open":
        asked(end, 1)
    return list(end.expire(NOW + 1000.0))


INPUTS: dict[End, dict[Input, Callable[[Connection], list[object]]]] = {
    "server": {
        "hello": received(0, Hello((1,))),
        "request": received(1, PULL),
        "acknowledge": received(0, Acknowledge(1)),
        "violation": lambda end: list(end.receive(b"\xff" * HEADER_LENGTH, NOW)),
        "timeout": run_out,
    },
    "client": {
        "welcome": lambda end: list(end.receive(WELCOME, NOW)),
        "reply": received(1, DONE),
        "push": received(0, NOTICE),
        "goodbye": received(0, Goodbye("enough")),
        "refusal": received(0, Refusal("forbidden", "no role")),
        "violation": lambda end: list(end.receive(b"\xff" * HEADER_LENGTH, NOW)),
        "timeout": run_out,
    },
}
CASES = [(end, state, given) for end, table in states.TABLE.items() for state in table for given in INPUTS[end]]


@pytest.mark.parametrize(("end", "state", "given"), CASES)
def test_every_state_takes_every_input_as_the_table_says(end: End, state: SessionState, given: Input) -> None:
    """An input that is not in the table ends the session as a violation; an ended session accepts nothing."""
    connection = end_in(end, state)
    if given == "reply" and state == "open":
        asked(connection, 1)
    events = INPUTS[end][given](connection)
    if state == "ended":
        assert (events, connection.state) == ([], "ended")
        return
    target = states.TABLE[end][state].get(given)
    assert connection.state == (target or "ended")
    assert len(events) == 1
    if target is None or given == "violation":
        assert isinstance(events[0], SessionEnded) and events[0].violation
    elif target == "ended":
        assert isinstance(events[0], SessionEnded) and not events[0].violation


def test_the_inputs_tested_are_those_of_the_table() -> None:
    """No input is in a table without being tried here."""
    for end, table in states.TABLE.items():
        assert {given for moves in table.values() for given in moves} == set(INPUTS[end])


def test_a_diagram_has_every_step_of_its_table() -> None:
    """States, targets and inputs, in Mermaid."""
    assert states.diagram("server").splitlines() == [
        "stateDiagram-v2",
        "    [*] --> greeting",
        "    greeting --> open: hello",
        "    greeting --> ended: violation, timeout",
        "    open --> open: request, acknowledge",
        "    open --> ended: violation, timeout",
        "    ended --> [*]",
    ]


# -- deadlines


def test_a_greeting_that_does_not_come_is_waited_for_so_long() -> None:
    """At either end; one moment before the deadline nothing happens."""
    for end in (end_of("server"), end_of("client")):
        due = NOW + limits.GREETING_SECONDS
        assert end.deadline() == due
        assert end.expire(due - 0.001) == []
        (ended,) = end.expire(due)
        assert isinstance(ended, SessionEnded) and "within 10 s" in ended.reason
        assert end.deadline() is None
        assert end.expire(due + 1) == []


def test_an_idle_session_is_ended_with_a_goodbye() -> None:
    """Idle time counts from the last request or reply."""
    pair = Pair()
    pair.greet()
    assert pair.server.deadline() == NOW + limits.IDLE_SECONDS
    number = pair.client.ask(PULL, NOW)
    pair.now = NOW + 5.0
    pair.to_server()
    assert pair.server.deadline() is None
    pair.server.reply(number, DONE, NOW + 7.0)
    assert pair.server.deadline() == NOW + 7.0 + limits.IDLE_SECONDS
    (ended,) = pair.server.expire(NOW + 7.0 + limits.IDLE_SECONDS)
    assert isinstance(ended, SessionEnded) and "idle for 60 s" in ended.reason and not ended.violation
    assert [type(event) for event in pair.to_client()] == [ReplyReceived, SessionEnded]


def test_a_watching_session_may_be_silent_for_ever() -> None:
    """No heartbeat: nothing is due from a host that has acknowledged everything."""
    server = end_in("server", "open")
    assert isinstance(server, ServerConnection)
    server.watching = True
    assert server.deadline() is None


@pytest.mark.parametrize("busy", [False, True])
def test_a_notice_must_be_acknowledged_in_time(busy: bool) -> None:
    """Counted from the oldest one; a request that is still open does not put it off."""
    pair = Pair()
    pair.greet()
    pair.server.watching = True
    if busy:
        pair.client.ask(PULL, NOW)
        pair.to_server()
    pair.server.push(frame(encode(NOTICE)), 42, NOW + 1.0)
    pair.server.push(frame(encode(NOTICE)), 43, NOW + 2.0)
    assert pair.server.deadline() == NOW + 1.0 + limits.ACKNOWLEDGE_SECONDS
    pair.to_client()
    pair.client.acknowledge(42)
    pair.to_server()
    assert pair.server.deadline() == NOW + 2.0 + limits.ACKNOWLEDGE_SECONDS
    (ended,) = pair.server.expire(NOW + 2.0 + limits.ACKNOWLEDGE_SECONDS)
    assert isinstance(ended, SessionEnded) and "no acknowledgement within 10 s" in ended.reason
    assert sent_by(pair.server) == [(0, Goodbye(ended.reason))]


def test_a_reply_is_waited_for_so_long() -> None:
    """Counted from the oldest open request; an answered one does not count."""
    pair = Pair()
    pair.greet()
    assert pair.client.deadline() is None
    first = pair.client.ask(PULL, NOW)
    pair.client.ask(PULL, NOW + 3.0)
    assert pair.client.deadline() == NOW + limits.REPLY_SECONDS
    pair.to_server()
    pair.server.reply(first, DONE, NOW)
    pair.to_client()
    assert pair.client.deadline() == NOW + 3.0 + limits.REPLY_SECONDS
    (ended,) = pair.client.expire(NOW + 3.0 + limits.REPLY_SECONDS)
    assert isinstance(ended, SessionEnded) and "no reply within 30 s" in ended.reason


# -- limits at n and n + 1


def test_one_request_too_many_is_refused_as_busy_and_the_others_stand() -> None:
    """The number that was refused is free again."""
    server = end_in("server", "open")
    assert isinstance(server, ServerConnection)
    most = limits.REQUESTS_IN_FLIGHT_MAX
    events = server.receive(b"".join(frame(encode(PULL), n) for n in range(1, most + 1)), NOW)
    assert len(events) == server.in_flight == most
    assert server.bytes_to_send() == b""
    assert server.receive(frame(encode(PULL), most + 1), NOW) == []
    ((number, refusal),) = sent_by(server)
    assert isinstance(refusal, Refusal)
    assert (number, refusal.code, refusal.retry_after_seconds) == (most + 1, "busy", 1.0)
    server.reply(1, DONE, NOW)
    assert server.receive(frame(encode(PULL), most + 1), NOW) == [RequestReceived(most + 1, PULL)]


@pytest.mark.parametrize("most", [limits.FRAME_MAX_FROM_HOST, limits.FRAME_MAX_FROM_ADMIN])
def test_a_server_takes_bodies_up_to_the_limit_of_the_role(most: int) -> None:
    """n octets are read (and are no message); the header of n + 1 ends the session."""
    server = ServerConnection(NOW, most)
    server.receive(HELLO, NOW)
    server.welcome("gns1", "store", 0, "", 1)
    ((_, welcome),) = sent_by(server)
    assert isinstance(welcome, Welcome) and welcome.frame_max == most
    assert server.receive(frame(b"\xc1" * most, 1), NOW) == []
    ((_, refusal),) = sent_by(server)
    assert isinstance(refusal, Refusal) and refusal.code == "malformed"
    (ended,) = server.receive((most + 1).to_bytes(4, "big") + b"\0\0\0\2", NOW)
    assert isinstance(ended, SessionEnded) and ended.violation
    ((number, refusal),) = sent_by(server)
    assert isinstance(refusal, Refusal)
    assert (number, refusal.code) == (0, "too-large")


def test_a_client_takes_bodies_up_to_its_limit() -> None:
    """n octets are waited for; the header of n + 1 ends the session."""
    client = end_in("client", "open")
    most = limits.FRAME_MAX_FROM_SERVER
    assert client.receive(most.to_bytes(4, "big") + b"\0\0\0\1", NOW) == []
    (ended,) = end_in("client", "open").receive((most + 1).to_bytes(4, "big") + b"\0\0\0\1", NOW)
    assert isinstance(ended, SessionEnded) and ended.violation


def test_so_many_versions_of_a_hello_are_looked_at() -> None:
    """A common version in the last place that counts is found; one place further it is not."""
    most = limits.VERSIONS_OFFERED_MAX
    offered = (*range(100, 99 + most), 1)
    assert end_of("server").receive(frame(encode(Hello(offered))), NOW) == [SessionOpened(Hello((1,)))]
    server = end_of("server")
    (ended,) = server.receive(frame(encode(Hello((99, *offered)))), NOW)
    assert isinstance(ended, SessionEnded) and ended.violation
    ((_, refusal),) = sent_by(server)
    assert isinstance(refusal, Refusal) and refusal.code == "unsupported-version"


def test_so_much_of_a_self_description_is_kept() -> None:
    """n characters are kept; of n + 1 the last is dropped."""
    kept = "x" * limits.SOFTWARE_MAX
    for software in (kept, kept + "y"):
        (opened,) = end_of("server").receive(frame(encode(Hello((1,), software))), NOW)
        assert opened == SessionOpened(Hello((1,), kept))


def test_a_log_that_waits_answers_before_its_reader_gives_up() -> None:
    """The two limits fit together."""
    assert limits.LOG_WAIT_SECONDS_MAX < limits.REPLY_SECONDS


def test_every_code_is_a_refusal_that_a_client_reads() -> None:
    """Each code of the table crosses the wire to the request it refuses."""
    for code in CODES:
        client = end_in("client", "open")
        asked(client, 1)
        refusal = Refusal(code, "because")
        assert client.receive(frame(encode(refusal), 1), NOW) == [ReplyReceived(1, refusal)]


def test_a_code_that_a_newer_server_invented_keeps_its_message() -> None:
    """P13: an older client reads what it can of a refusal."""
    client = end_in("client", "open")
    asked(client, 1)
    refusal = Refusal("too-early", "come back later", retry_after_seconds=3.0)
    assert client.receive(frame(encode(refusal), 1), NOW) == [ReplyReceived(1, refusal)]

"""The bytes between a program and its daemon, without either: in pieces, cut short, too long, and of something else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass.client.core import http
from compass.client.core.errors import ApiProblem
from compass.client.core.http import ConnectionBroken, Events, HttpExchange, InvalidResponse, Lines, event_of
from tests.cli.test_main import PEER, SNAPSHOT, event

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
SIZED = b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nabcde"


def asked() -> HttpExchange:
    """Something harmless."""
    return HttpExchange("GET", "/v1/status", "unix")


def test_a_request_is_what_the_daemon_reads() -> None:
    """Request line, host, and with a body its type and length."""
    assert asked().request == b"GET /v1/status HTTP/1.1\r\nHost: unix\r\nAccept-Encoding: identity\r\n\r\n"
    sent = HttpExchange("POST", "/v1/report", "127.0.0.1:4866", b"{}", {"Last-Event-ID": "7"}).request
    assert sent.startswith(b"POST /v1/report HTTP/1.1\r\nHost: 127.0.0.1:4866\r\n")
    assert b"\r\nLast-Event-ID: 7\r\n" in sent
    assert sent.endswith(b"\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("response", [CHUNKED, SIZED])
def test_a_response_is_read_whole_and_byte_by_byte(response: bytes) -> None:
    """And what comes after it is not taken for a part of it."""
    whole = asked()
    assert b"".join(whole.receive(response)) == b"abcde"
    slow = asked()
    assert b"".join(piece for at in range(len(response)) for piece in slow.receive(response[at : at + 1])) == b"abcde"
    more = asked()
    assert b"".join(more.receive(response + b"HTTP/1.1 200 OK\r\n")) == b"abcde"
    assert whole.ended and slow.ended and more.ended
    assert whole.status == slow.status == more.status == (200 if response is CHUNKED else 503)


@pytest.mark.parametrize("response", [CHUNKED, SIZED])
def test_a_response_that_is_cut_short_is_never_taken_for_whole(response: bytes) -> None:
    """Wherever the connection ends."""
    for at in range(len(response)):
        cut = asked()
        cut.receive(response[:at]) if at else None
        with pytest.raises(ConnectionBroken):
            cut.receive(b"")


def test_what_is_no_http_is_said_to_be_none() -> None:
    """A port of another program raises InvalidResponse."""
    with pytest.raises(InvalidResponse):
        asked().receive(b"220 mail.example.org ESMTP\r\n\r\n")
    with pytest.raises(InvalidResponse):
        asked().receive(b"HTTP/1.1 200 OK\r\nX: " + b"x" * http.HEAD_OCTETS_MAX)


def test_lines_are_whole_or_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are returned whole from any pieces, up to LINE_OCTETS_MAX octets."""
    text = b"one\r\ntwo\n\nthree"
    whole = Lines()
    assert whole.split(text) == [b"one", b"two", b""]
    slow = Lines()
    assert [line for at in range(len(text)) for line in slow.split(text[at : at + 1])] == [b"one", b"two", b""]
    monkeypatch.setattr(http, "LINE_OCTETS_MAX", 8)
    assert Lines().split(b"12345678") == []
    with pytest.raises(InvalidResponse):
        Lines().split(b"123456789")


def test_events_come_in_any_pieces() -> None:
    """Heartbeats and what a newer daemon says are passed over."""
    data = SNAPSHOT + b": still here\n\nid: 14\nevent: tomorrow\ndata: {}\n\n" + event(15, PEER)
    whole = list(Events().split(data))
    slow = Events()
    assert [told for at in range(len(data)) for told in slow.split(data[at : at + 1])] == whole
    assert [(told.kind, told.revision) for told in whole] == [("snapshot", 12), ("change", 15)]


def test_an_event_that_cannot_be_read_is_not_left_out() -> None:
    """An event with an invalid id or data of another kind raises an error."""
    for lines in (["event: change", "id: x", "data: {}"], ["event: change", "id: 1", "data: {}"]):
        with pytest.raises(ApiProblem, match="does not understand"):
            event_of(lines)
    assert event_of(["data: 1"]) is None


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([CHUNKED, SIZED, CHUNKED[:60], b"", b"\r\n"]))))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_a_body_or_one_of_two_errors(pieces: list[bytes]) -> None:
    """Any pieces of bytes give a body or one of two errors."""
    with contextlib.suppress(ConnectionBroken, InvalidResponse):
        read = asked()
        for piece in pieces:
            assert all(isinstance(part, bytes) for part in read.receive(piece))
            if not piece:
                break  # Nothing comes after the end.


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([SNAPSHOT, SNAPSHOT[:70], event(15, PEER), b"\n"]))))
@settings(max_examples=200, deadline=None)
def test_whatever_a_watch_brings_is_an_event_or_an_error_in_words(pieces: list[bytes]) -> None:
    """Any pieces of a watch give events or an error with a text."""
    with contextlib.suppress(ApiProblem):
        events = Events()
        for piece in pieces:
            assert all(told.kind in ("snapshot", "change") for told in events.split(piece))

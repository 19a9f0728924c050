"""Messages in parts: the server makes them one at a time, the client uses none before the last (P5, P10)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass.model.replies import Refusal, Rows, Watching
from compass.model.rows import Change, Service, Snapshot
from compass.wire import limits
from compass.wire.events import Event, PushReceived, ReplyReceived, RequestReceived, SessionEnded
from compass.wire.frames import frame
from compass.wire.messages import EncodedReply, Notice, Part, Resync, StreamedReply, decode_from_server, encode
from compass.wire.parts import PartWriter, pieces_of
from tests.wire.link import DONE, PULL, Pair

SERVICES = tuple(Service(f"s{number:05}.web") for number in range(20_000))
WATCHING = Watching("store", 7, Snapshot(7, {"web": 7}, list(SERVICES)))
"""A message of some 460 kB: eight parts."""


def greeted(message_max: int = limits.MESSAGE_MAX) -> Pair:
    pair = Pair(message_max=message_max)
    pair.greet()
    pair.server.watching = True
    return pair


def asked(pair: Pair, count: int = 1) -> list[int]:
    numbers = [pair.client.ask(PULL, pair.now) for _ in range(count)]
    assert pair.to_server() == [RequestReceived(number, PULL) for number in numbers]
    return numbers


def notice(revision: int) -> Notice:
    return Notice(Change(revision, revision - 1, 5.0, "service-add", Service("northeast.openuss")))


def push(pair: Pair, revision: int) -> None:
    pair.server.push(frame(encode(notice(revision))), revision, pair.now)


def streamed(message: Watching) -> StreamedReply:
    return StreamedReply(pieces_of(encode(message)), lambda: message)


def messages(events: list[Event]) -> list[object]:
    return [event.message for event in events if isinstance(event, PushReceived)]


@given(st.lists(st.binary(max_size=200_000), max_size=6))
def test_any_pieces_make_the_same_message(pieces: list[bytes]) -> None:
    """Each part has at most PART_OCTETS_MAX octets, and only the last one says so."""
    writer = PartWriter(iter(pieces), 9)
    found, lasts = b"", []
    while not writer.done:
        encoded = writer.next_frame()
        assert encoded[4:8] == b"\0\0\0\x09"
        part = decode_from_server(encoded[8:])
        assert isinstance(part, Part)
        assert len(part.octets) <= limits.PART_OCTETS_MAX
        found += part.octets
        lasts.append(part.last)
    assert found == b"".join(pieces)
    assert lasts == [False] * (len(lasts) - 1) + [True]
    assert writer.written == len(found)


def test_a_reply_longer_than_a_frame_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that accepts parts gets what did not fit into a frame before; nothing is handed on until it is whole."""
    monkeypatch.setattr(limits, "FRAME_MAX_FROM_SERVER", 300_000)
    pair = greeted()
    (number,) = asked(pair)
    rows = Rows(7, SERVICES, len(SERVICES))
    assert pair.server.reply(number, rows, pair.now) is None
    events: list[Event] = []
    while pair.server.octets_to_send:
        assert events == []
        events = pair.to_client()
    assert events == [ReplyReceived(number, rows)]


def test_a_client_without_parts_gets_the_old_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server reports what it refused; a streamed reply that fits is sent as one frame."""
    pair = greeted(message_max=0)
    first, second = asked(pair, 2)
    pair.server.reply(first, streamed(WATCHING), pair.now)
    assert pair.to_client() == [ReplyReceived(first, WATCHING)]
    monkeypatch.setattr(limits, "FRAME_MAX_FROM_SERVER", 300_000)
    refusal = pair.server.reply(second, streamed(WATCHING), pair.now)
    assert isinstance(refusal, Refusal) and refusal.code == "too-large" and "300000 octets" in refusal.message
    assert pair.to_client() == [ReplyReceived(second, refusal)]


def test_no_message_is_longer_than_the_client_offered() -> None:
    """The reply ends with a refusal at the octet beyond the limit, and the session goes on."""
    body = encode(WATCHING)
    for most, fits in ((len(body), True), (len(body) - 1, False)):
        pair = greeted(message_max=most)
        (number,) = asked(pair)
        pair.server.reply(number, StreamedReply(pieces_of(body), lambda: WATCHING), pair.now)
        (event,) = pair.all_to_client()
        assert isinstance(event, ReplyReceived) and event.number == number
        assert event.reply == WATCHING if fits else isinstance(event.reply, Refusal)
        assert pair.client.state == pair.server.state == "open"


def test_a_client_ends_a_session_that_sends_more_than_it_offered() -> None:
    """The octets of all unfinished messages count together, and dropped ones no longer do."""
    body = encode(WATCHING)
    pair = greeted()
    pair.client._parts._limit = len(body) + limits.PART_OCTETS_MAX
    numbers = asked(pair, 3)
    first = PartWriter(pieces_of(body), numbers[0])
    for _ in range(3):
        assert pair.client.receive(first.next_frame(), pair.now) == []
    pair.client.receive(frame(encode(DONE), numbers[0]), pair.now)
    second = PartWriter(pieces_of(body), numbers[1])
    while not second.done:
        events = pair.client.receive(second.next_frame(), pair.now)
    assert events == [ReplyReceived(numbers[1], WATCHING)]
    third = PartWriter(pieces_of(body + bytes(limits.PART_OCTETS_MAX + 1)), numbers[2])
    while pair.client.state == "open":
        events = pair.client.receive(third.next_frame(), pair.now)
    assert isinstance(events[-1], SessionEnded) and "parts of more than" in events[-1].reason


def test_a_slow_client_costs_one_part() -> None:
    """The encoder runs no further than the client reads."""
    made: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(100):
            made.append(number)
            yield bytes(limits.PART_OCTETS_MAX)

    pair = greeted()
    (number,) = asked(pair)
    pair.server.reply(number, StreamedReply(pieces(), lambda: WATCHING), pair.now)
    for parts in range(1, 50):
        assert pair.server.octets_to_send <= limits.PART_OCTETS_MAX + 100
        assert len(made) <= parts + 1
        pair.to_client()


def test_a_short_reply_overtakes_a_long_one_and_a_notice_does_not() -> None:
    """Other requests are answered while a view travels; changes after the view come after it."""
    pair = greeted()
    first, second = asked(pair, 2)
    pair.server.reply(first, streamed(WATCHING), pair.now)
    push(pair, 8)
    pair.to_client()
    pair.server.reply(second, DONE, pair.now)
    events = pair.all_to_client()
    assert events == [ReplyReceived(second, DONE), ReplyReceived(first, WATCHING), PushReceived(notice(8))]


def test_a_resync_in_parts_and_what_follows_it() -> None:
    """Two messages in parts and the notices between them keep their order."""
    pair = greeted()
    resync = Resync(WATCHING.snapshot) if WATCHING.snapshot else None
    assert resync is not None
    pair.server.resync(pieces_of(encode(resync)), 7, 3, pair.now)
    push(pair, 8)
    pair.server.resync(pieces_of(encode(resync)), 9, 8, pair.now)
    push(pair, 10)
    assert messages(pair.all_to_client()) == [resync, notice(8), resync, notice(10)]
    assert pair.server.octets_behind == pair.server.messages_behind == 0
    pair.client.acknowledge(10)
    pair.to_server()
    assert pair.server.unacknowledged == 0


def test_what_is_dropped_is_what_was_not_begun() -> None:
    """A resync that was begun is finished; what waits behind it is dropped, with the revision that remains."""
    pair = greeted()
    assert WATCHING.snapshot is not None
    pair.server.resync(pieces_of(encode(Resync(WATCHING.snapshot))), 7, 3, pair.now)
    pair.to_client()
    push(pair, 8)
    pair.server.resync(pieces_of(encode(Resync(WATCHING.snapshot))), 9, 8, pair.now)
    assert pair.server.octets_behind > 0
    assert pair.server.drop_pushes() == 7
    assert pair.server.octets_behind == pair.server.messages_behind == 0
    assert messages(pair.all_to_client()) == [Resync(WATCHING.snapshot)]


@pytest.mark.parametrize("beyond", [0, 1])
def test_long_replies_that_wait_are_few(beyond: int) -> None:
    """While the client reads one, MESSAGES_QUEUED_MAX wait; one more is refused as busy."""
    pair = greeted()
    numbers = asked(pair, 1 + limits.MESSAGES_QUEUED_MAX + beyond)
    for number in numbers:
        pair.server.reply(number, streamed(WATCHING), pair.now)
    replies = {event.number: event.reply for event in pair.all_to_client() if isinstance(event, ReplyReceived)}
    busy = [number for number, reply in replies.items() if isinstance(reply, Refusal) and reply.code == "busy"]
    assert busy == numbers[1 + limits.MESSAGES_QUEUED_MAX :]
    assert len(replies) == len(numbers)


def test_each_part_starts_the_time_of_its_request_again() -> None:
    """A message may take as long as it needs, as long as it arrives; a request without a reply still times out."""
    pair = greeted()
    first, _ = asked(pair, 2)
    pair.now += limits.REPLY_SECONDS - 1
    pair.server.reply(first, streamed(WATCHING), pair.now)
    pair.to_client()
    assert pair.client.deadline() == pair.now - (limits.REPLY_SECONDS - 1) + limits.REPLY_SECONDS
    pair.now += 1
    (ended,) = pair.client.expire(pair.now)
    assert isinstance(ended, SessionEnded)


def test_a_client_that_reads_no_part_is_left() -> None:
    """Reading puts the end off, but not beyond the time for the whole message."""
    pair = greeted()
    (number,) = asked(pair)
    pair.server.reply(number, streamed(WATCHING), pair.now)
    began = pair.now
    while pair.now < began + limits.MESSAGE_SECONDS - limits.ACKNOWLEDGE_SECONDS:
        pair.now += limits.ACKNOWLEDGE_SECONDS - 1
        assert pair.server.expire(pair.now) == []
        pair.server.peer_consumed(pair.now)
    assert pair.server.deadline() == began + limits.MESSAGE_SECONDS
    slow = greeted()
    (number,) = asked(slow)
    slow.server.reply(number, streamed(WATCHING), slow.now)
    assert slow.server.expire(slow.now + limits.ACKNOWLEDGE_SECONDS - 0.1) == []
    assert slow.server.expire(slow.now + limits.ACKNOWLEDGE_SECONDS)


def test_a_host_has_time_to_apply_a_large_view() -> None:
    """The acknowledgement of what follows a view is due later, in proportion to the view, until it has come once."""
    pair = greeted()
    octets = 2 * limits.APPLY_OCTETS_PER_SECOND_MIN
    pieces = (bytes(limits.PART_OCTETS_MAX) for _ in range(octets // limits.PART_OCTETS_MAX))
    pair.server.resync(pieces, 7, 3, pair.now)
    while pair.server.octets_to_send:
        pair.server.bytes_to_send()
    assert pair.server.deadline() == pair.now + limits.ACKNOWLEDGE_SECONDS + 2.0
    pair.client.acknowledge(7)
    pair.to_server()
    push(pair, 8)
    assert pair.server.deadline() == pair.now + limits.ACKNOWLEDGE_SECONDS


def test_an_encoded_reply_is_cut_without_a_copy_for_each_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that is cached for many peers is sent in parts, too."""
    monkeypatch.setattr(limits, "FRAME_MAX_FROM_SERVER", 300_000)
    pair = greeted()
    (number,) = asked(pair)
    pair.server.reply(number, EncodedReply(encode(WATCHING)), pair.now)
    assert pair.server.octets_to_send <= limits.PART_OCTETS_MAX + 100
    assert pair.all_to_client() == [ReplyReceived(number, WATCHING)]

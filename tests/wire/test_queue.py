"""Queue of a server for one session: written in pieces, dropped if the peer reads too slowly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from compass.model.replies import Refusal
from compass.model.rows import Change, Service
from compass.wire import limits
from compass.wire.events import PushReceived, ReplyReceived, RequestReceived
from compass.wire.frames import frame
from compass.wire.messages import Bookmark, EncodedReply, Notice, encode
from tests.wire.link import DONE, PULL, Pair


def notice(revision: int) -> Notice:
    return Notice(Change(revision, revision - 1, 5.0, "service-add", Service("northeast.openuss")))


def push(pair: Pair, revision: int) -> None:
    pair.server.push(frame(encode(notice(revision))), revision, pair.now)


def greeted(message_max: int = limits.MESSAGE_MAX) -> Pair:
    pair = Pair(message_max=message_max)
    pair.greet()
    pair.server.watching = True
    return pair


@given(st.lists(st.integers(1, 500), min_size=1, max_size=30), st.integers(1, 20))
def test_pieces_of_any_length_make_the_same_stream(lengths: list[int], count: int) -> None:
    """Nothing is lost, doubled or reordered, and what is left is counted right."""
    whole, pieces = greeted(), greeted()
    for pair in (whole, pieces):
        for revision in range(1, 1 + count):
            push(pair, revision)
    expected = whole.server.bytes_to_send()
    found = b""
    for length in lengths:
        piece = pieces.server.bytes_to_send(length)
        assert len(piece) == min(length, len(expected) - len(found))
        found += piece
        assert pieces.server.octets_to_send == len(expected) - len(found)
    assert found + pieces.server.bytes_to_send() == expected
    assert pieces.server.octets_to_send == 0


@given(st.integers(0, 400), st.integers(1, 6), st.integers(1, 6))
def test_what_is_released_is_what_was_not_begun(written: int, before: int, after: int) -> None:
    """Frames that were begun are finished, replies stay, and the revision up to which the host is complete is exact."""
    pair = greeted()
    number = pair.client.ask(PULL, pair.now)
    assert pair.to_server() == [RequestReceived(number, PULL)]
    for revision in range(1, 1 + before):
        push(pair, revision)
    pair.server.reply(number, DONE, pair.now)
    for revision in range(1 + before, 1 + before + after):
        push(pair, revision)
    stream = pair.server.bytes_to_send(written) if written else b""
    told = pair.server.drop_pushes()
    events = pair.client.receive(stream + pair.server.bytes_to_send(), pair.now)
    assert ReplyReceived(number, DONE) in events
    revisions = [
        e.message.change.revision for e in events if isinstance(e, PushReceived) and isinstance(e.message, Notice)
    ]
    assert revisions == list(range(1, 1 + len(revisions)))
    assert told == (len(revisions) if len(revisions) < before + after else None)
    # Only what was sent is waited for.
    pair.client.acknowledge(len(revisions))
    pair.to_server()
    assert pair.server.unacknowledged == 0


def test_a_released_bookmark_says_nothing_about_what_comes_after_it() -> None:
    """Up to a bookmark everything had been queued before it."""
    pair = greeted()
    pair.server.bookmark(frame(encode(Bookmark(50))), 50)
    assert pair.server.drop_pushes() == 50
    assert pair.server.bytes_to_send() == b""
    assert pair.server.drop_pushes() is None


def test_a_host_that_acknowledges_nothing_costs_a_bounded_list() -> None:
    """The memory for expected acknowledgements grows with time, which is limited, and not with the number of
    changes."""
    pair = greeted()
    for revision in range(1, 10_001):
        pair.now += limits.ACKNOWLEDGE_SECONDS / 10_000
        push(pair, revision)
    assert len(pair.server._awaited) <= 101
    pair.client.acknowledge(9_000)
    pair.to_server()
    assert 9_000 < pair.server.unacknowledged <= 9_101
    pair.client.acknowledge(10_000)
    pair.to_server()
    assert pair.server.unacknowledged == 0


def test_taking_octets_puts_the_end_off_and_saying_nothing_does_not() -> None:
    """The time to acknowledge begins again with what a slow reader takes."""
    pair = greeted()
    push(pair, 1)
    pair.now += limits.ACKNOWLEDGE_SECONDS - 1
    pair.server.peer_consumed(pair.now)
    pair.now += limits.ACKNOWLEDGE_SECONDS - 1
    assert pair.server.expire(pair.now) == []
    pair.now += 1
    assert pair.server.expire(pair.now)


def test_a_body_for_many_is_sent_as_a_reply() -> None:
    """The same octets under each one's own request number; one that is too long becomes a refusal for a client that
    accepts no parts."""
    pair = greeted(message_max=0)
    body = EncodedReply(encode(DONE))
    assert body.decode() == DONE
    numbers = [pair.client.ask(PULL, pair.now) for _ in range(2)]
    pair.to_server()
    for number in numbers:
        pair.server.reply(number, body, pair.now)
    assert pair.to_client() == [ReplyReceived(number, DONE) for number in numbers]
    number = pair.client.ask(PULL, pair.now)
    pair.to_server()
    pair.server.reply(number, EncodedReply(bytes(limits.FRAME_MAX_FROM_SERVER + 1)), pair.now)
    (event,) = pair.to_client()
    assert isinstance(event, ReplyReceived) and isinstance(event.reply, Refusal) and event.reply.code == "too-large"

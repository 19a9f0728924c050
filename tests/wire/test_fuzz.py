"""The invariant of the wire: for any octets in pieces of any size, `receive` returns events, in bounded memory."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from compass.wire import limits
from compass.wire.client_connection import ClientConnection
from compass.wire.connection import Connection
from compass.wire.events import Event, SessionEnded
from compass.wire.frames import HEADER_LENGTH, frame
from compass.wire.messages import encode
from compass.wire.server_connection import ServerConnection
from compass.wire.states import End
from tests.wire.examples import EXAMPLES
from tests.wire.link import HELLO, NOW, WELCOME, asked, end_of

FRAME_MAX = 4096
STREAMS = {
    end: [frame(encode(e.message), e.number) for e in EXAMPLES if e.sender == end] for end in ("server", "client")
}
ENDS: st.SearchStrategy[End] = st.sampled_from(["server", "client"])


def fresh(end: End, greeted: bool) -> Connection:
    if end == "server":
        server = ServerConnection(NOW, FRAME_MAX)
        server.receive(HELLO if greeted else b"", NOW)
        return server
    client = ClientConnection(NOW, "fuzz", FRAME_MAX)
    if greeted:
        client.receive(WELCOME, NOW)
        asked(client, 30)
    return client


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def fed(end: Connection, parts: list[bytes]) -> list[Event]:
    """The events of all parts, with the invariant looked at after each."""
    events: list[Event] = []
    for part in parts:
        was_over = end.state == "ended"
        found = end.receive(part, NOW)
        assert not (was_over and found)
        assert end._reader.held <= HEADER_LENGTH + FRAME_MAX + len(part)
        events += found
    assert [isinstance(event, SessionEnded) for event in events].count(True) == (end.state == "ended")
    return events


@settings(max_examples=400, deadline=None)
@given(end=ENDS, greeted=st.booleans(), data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_any_octets(end: End, greeted: bool, data: bytes, cuts: list[int]) -> None:
    """Noise as a stream."""
    fed(fresh(end, greeted), cut(data, cuts))


VALUES: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(end=ENDS, data=st.data())
def test_any_map_in_a_good_frame(end: End, data: st.DataObject) -> None:
    """A message of the peer with one field changed into anything: refused or read, never worse."""
    sender = "client" if end == "server" else "server"
    example = data.draw(st.sampled_from([e for e in EXAMPLES if e.sender == sender]))
    message = msgspec.to_builtins(example.message)
    message[data.draw(st.sampled_from([*message, "later"]))] = data.draw(VALUES)
    fed(fresh(end, greeted=True), [frame(msgspec.msgpack.encode(message), example.number)])


@settings(max_examples=400, deadline=None)
@given(
    end=ENDS,
    picked=st.lists(st.integers(0, 1000), min_size=1, max_size=5),
    wounds=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4),
    cuts=st.lists(st.integers(0, 5000), max_size=6),
)
def test_good_streams_with_wounds(end: End, picked: list[int], wounds: list[tuple[int, int]], cuts: list[int]) -> None:
    """Real messages with octets overwritten: the events do not depend on the pieces either."""
    frames = STREAMS["client" if end == "server" else "server"]
    stream = bytearray(b"".join(frames[index % len(frames)] for index in picked))
    for place, octet in wounds:
        stream[place % len(stream)] = octet
    whole, parted = fresh(end, greeted=True), fresh(end, greeted=True)
    # As text, because a wound can make a number that is not equal to itself.
    assert repr(fed(whole, [bytes(stream)])) == repr(fed(parted, cut(bytes(stream), cuts)))
    assert whole.bytes_to_send() == parted.bytes_to_send()


def test_a_peer_that_announces_much_and_sends_little_costs_little() -> None:
    """Memory follows what has come, not what was announced."""
    end = end_of("server")
    end.receive(HELLO + limits.FRAME_MAX_FROM_HOST.to_bytes(4, "big") + b"\0\0\0\1" + b"x" * 10, NOW)
    assert end._reader.held == HEADER_LENGTH + 10


def test_a_flood_of_small_frames_leaves_nothing_behind() -> None:
    """A piece of thousands of frames is cut to its end."""
    end = end_of("server")
    end.receive(HELLO + frame(b"\xc0", 5) * 5000, NOW)
    assert end._reader.held == 0
    assert end.state == "open"

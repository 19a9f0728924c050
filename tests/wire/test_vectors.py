"""`protocols/vectors.json`: what the document promises about octets, run through the real ends."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest

from compass.model.catalogue.digest import FIELDS, canonical, row_digest, to_hex
from compass.model.replies import Refusal
from compass.model.rows import Row
from compass.wire import messages
from compass.wire.events import (
    AcknowledgementReceived,
    Event,
    PushReceived,
    ReplyReceived,
    RequestReceived,
    SessionEnded,
    SessionOpened,
)
from compass.wire.frames import FrameReader, frame
from compass.wire.messages import Bookmark, decode_from_client, decode_from_server, encode
from compass.wire.server_connection import ServerConnection
from tests.wire import make_vectors
from tests.wire.link import NOW, PULL, asked, deliver, end_of, plain, sent_by
from tests.wire.vocabulary import WIRE_STRUCTS

VECTORS: dict[str, Any] = json.loads(make_vectors.PATH.read_text())
WELCOME = bytes.fromhex(next(v["frame"] for v in VECTORS["accepted"] if v["name"] == "welcome"))
TRAILING_NUMBER = 999
SIZES = (1, 7, 1 << 30)


def named(section: str) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in VECTORS[section]]


def message_of(event: Event) -> object:
    """Return the message of an event."""
    match event:
        case RequestReceived(request=request):
            return request
        case ReplyReceived(reply=reply):
            return reply
        case PushReceived(message=message):
            return message
        case AcknowledgementReceived(acknowledge=acknowledge):
            return acknowledge
        case SessionOpened(peer=peer):
            return peer
        case SessionEnded():
            return event


def test_the_file_is_what_its_maker_writes() -> None:
    """The vectors are up to date with the program: `python -m tests.wire.make_vectors` changes nothing."""
    assert make_vectors.PATH.read_text() == make_vectors.text()


@pytest.mark.parametrize("vector", named("accepted"))
def test_a_message_and_its_octets_are_the_same_thing(vector: dict[str, Any]) -> None:
    """Each frame reads as its message and each message is written as its frame."""
    data = bytes.fromhex(vector["frame"])
    ((number, body),) = FrameReader(VECTORS["server_frame_max"]).feed(data)
    assert number == vector["number"]
    assert msgspec.to_builtins(msgspec.msgpack.decode(body)) == vector["message"]
    message: messages.Message
    message = decode_from_client(body) if vector["from"] == "client" else decode_from_server(body)
    assert plain(message) == vector["message"]
    assert frame(encode(message), number) == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("vector", [*named("accepted"), *named("variants")])
def test_an_end_takes_a_message_in_whatever_pieces_it_comes(vector: dict[str, Any], size: int) -> None:
    """Whole, octet by octet, with more behind it: one event each, carrying the message."""
    data = bytes.fromhex(vector["frame"])
    kind = vector["message"]["type"]
    if vector["from"] == "client":
        end = end_of("server")
        before = b"" if kind == "hello" else bytes.fromhex(VECTORS["accepted"][0]["frame"])
        trailing = frame(encode(PULL), TRAILING_NUMBER)
    else:
        end = end_of("client")
        before = b"" if kind == "welcome" else WELCOME
        trailing = frame(encode(Bookmark(7)))
    end.receive(before, NOW)
    if end.state == "open" and vector["from"] == "server":
        asked(end, 30)
    events = deliver(end, data + trailing, size)
    ends_it = kind == "goodbye" or (kind == "refusal" and vector["number"] == 0)
    if ends_it:
        assert [type(event) for event in events] == [SessionEnded]
        return
    assert len(events) == 2
    shown = plain(message_of(events[0]))
    if kind == "hello":
        assert shown == {**vector["message"], "versions": [1]}
    else:
        assert shown == vector["message"]
    if isinstance(events[0], RequestReceived | ReplyReceived):
        assert events[0].number == vector["number"]
    assert end.state == "open"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("vector", named("parts"))
def test_parts_are_put_together(vector: dict[str, Any], size: int) -> None:
    """Each frame reads as its part; nothing happens before the last one, then the whole message arrives."""
    frames = [bytes.fromhex(one) for one in vector["frames"]]
    for data, part in zip(frames, vector["parts"], strict=True):
        assert msgspec.msgpack.decode(data[8:]) == {**part, "octets": bytes.fromhex(part["octets"])}
    end = end_of("client")
    end.receive(WELCOME, NOW)
    asked(end, vector["asked"])
    assert deliver(end, b"".join(frames[:-1]), size) == []
    (event,) = deliver(end, frames[-1], size)
    assert plain(message_of(event)) == vector["message"]
    assert not isinstance(event, ReplyReceived) or event.number == vector["number"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("vector", named("refused"))
def test_what_may_not_be_sent_is_refused_as_written(vector: dict[str, Any], size: int) -> None:
    """The code, the number and the fate of the session are those of the vector, however the octets are cut."""
    end = end_of(vector["to"])
    for data in vector["before"]:
        end.receive(bytes.fromhex(data), NOW)
    if vector["asked"]:
        asked(end, vector["asked"])
    end.bytes_to_send()
    data = bytes.fromhex(vector["frame"])
    events = deliver(end, data, size)
    sent = sent_by(end)
    assert (end.state == "ended") == (vector["session"] == "ended")
    assert [type(event) for event in events if isinstance(event, SessionEnded)] == [SessionEnded] * (
        end.state == "ended"
    )
    if isinstance(end, ServerConnection):
        assert [(number, code_of(message)) for number, message in sent] == (
            [(vector["number"], vector["code"])] if vector["code"] else []
        )
    else:
        assert sent == []
        told = [(event.number, code_of(event.reply)) for event in events if isinstance(event, ReplyReceived)]
        assert told == ([(vector["number"], vector["code"])] if vector["code"] else [])


def code_of(message: object) -> str:
    assert isinstance(message, Refusal)
    assert message.message
    return message.code


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "vector",
    [v for v in named("refused") if v.values[0]["to"] == "server" and not v.values[0]["name"].startswith("truncated")],
)
def test_what_follows_a_refusal_is_read_or_not(vector: dict[str, Any], size: int) -> None:
    """A session that goes on takes the next request whole; one that has ended takes nothing any more."""
    end = end_of("server")
    for data in vector["before"]:
        end.receive(bytes.fromhex(data), NOW)
    data = bytes.fromhex(vector["frame"])
    events = deliver(end, data + frame(encode(PULL), TRAILING_NUMBER), size)
    asked_for = [event for event in events if isinstance(event, RequestReceived)]
    assert asked_for == ([RequestReceived(TRAILING_NUMBER, PULL)] if vector["session"] == "alive" else [])


@pytest.mark.parametrize("struct", WIRE_STRUCTS, ids=lambda struct: struct.__name__)
def test_every_field_of_every_message_is_shown_by_a_vector(struct: type[msgspec.Struct]) -> None:
    """A stranger sees each field once with a value that is not its default."""
    shown: set[str] = set()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            config = struct.__struct_config__
            if config.tag is None or value.get(config.tag_field or "") == config.tag:
                shown.update(value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk([vector["message"] for vector in [*VECTORS["accepted"], *VECTORS["announcements"]]])
    walk([vector["parts"] for vector in VECTORS["parts"]])
    assert set(struct.__struct_fields__) <= shown


@pytest.mark.parametrize("vector", VECTORS["digests"], ids=lambda vector: str(vector["digest"])[:12])
def test_the_digest_of_a_row_is_that_of_its_octets(vector: dict[str, Any]) -> None:
    """Digests are computed independently: MessagePack in the order of the document, then BLAKE2b."""
    row = msgspec.convert(vector["row"], Row)
    octets = bytes.fromhex(vector["octets"])
    assert canonical(row) == octets
    assert hashlib.blake2b(octets, digest_size=32).hexdigest() == vector["digest"] == to_hex(row_digest(row))
    kind, *values = msgspec.msgpack.decode(octets)
    assert kind == vector["row"]["row"]
    assert len(values) == len(FIELDS[type(row)])


@pytest.mark.parametrize("vector", VECTORS["sums"], ids=str)
def test_the_digest_of_rows_is_a_sum(vector: dict[str, Any]) -> None:
    """Modulo 2**256, in any order."""
    digests = [int(VECTORS["digests"][place]["digest"], 16) for place in vector["rows"]]
    assert vector["digest"] == f"{sum(digests) % 2**256:064x}"

"""Large answers in pieces: the same JSON, made while the client reads it, and bounded for one that does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.internet.task import Clock

from compass.gateway.http import json_pieces, sse
from compass.gateway.http.json_pieces import LARGE_COUNT, PIECE_OCTETS_MIN, is_large
from compass.gateway.http.prometheus_sd import target_groups
from compass.gateway.http.sse import EventStream
from compass.model.host_api import Resolved
from compass.model.replies import CategoryView, Dependencies, Refusal, ServiceView
from compass.model.rows import Change, Listener


def listeners(count: int, octets: int = 0) -> tuple[Listener, ...]:
    what = {"k": "é" * octets} if octets else {}
    return tuple(Listener("a.uss", f"10.0.{n // 250}.{n % 250}", 80, "up", 5.0, n, metadata=what) for n in range(count))


def dependencies(count: int, octets: int = 0) -> Dependencies:
    services = (ServiceView("a.uss", listeners(count, octets)), ServiceView("b.uss"))
    views = (CategoryView("none"), CategoryView("uss", services, "s.help", listeners(2), pools={"a": "priority"}))
    return Dependencies("portal.web", 7, views)


@pytest.mark.parametrize(
    "value",
    [
        dependencies(0),
        dependencies(700),
        Dependencies("portal.web", 7),
        Resolved("uss", 7, "service", listeners(300), "least-used"),
        target_groups(listeners(300)),
        Refusal("busy", "later"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_pieces_are_the_json_of_the_whole(value: Any) -> None:
    pieces = list(json_pieces.json_pieces(value))
    assert msgspec.json.decode(b"".join(pieces)) == msgspec.json.decode(msgspec.json.encode(value))


def test_pieces_are_small() -> None:
    """A slow client costs one piece."""
    made = list(json_pieces.json_pieces(dependencies(2000, 200)))
    assert len(made) > 5
    assert max(map(len, made)) < PIECE_OCTETS_MIN + 2000


@pytest.mark.parametrize("beyond", [0, 1])
def test_what_is_large(beyond: int) -> None:
    """At LARGE_COUNT structs, counted through all lists: four views and services and two backups are among them."""
    assert is_large(dependencies(LARGE_COUNT - 7 + beyond)) is bool(beyond)
    assert is_large(Resolved("uss", 7, "service", listeners(LARGE_COUNT - 1 + beyond), "priority")) is bool(beyond)


class SlowRequest:
    """A client's request as a stream sees it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.channel = self
        self.aborted = False
        self.producer: Any = None

    def notifyFinish(self) -> Any:  # noqa: N802
        return self

    def addBoth(self, call: Any) -> None: ...  # noqa: N802

    def setHeader(self, name: str, value: str) -> None: ...  # noqa: N802

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.producer is not None:
            self.producer.pauseProducing()

    def forceAbortClient(self) -> None:  # noqa: N802
        self.aborted = True


def stream() -> tuple[EventStream, SlowRequest]:
    request: Any = SlowRequest()
    made = EventStream(request, Clock())
    made.start(lambda: None)
    return made, request


def test_a_large_event_is_encoded_while_its_client_reads() -> None:
    """The stream writes one piece each time that the transport has room; the next event follows a whole one."""
    events, request = stream()
    view = dependencies(2000, 200)
    events.deliver(7, "snapshot", view)
    change = Change(8, 7, 5.0, "register", listeners(1)[0])
    events.deliver(8, "change", change)
    assert sum(map(len, request.written)) < PIECE_OCTETS_MIN
    while len(request.written) < 100:
        before = len(request.written)
        events.resumeProducing()
        assert sum(map(len, request.written[before:])) < PIECE_OCTETS_MIN + 2000
        if len(request.written) == before:
            break
    first, second, rest = b"".join(request.written).split(b"\n\n")
    assert first.startswith(b"id: 7\nevent: snapshot\ndata: {") and rest == b""
    assert msgspec.json.decode(first.partition(b"data: ")[2], type=Dependencies) == view
    assert second.startswith(b"id: 8\nevent: change\ndata: {")


@pytest.mark.parametrize("beyond", [0, 1])
def test_events_for_a_client_that_does_not_read_are_bounded_in_octets(
    beyond: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: at HELD_OCTETS_MAX the stream goes on, with one octet more it is closed; it can be resumed."""
    events, request = stream()
    change = Change(8, 7, 5.0, "register", listeners(1, 1000)[0])
    events.deliver(8, "change", change)
    size = sum(map(len, request.written))
    monkeypatch.setattr(sse, "HELD_OCTETS_MAX", 4 * size - beyond)
    for _ in range(3):
        events.deliver(8, "change", change)
    assert request.aborted is bool(beyond)

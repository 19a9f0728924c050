"""Host of the first version: it sends only the fields of the first form, and fields that no server knows (P13)."""

from __future__ import annotations

from typing import Any

import msgspec

from compass.model.catalogue.catalogue import topic_of
from compass.model.replies import Refusal, Watching
from compass.model.requests import Watch
from compass.wire.events import Event, PushReceived, ReplyReceived, SessionEnded, SessionOpened
from compass.wire.frames import frame
from compass.wire.messages import Bookmark, Notice, Suspicion
from tests.histories.events import Answered, Ended, Opened, Received, Suspected, Watched
from tests.simulation.recording import Recorder
from tests.support.virtual_world import Client

NAME = "old"


class OldClient(Client):
    """Session of such a host; `held` is the revision from which the next one resumes."""

    def __init__(self, world: Any, recorder: Recorder, services: tuple[str, ...], since: int) -> None:
        super().__init__(world, ("host", NAME))
        self.recorder = recorder
        self.services = services
        self.held = since
        self.session = 0
        self.store = ""
        self.asked: set[int] = set()

    def refused(self) -> None:
        """Handle a connection that failed."""
        self.lost = True

    def say(self, what: str) -> None:
        """Something that no server knows; `push`: without a number, `request`: with one."""
        connection = self.connection
        if connection.state != "open" or what == "nothing":
            return
        number = 0
        if what == "request":
            connection._last_number += 1
            number = connection._last_number
            connection._waiting[number] = self.world.clock.seconds()
            self.asked.add(number)
        body = msgspec.msgpack.encode({"type": f"what-will-be-{what}", "whatever": [1, {"deep": None}]})
        self.transport.write(frame(body, number))

    def _note(self, event: Any) -> None:
        self.recorder(event, self.store)

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        if self.session:
            self._note(Ended(self.recorder.clock(), NAME, self.session))

    def _met(self, event: Event) -> None:
        at = self.recorder.clock()
        match event:
            case SessionOpened(peer):
                self.session = self.recorder.session()
                self.store = getattr(peer, "store", "")
                self._note(Opened(at, NAME, self.session, getattr(peer, "server", "")))
                self.send(Watch(self.services, self.store if self.held else "", self.held))
            case ReplyReceived(_, Watching() as told):
                start = self.held if told.snapshot is None else told.snapshot.revision
                self.held = start
                self._note(Watched(at, NAME, self.session, self.services, start, told.snapshot is not None))
            case ReplyReceived(number, Refusal() as refusal) if number in self.asked:
                self.recorder(Answered(at, NAME, "what-will-be-request", refusal.code))
            case PushReceived(Notice(change=change)):
                topic = topic_of(change.row)
                self._note(Received(at, NAME, self.session, change.revision, topic, change.previous))
                self.held = change.revision
            case PushReceived(Bookmark(revision=revision)):
                self._note(Received(at, NAME, self.session, revision))
                self.held = revision
            case PushReceived(Suspicion() as told):
                named = told.service, told.address, told.port, told.epoch, told.seconds
                self._note(Suspected(at, NAME, self.session, *named))
            case SessionEnded():
                self.lost = True
        super()._met(event)

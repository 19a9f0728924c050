"""Recorders for simulated machines: they look on from outside and change nothing of what happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from compass.model.catalogue.catalogue import Catalogue, topic_of
from compass.model.catalogue.interest import listed
from compass.model.replies import Deregistered, Refusal, Registered, Reply, Reported, Watching
from compass.model.requests import Deregister, Register, Report, Request, Watch
from compass.model.rows import Change, Listener
from compass.wire.messages import Bookmark, Notice, Pushed, Resync, Suspicion, Welcome
from tests.histories.events import (
    Answered,
    Applied,
    Committed,
    Ended,
    Event,
    History,
    Opened,
    Received,
    Suspected,
    View,
    Watched,
    instance_of,
)


class Recorder:
    """The history of one run."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.history: History = []
        self.stores: list[str] = []
        """Ids of the stores that the events are about, one for each event; empty: no certain one."""
        self.store = ""
        """Id of the store now."""
        self._sessions = 0

    def __call__(self, event: Event, store: str = "") -> None:
        self.history.append(event)
        self.stores.append(store)

    def session(self) -> int:
        """A number for a new one."""
        self._sessions += 1
        return self._sessions

    def answered(self, who: str, request: Request, reply: Reply, store: str = "") -> None:
        """A request that names a listener, with its answer."""
        if not isinstance(request, Register | Deregister | Report):
            return
        kind = str(request.__struct_config__.tag)
        key = request.service, request.address, request.port
        epoch = request.epoch if isinstance(request, Register | Deregister) else 0
        at = self.clock()
        match reply:
            case Registered() | Deregistered():
                outcome = str(reply.__struct_config__.tag)
                self(Answered(at, who, kind, outcome, reply.revision, reply.changed, *key, epoch, reply.state), store)
            case Reported():
                self(Answered(at, who, kind, "reported", reply.revision, False, *key, 0, reply.state), store)
            case Refusal():
                self(Answered(at, who, kind, reply.code, 0, False, *key, epoch), store)


class RecordedStore:
    """A store as one server sees it: what it commits is recorded."""

    def __init__(self, store: Any, who: str, recorder: Recorder) -> None:
        self._store, self._who, self._recorder = store, who, recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, expected: int, changes: Sequence[Change], *more: Any) -> None:
        """And note it; what was decided again is what was committed."""
        done = [changes]

        def decided(missed: list[Change]) -> Any:
            proposal = again(missed)
            done.append(proposal.changes)
            return proposal

        security, administration, again, digest = more
        self._store.commit(expected, changes, security, administration, decided, digest)
        at = self._recorder.clock()
        for change in done[-1]:
            self._recorder(Committed(at, self._who, change), self._recorder.store)


class HostRecorder:
    """Looks on at one host daemon: its session, what it is pushed, what it answers from."""

    def __init__(self, recorder: Recorder, who: str, components: Any) -> None:
        self._recorder, self._who = recorder, who
        self._replica: Any = components.replica
        self._seen: dict[str, View] = {}
        self._session, self._store = 0, ""
        """The last session, and the id of its server's store."""
        self._services: tuple[str, ...] = ()
        self._held = ""
        """Id of the store of which the views are."""
        self._around(components.sync, "session_opened", self._opened, before=True)
        self._around(components.sync, "session_pushed", self._pushed, before=True)
        self._around(components.sync, "session_ended", self._ended, before=True)
        self._around(self._replica, "watching", lambda *args: self._look("snapshot"))
        self._around(self._replica, "restore", lambda *args: self._look("disk"))
        notice = self._replica.notice

        def applied(message: Notice) -> Any:
            outcome = notice(message)
            recorder(Applied(recorder.clock(), who, message.change.revision, outcome), self._replica.store)
            row = message.change.row
            self._look("notice", row.service if isinstance(row, Listener) and message.snapshot is None else "")
            return outcome

        self._replica.notice = applied
        ask = components.upstream.ask

        def asked(request: Request) -> Any:
            return ask(request).addCallback(self._answered, request)

        components.upstream.ask = asked

    def _around(self, owner: Any, name: str, look: Callable[..., None], *, before: bool = False) -> None:
        inner = getattr(owner, name)

        def call(*args: Any) -> Any:
            if before:
                look(*args)
            result = inner(*args)
            if not before:
                look(*args)
            return result

        setattr(owner, name, call)

    def _note(self, event: Event) -> None:
        """Record what is seen on the session."""
        self._recorder(event, self._store)

    def _opened(self, welcome: Welcome) -> None:
        self._session, self._store = self._recorder.session(), welcome.store
        self._note(Opened(self._recorder.clock(), self._who, self._session, welcome.server))

    def _ended(self) -> None:
        self._note(Ended(self._recorder.clock(), self._who, self._session))

    def _pushed(self, messages: Sequence[Pushed]) -> None:
        at = self._recorder.clock()
        for message in messages:
            if isinstance(message, Notice):
                change = message.change
                topic = topic_of(change.row)
                self._note(Received(at, self._who, self._session, change.revision, topic, change.previous))
            elif isinstance(message, Bookmark):
                self._note(Received(at, self._who, self._session, message.revision))
            elif isinstance(message, Resync):
                start = message.snapshot.revision
                self._note(Watched(at, self._who, self._session, self._services, start, True, True))
            elif isinstance(message, Suspicion):
                told = message.service, message.address, message.port, message.epoch, message.seconds
                self._note(Suspected(at, self._who, self._session, *told))

    def _answered(self, reply: Reply, request: Request) -> Reply:
        if isinstance(request, Watch):
            if isinstance(reply, Watching):
                start = request.since if reply.snapshot is None else reply.snapshot.revision
                snapshot = reply.snapshot is not None
                at = self._recorder.clock()
                self._services = request.services
                takes = request.suspicions
                self._note(Watched(at, self._who, self._session, request.services, start, snapshot, takes))
        else:
            self._recorder.answered(self._who, request, reply, self._store)
        return reply

    def _look(self, because: str, topic: str = "") -> None:
        """Record what changed for programs."""
        catalogue: Catalogue = self._replica.catalogue
        if self._held != self._replica.store:
            self._held = self._replica.store
            self._seen.clear()
        topics = [topic] if topic else [name for name in catalogue.topics if "." in name]
        if not topic:
            for gone in sorted(self._seen.keys() - set(topics)):
                del self._seen[gone]
                self._recorder(View(self._recorder.clock(), self._who, gone, 0, (), because, False), self._held)
        for service in sorted(topics):
            if service in catalogue.topics:
                self._view(catalogue, service, because)

    def _view(self, catalogue: Catalogue, service: str, because: str) -> None:
        listeners = tuple(instance_of(row) for row in listed(catalogue, service))
        before, revision = self._seen.get(service), catalogue.topics[service]
        if before is None or before.listeners != listeners or before.revision != revision:
            view = View(self._recorder.clock(), self._who, service, revision, listeners, because)
            self._seen[service] = view
            self._recorder(view, self._held)

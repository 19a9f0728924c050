"""The way up against a server end that a test scripts: gaps, violations, limits, time, and dialled connections."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from compass.agent.agent import Agent
from compass.agent.dependencies import AgentDependencies
from compass.agent.replica import sync
from compass.agent.upstream import connector, pending_requests, server_selector, session
from compass.agent.upstream.server_selector import Candidate, ServerAddress, ServerSelector, in_order
from compass.model.host_api import LocalRegister
from compass.model.replies import Dependencies, Refusal, Registered, Watching
from compass.model.requests import Register, Watch
from compass.model.rows import Category, Change, Dependency, Listener, Row, Service, Snapshot
from compass.wire import limits
from compass.wire.events import AcknowledgementReceived, RequestReceived, SessionEnded, SessionOpened
from compass.wire.frames import frame
from compass.wire.messages import Acknowledge, Goodbye, Notice, Resync, encode
from compass.wire.server_connection import ServerConnection
from tests.support.virtual_world import SimulatedProcesses

RETURN_SECONDS = (server_selector.RETURN_SECONDS_MIN + server_selector.RETURN_SECONDS_MAX) / 2
"""Time after which a host with a random value of 0.5 returns to a preferred server."""
ROWS: list[Row] = [Category("web"), Service("www.web"), Dependency("web", "uss"), Category("uss"), Service("a.uss")]
VIEW = Snapshot(10, {"web": 5, "uss": 4, "a.uss": 3}, ROWS)


def listener(port: int) -> Listener:
    return Listener("a.uss", "10.0.0.1", port, "up", 1.0, 1)


def notice(revision: int, previous: int, port: int = 1) -> bytes:
    return frame(encode(Notice(Change(revision, previous, 1.0, "register", listener(port)))))


class Scripted:
    """A server end whose answers the test gives; it is its own transport towards the daemon."""

    def __init__(self, clock: Clock, protocol: Any, role: str = "server") -> None:
        self.clock = clock
        self.wire = ServerConnection(clock.seconds(), limits.FRAME_MAX_FROM_HOST)
        self.protocol = protocol
        self.role = role
        self.asked: list[RequestReceived] = []
        self.acknowledged: list[Acknowledge] = []
        self.open = True
        self.welcomes = True
        self.retry_after = 0.0
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        self.clock.callLater(0, self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        for event in self.wire.receive(data, self.clock.seconds()):
            match event:
                case SessionOpened() if self.welcomes:
                    self.wire.welcome("s", "store", 10, "", 1)
                case RequestReceived():
                    self.asked.append(event)
                case AcknowledgementReceived(acknowledge):
                    self.acknowledged.append(acknowledge)
                case SessionEnded():
                    pytest.fail(f"the daemon broke the protocol: {event}")
        self.flush()

    def flush(self) -> None:
        data = self.wire.bytes_to_send()
        if data and self.open:
            self.clock.callLater(0, self.protocol.dataReceived, data)

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def answer(self, reply: Any) -> Any:
        """Answer the oldest request and give it."""
        asked = self.asked.pop(0)
        self.wire.reply(asked.number, reply, self.clock.seconds())
        self.flush()
        return asked.request

    def watched(self, reply: Any = None) -> Watch:
        request = self.answer(reply or Watching("store", 10, VIEW))
        assert isinstance(request, Watch)
        return request

    def loseConnection(self) -> None:
        if self.open:
            self.open = False
            self.clock.callLater(0, self.protocol.connectionLost, Failure(ConnectionDone()))

    abortConnection = loseConnection

    def getPeer(self) -> tuple[str, str]:
        return (self.role, "s")


class Place:
    """An endpoint that connects to scripted servers, or never answers."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.servers: list[Scripted] = []
        self.dead = False
        self.welcomes = True
        self.role = "server"

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.dead:
            return Deferred()
        protocol = factory.buildProtocol(None)
        self.servers.append(Scripted(self.clock, protocol, self.role))
        self.servers[-1].welcomes = self.welcomes
        return succeed(protocol)


class Stage:
    """A daemon and the places it dials."""

    def __init__(self, directory: Path, places: int = 1, known: int | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.places = [Place(self.clock) for _ in range(places)]
        self.agent = Agent(
            AgentDependencies(
                clock=self.clock,
                now=self.clock.seconds,
                random=lambda: 0.5,
                state_directory=directory,
                host_name="h",
                default_address="10.0.0.1",
                selector=ServerSelector(
                    lambda: 0.5, in_order(f"s{place}" for place in range(places if known is None else known))
                ),
                dial=lambda server: cast(Any, self.places[int(server.name[1:]) if server.name[1:].isdigit() else 0]),
                process_watch=SimulatedProcesses(),
                peer_of=lambda transport: (*cast(Any, transport).getPeer(), ""),
                **options,
            )
        )

        self.daemon = self.agent.api
        self.upstream = self.agent.components.upstream

    def start(self) -> Scripted:
        self.agent.start()
        self.run()
        return self.server

    @property
    def server(self) -> Scripted:
        """The one connected to last."""
        return [server for place in self.places for server in place.servers][-1]

    def run(self, seconds: float = 0.0) -> None:
        self.clock.pump([0.0, 0.0] + [0.05] * round(seconds / 0.05) + [0.0, 0.0])

    def dialled(self, role: str = "server") -> Scripted:
        protocol = cast(Any, self.upstream.update_factory()).buildProtocol(None)
        server = Scripted(self.clock, protocol, role)
        self.run()
        return server


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def ready(stage: Stage) -> Scripted:
    """A session on which the host watches for www.web."""
    server = stage.start()
    server.watched(Watching("store", 10, Snapshot(10, {}, [])))
    stage.run()
    stage.daemon.dependencies("www.web")
    stage.run()
    server.answer(Dependencies("www.web", 10))
    stage.run()
    server.watched()
    stage.run()
    assert stage.daemon.status().revision == 10
    server.acknowledged.clear()
    return server


def resync(revision: int, port: int) -> bytes:
    """All of the view, with a listener."""
    snapshot = Snapshot(revision, {**VIEW.topics, "a.uss": revision}, [*ROWS, listener(port)])
    return frame(encode(Resync(snapshot)))


def test_a_missing_notice_is_mended(stage: Stage) -> None:
    """P4: the host logs the gap, reads everything, and continues from there."""
    server = ready(stage)
    server.send(notice(12, 11))
    stage.run()
    assert server.acknowledged == [Acknowledge(10, "gap")]
    server.send(notice(13, 12))
    request = server.watched(Watching("store", 13, Snapshot(13, {**VIEW.topics, "a.uss": 13}, [*ROWS, listener(1)])))
    assert (request.since, request.store) == (0, "")
    stage.run()
    assert server.acknowledged[-1] == Acknowledge(13)
    server.send(notice(14, 13, 2))
    stage.run()
    assert server.acknowledged[-1] == Acknowledge(14)


def test_a_server_that_keeps_losing_notices_is_left(stage: Stage) -> None:
    """After a number of gaps on one session the host connects to another server."""
    server = ready(stage)
    for number in range(sync.GAPS_PER_SESSION_MAX + 1):
        assert server.open
        server.send(notice(20 + 2 * number, 19 + 2 * number))
        stage.run()
        if server.asked:
            server.watched()
            stage.run()
    assert not server.open
    stage.run(1)
    assert stage.server is not server


def test_notices_that_came_together_are_acknowledged_once(stage: Stage) -> None:
    server = ready(stage)
    server.send(notice(11, 3) + notice(12, 11, 2) + notice(12, 11, 2))
    stage.run()
    assert server.acknowledged == [Acknowledge(12)]


def test_resuming(stage: Stage) -> None:
    """A new session goes on after the last notice, and nothing is read twice."""
    server = ready(stage)
    server.send(notice(11, 3))
    server.loseConnection()
    stage.run(1)
    again = stage.server
    assert again is not server
    request = again.watched(Watching("store", 11))
    assert (request.store, request.since, request.services) == ("store", 11, ("www.web",))
    stage.run()
    assert stage.daemon.status().problem == ""


def test_a_silent_server_is_left(stage: Stage) -> None:
    """No welcome in time, no reply in time: the next attempt follows."""
    stage.places[0].welcomes = False
    stage.start()
    stage.places[0].welcomes = True
    stage.run(limits.GREETING_SECONDS + 1)
    assert len(stage.places[0].servers) == 2
    stage.run(limits.REPLY_SECONDS + 1)
    assert len(stage.places[0].servers) == 3


def test_a_connection_that_never_comes(tmp_path: Path) -> None:
    """The next server is tried after a while."""
    stage = Stage(tmp_path, places=2)
    stage.places[0].dead = True
    stage.agent.start()
    stage.run(connector.CONNECT_SECONDS + 0.3)
    assert len(stage.places[1].servers) == 1


def test_a_dead_network_costs_little(tmp_path: Path) -> None:
    """If a server does not answer, the host tries the next one in parallel and uses its session."""
    stage = Stage(tmp_path, places=2)
    stage.places[0].dead = True
    stage.agent.start()
    stage.run(connector.BESIDE_SECONDS - 0.1)
    assert stage.places[1].servers == []
    stage.run(0.2)
    stage.server.watched()
    stage.run()
    assert stage.daemon.status().session == "open"
    slow, used = stage.daemon.status().servers
    assert (slow.state, used.state) == ("backing-off", "open")
    assert slow.problem == "no answer within 1.5 s; another address was faster"
    stage.run(connector.CONNECT_SECONDS)
    assert len(stage.places[1].servers) == 1


def test_a_server_that_takes_the_connection_and_is_silent_costs_as_little(tmp_path: Path) -> None:
    """If a machine hangs but its kernel answers, the host also tries the next server in parallel."""
    stage = Stage(tmp_path, places=2)
    stage.places[0].welcomes = False
    stage.start()
    stage.run(connector.BESIDE_SECONDS + 0.1)
    stage.places[1].servers[0].watched()
    stage.run()
    assert stage.daemon.status().session == "open" and not stage.places[0].servers[0].open


def test_ways_tried_at_once_are_bounded(tmp_path: Path) -> None:
    """A bounded number of attempts run in parallel; a further one begins after a failure."""
    stage = Stage(tmp_path, places=connector.DIALS_MAX + 1)
    for place in stage.places:
        place.welcomes = False
    stage.agent.start()
    stage.run(limits.GREETING_SECONDS - 0.5)
    assert [len(place.servers) for place in stage.places] == [1] * connector.DIALS_MAX + [0]
    stage.run(1)
    assert [len(place.servers) for place in stage.places][-1] == 1


def test_a_host_goes_back_to_the_server_that_it_prefers(tmp_path: Path) -> None:
    """Choice of a server, 6: "and MUST NOT end the one session before the other is welcomed". The view resumes."""
    stage = Stage(tmp_path, places=2)
    stage.places[0].dead = True
    stage.agent.start()
    stage.run(2)
    second = stage.places[1].servers[0]
    second.watched()
    stage.run()
    stage.places[0].dead, stage.places[0].welcomes = False, False
    stage.run(RETURN_SECONDS)
    first = stage.places[0].servers[0]
    assert second.open and stage.daemon.status().session == "open"
    first.wire.welcome("s", "store", 10, "", 1)
    first.flush()
    stage.run()
    assert not second.open and first.watched(Watching("store", 10)).since == 10
    stage.run()
    assert [known.state for known in stage.daemon.status().servers] == ["open", "ready"]
    assert stage.daemon.status().problem == ""


def test_a_preferred_server_that_is_not_back_is_looked_for_again(tmp_path: Path) -> None:
    """The session goes on as if nothing had been tried, also while a request waits for its answer."""
    stage = Stage(tmp_path, places=2)
    stage.places[0].dead = True
    stage.agent.start()
    stage.run(2)
    second = stage.places[1].servers[0]
    second.watched()
    stage.run(RETURN_SECONDS + connector.CONNECT_SECONDS + 1)
    status = stage.daemon.status()
    assert second.open and status.session == "open" and status.problem == "" and status.servers[0].failures == 2
    assert status.servers[0].problem == "no connection within 5 s"
    stage.places[0].dead = False
    stage.run(RETURN_SECONDS - connector.CONNECT_SECONDS - 2)
    stage.daemon.register(LocalRegister("www.web", 80, "t"))
    stage.run(1.5)
    assert second.asked and second.open
    assert [server.open for server in stage.places[0].servers] == [False]


def test_a_server_sends_its_hosts_elsewhere(tmp_path: Path) -> None:
    """Choice of a server, 5: to the server named, not to the next in the list; what is no name is skipped."""
    stage = Stage(tmp_path, places=3)
    server = ready(stage)
    server.wire.goodbye("drained", 60.0, ("no server!", "s2:4863"))
    server.flush()
    stage.run(server_selector.JUMP_SECONDS)
    assert [len(place.servers) for place in stage.places] == [1, 0, 1]
    stage.places[2].servers[0].watched(Watching("store", 10))
    stage.run()
    known = {one.name: one for one in stage.daemon.status().servers}
    assert known["s2"].state == "open" and known["s2"].steered and known["s0"].state == "asked-to-wait"


def test_a_stranger_that_a_server_sends_its_hosts_to(tmp_path: Path) -> None:
    """Choice of a server, 1: "A host MUST NOT send a request before the name of the server has been proven and, unless
    that very name is configured, the role `server`."
    """
    stage = Stage(tmp_path, places=3, known=2)
    server = ready(stage)
    stage.places[2].role = "host"
    server.wire.goodbye("drained", 60.0, ("s2:4863",))
    server.flush()
    stage.run(server_selector.JUMP_SECONDS + 1)
    stranger = stage.places[2].servers[0]
    assert not stranger.open and stranger.asked == []
    assert stage.places[1].servers[0].asked
    known = {one.name: one for one in stage.daemon.status().servers}
    assert known["s2"].source == "steered" and "has the role host" in known["s2"].problem


def test_servers_named_in_one_goodbye_are_bounded(tmp_path: Path) -> None:
    """ "It MUST consider at most 8": a ninth server is ignored, and the server does not send it either."""
    stage = Stage(tmp_path)
    server = ready(stage)
    names = tuple(f"gns{number}" for number in range(limits.INSTEAD_MAX + 1))
    server.send(frame(encode(Goodbye("drained", 60.0, names))))
    stage.run()
    steered = [known.name for known in stage.daemon.status().servers if known.steered]
    assert sorted(steered) == sorted(names[:-1])


def test_servers_that_are_found_are_tried_at_once(tmp_path: Path) -> None:
    """A host that knows no server waits for DNS and announcements; what asked meanwhile is answered then."""
    stage = Stage(tmp_path, places=1, known=0)
    stage.agent.start()
    stage.run(1)
    assert stage.daemon.status().session == "waiting"
    stage.upstream.update("dns", [Candidate(ServerAddress("s0", "s0", 4863), source="srv")])
    stage.run()
    stage.server.watched()
    stage.run()
    assert [(known.source, known.state) for known in stage.daemon.status().servers] == [("srv", "open")]


def test_servers_that_are_found_wait_for_their_turn(tmp_path: Path) -> None:
    """During an attempt at the preferred server a newly found one is dialled only after `BESIDE_SECONDS`."""
    stage = Stage(tmp_path, places=2, known=1)
    stage.places[0].welcomes = False
    stage.start()
    stage.upstream.update("dns", [Candidate(ServerAddress("s1", "s1", 4863), (1,), source="srv")])
    stage.run(connector.BESIDE_SECONDS - 0.2)
    assert stage.places[1].servers == []
    stage.run(0.3)
    assert len(stage.places[1].servers) == 1


def test_a_violation_ends_the_session(stage: Stage) -> None:
    """Bytes that are no message: the session is over, lookups are not."""
    server = ready(stage)
    server.send(frame(b"\xc1"))
    stage.run()
    assert not server.open and "malformed" not in stage.daemon.status().server
    assert not isinstance(stage.daemon.resolve("a.uss"), Refusal)


@pytest.mark.parametrize(("asked", "waited"), [(3.0, 3.0), (10_000.0, server_selector.RETRY_AFTER_SECONDS_MAX)])
def test_a_server_that_asks_for_patience(stage: Stage, asked: float, waited: float) -> None:
    """Goodbye names a time; the host keeps to it as far as that is sensible, and comes up to half as much later."""
    server = ready(stage)
    server.wire.goodbye("restarting", asked)
    server.flush()
    stage.run(waited - 0.5)
    assert len(stage.places[0].servers) == 1
    stage.run(waited / 4 + 1)
    assert len(stage.places[0].servers) == 2


def test_requests_in_flight_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request above the limit in flight waits; one above the limit of waiting requests is refused."""
    monkeypatch.setattr(session, "QUEUED_MAX", 2)
    server = ready(stage)
    ask = stage.upstream.ask
    answers: list[Any] = []
    count = limits.REQUESTS_IN_FLIGHT_MAX + session.QUEUED_MAX + 1
    for _ in range(count):
        ask(Watch(())).addCallback(answers.append)
    stage.run()
    assert len(server.asked) == limits.REQUESTS_IN_FLIGHT_MAX
    assert [answer.code for answer in answers] == ["busy"]
    while server.asked:
        server.answer(Watching("store", 10))
        stage.run()
    assert len(answers) == count


def test_a_request_that_is_too_long_for_the_server(stage: Stage) -> None:
    """The host refuses a request that is too long: sent, it would end this session and every later one."""
    server = ready(stage)
    answers: list[Any] = []

    def register(length: int) -> Register:
        return Register("a.uss", "t", "10.0.0.1", 1, 1, metadata={"k": "x" * length})

    fits = limits.FRAME_MAX_FROM_HOST - (len(encode(register(60_000))) - 60_000)
    stage.upstream.ask(register(fits)).addCallback(answers.append)
    stage.upstream.ask(register(fits + 1)).addCallback(answers.append)
    stage.run()
    assert len(server.asked) == 1 and [answer.code for answer in answers] == ["too-large"]


def test_waiting_for_a_session_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting requests are bounded in number and time; none waits if no server is being tried."""
    monkeypatch.setattr(pending_requests, "WAITING_MAX", 2)
    stage = Stage(tmp_path)
    stage.places[0].dead = True
    answers: list[Any] = []
    stage.upstream.ask(Watch(())).addCallback(answers.append)
    assert answers.pop().code == "unreachable"
    stage.agent.start()
    for _ in range(3):
        stage.upstream.ask(Watch(())).addCallback(answers.append)
    assert [answer.code for answer in answers] == ["busy"]
    stage.run(pending_requests.ASK_PATIENCE_SECONDS + 0.1)
    assert [answer.code for answer in answers] == ["busy", "unreachable", "unreachable"]


def test_a_dialled_session(stage: Stage) -> None:
    """Without a session of its own the host uses one that a server opened, and sends its hello on it."""
    stage.places[0].dead = True
    stage.agent.start()
    server = stage.dialled()
    server.watched()
    stage.run()
    assert stage.daemon.status().session == "open" and stage.daemon.status().server == "s"


def test_one_session_is_enough(stage: Stage) -> None:
    """While one is open, another that a server dials is closed without a word."""
    ready(stage)
    second = stage.dialled()
    assert not second.open and not second.asked and stage.daemon.status().session == "open"


def test_a_stranger_at_the_update_listener(stage: Stage) -> None:
    """A peer that is not a server gets no request: credentials are sent to servers only."""
    stage.places[0].dead = True
    stage.agent.start()
    stranger = stage.dialled(role="host")
    assert not stranger.open and stranger.asked == []
    assert stage.daemon.status().session != "open"


def test_an_answer_that_got_lost(stage: Stage) -> None:
    """A registration whose answer never came is pending, and asked for again with the same epoch."""
    server = ready(stage)
    outcomes: list[Any] = []
    stage.daemon.register(LocalRegister("www.web", 80, "t")).addCallback(outcomes.append)
    stage.run()
    first = cast(Register, server.asked[0].request)
    server.loseConnection()
    stage.run(1)
    assert outcomes[0].state == "pending"
    again = stage.server
    again.watched(Watching("store", 10))
    stage.run()
    assert again.answer(Registered(11, "up")) == first
    stage.run()
    assert stage.daemon.status().registrations[0].state == "registered"


def test_a_busy_server_is_asked_again(stage: Stage) -> None:
    """A request that is refused as busy is repeated on the same session after the given time."""
    server = ready(stage)
    outcomes: list[Any] = []
    stage.daemon.register(LocalRegister("www.web", 80, "t")).addCallback(outcomes.append)
    stage.run()
    server.answer(Refusal("busy", "wait", retry_after_seconds=2.0))
    stage.run(1.5)
    assert outcomes[0].state == "pending" and not server.asked
    stage.run(2)
    server.answer(Registered(11, "up"))
    stage.run()
    assert stage.daemon.status().registrations[0].state == "registered"


def test_a_barred_host(stage: Stage) -> None:
    """A server that does not let the host watch is left, with its reason in the status."""
    server = stage.start()
    server.watched(Refusal("forbidden", "an administrator has barred this host"))
    stage.run()
    assert "barred" in stage.daemon.status().problem


def test_a_server_that_cannot_let_the_host_watch_now_is_asked_when_it_says(stage: Stage) -> None:
    """A refusal of the watch with a time is kept to like a goodbye with one."""
    server = stage.start()
    server.watched(Refusal("busy", "the store is slow", retry_after_seconds=8.0))
    stage.run(7.5)
    assert not server.open and len(stage.places[0].servers) == 1
    stage.run(3.0)
    assert len(stage.places[0].servers) == 2


def test_a_host_that_read_too_slowly_takes_everything_anew(stage: Stage) -> None:
    """A resync replaces what is held, is acknowledged, and mends a gap that was just being asked about."""
    server = ready(stage)
    server.send(resync(40, 1))
    stage.run()
    assert server.acknowledged == [Acknowledge(40)]
    assert stage.daemon.status().revision == 40
    server.send(notice(50, 45))
    stage.run()
    assert server.acknowledged[-1] == Acknowledge(40, "gap")
    server.send(resync(60, 2))
    server.send(notice(61, 60, 3))
    stage.run()
    assert server.acknowledged[-1] == Acknowledge(61)


def test_a_notice_of_what_is_held_is_acknowledged(stage: Stage) -> None:
    """A duplicate: the host holds the change, and a server that waits for the acknowledgement would end the session."""
    server = ready(stage)
    held = Snapshot(40, {**VIEW.topics, "a.uss": 45}, [*ROWS, listener(1)])
    server.send(frame(encode(Resync(held))))
    server.send(notice(45, 12))
    stage.run()
    assert server.acknowledged[-1] == Acknowledge(45)
    assert stage.daemon.status().revision == 45


def test_the_refresh_is_a_question_that_costs_little(tmp_path: Path) -> None:
    """Now and then the host asks whether all is as held; a dead connection is noticed by that."""
    stage = Stage(tmp_path, refresh_seconds=100.0)
    server = ready(stage)
    stage.run(101)
    assert server.watched(Watching("store", 10)).since == 10
    stage.run(101)
    assert len(server.asked) == 1
    stage.run(limits.REPLY_SECONDS + 1)
    assert len(stage.places[0].servers) == 2


def test_at_rest_a_kept_session_has_one_question_in_an_hour(stage: Stage) -> None:
    """P4: "a `watch` that the agent repeats on a kept session, by default once an hour"; nothing else is sent."""
    server = ready(stage)
    stage.clock.advance(3_500.0)
    stage.run()
    assert not server.asked and not server.acknowledged and server.open
    stage.clock.advance(101.0)
    stage.run()
    assert server.watched(Watching("store", 10)).since == 10


def test_stopping(stage: Stage) -> None:
    """The session is left, nothing is deregistered, no timer stays behind."""
    server = ready(stage)
    stage.daemon.register(LocalRegister("www.web", 80, "t"))
    stage.run()
    server.answer(Registered(11, "up"))
    stage.run()
    stopped: list[None] = []
    stage.agent.stop().addCallback(stopped.append)
    stage.run()
    assert stopped == [None] and not server.open and not server.asked
    assert stage.clock.getDelayedCalls() == []
    assert stage.daemon.status().session == "stopped"


def test_stopping_before_anything_came(stage: Stage) -> None:
    """Also in the middle of connecting."""
    stage.places[0].dead = True
    stage.agent.start()
    waiting: list[Any] = []
    stage.upstream.ask(Watch(())).addCallback(waiting.append)
    stopped: list[None] = []
    stage.agent.stop().addCallback(stopped.append)
    stage.run()
    assert stopped == [None] and waiting[0].code == "unreachable"
    assert stage.clock.getDelayedCalls() == []

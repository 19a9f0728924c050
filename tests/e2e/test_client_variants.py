"""The client library against real daemons: one suite that its three faces share."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compass import client
from compass.client.core.endpoint import ApiEndpoint
from compass.model.host_api import LocalDeregister, Outcome, Resolved
from compass.model.rows import Listener
from tests.e2e.client_variants import FACES, Face, Opened
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import Program, eventually
from tests.e2e.watching import listener_of

LOOKUPS = 50
ME = "portal.web"


class World:
    """Two hosts of dependants, storage and a backup; and listeners of the counting service, as processes."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.lonely = deployment.add_host("lonely", port=free_port(deployment.address))
        """A host whose server does not exist."""
        self.web, self.other, self.storage, self.rescue = deployment.add_hosts("web", "other", "storage", "rescue")
        self.told = deployment.watch(self.other)

    def start(self, service: str, host: Host) -> tuple[Outcome, Program]:
        """Register a listener whose process is not watched, so that only its users find out when it dies."""
        port = free_port(host.address)
        command = [sys.executable, "-m", "tests.e2e.counting", host.address, str(port)]
        program = Program(f"{service} {port}", command, self.deployment.directory / f"counting-{port}.log")
        self.deployment.programs.append(program)
        program.start()
        eventually(lambda: "listens" in program.shown_log(), "the service listens")
        mark = self.told.mark()
        outcome = self.deployment.register(host, service, port)
        self.told.told(service, "up", port, mark)
        return outcome, program

    def end(self, *listeners: tuple[Outcome, Program | None]) -> None:
        """End what was started, whatever state it is in, and wait until the dependants know."""
        for outcome, program in listeners:
            if program is not None:
                program.clear_away()
            mark = self.told.mark()
            host = next(host for host in self.deployment.hosts.values() if host.address == outcome.address)
            token = self.deployment.token(outcome.service)
            host.api.deregister(LocalDeregister(outcome.service, outcome.port, token, outcome.address))
            self.told.told(outcome.service, "offline", outcome.port, mark)


@pytest.fixture(scope="module")
def world(deployment: Deployment) -> World:
    """Shared by the module's tests."""
    return World(deployment)


@pytest.fixture(params=sorted(FACES))
def kind(request: pytest.FixtureRequest) -> str:
    """Each of the faces."""
    return str(request.param)


@pytest.fixture
def face(world: World, kind: str) -> Iterator[Face]:
    """A client on the web host, on behalf of portal.web."""
    with Opened(kind, ApiEndpoint(path=str(world.web.socket)), ME) as face:
        yield face


class Door:
    """A listening socket in the place of a dead listener, that counts who comes: users speak, probes ask for health."""

    def __init__(self, address: str, port: int) -> None:
        self.users = 0
        self._listening = socket.create_server((address, port), backlog=LOOKUPS)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listening.accept()[0]
            except OSError:
                return
            connection.settimeout(1.0)
            try:
                said = connection.recv(100)
            except OSError:
                said = b""
            self.users += not said.startswith(b"GET ")
            connection.close()


def test_a_session_goes_on_with_another_listener_when_one_is_killed(world: World, face: Face) -> None:
    """The listener in use is killed: the exchange is answered by another one, which goes on where the first one was
    ("state cookie"); the report arrives, and "other hosts never try the dead one".
    """
    service = "northeast.openuss"
    one, two = world.start(service, world.storage), world.start(service, world.storage)
    conversation = face.converse(service)
    assert [conversation.ask("next") for _ in range(3)] == [1, 2, 3]
    conversation.bake(b"3")
    used = conversation.peer
    killed, left = (one, two) if one[0].port == used.port else (two, one)
    mark = world.told.mark()
    killed[1].kill()
    begun = time.monotonic()
    assert conversation.ask("next") == 4
    answered = time.monotonic() - begun
    assert conversation.peer.port == left[0].port
    told = world.told.told(service, "suspect", used.port, mark) - begun
    print(
        f"\nkilled in use: answered by another after {1000 * answered:.1f} ms, other host notified {1000 * told:.1f} ms"
    )
    door = Door(used.address, used.port)
    with client.Client(ME, ApiEndpoint(path=str(world.other.socket))) as elsewhere:
        for _ in range(LOOKUPS):
            with elsewhere.connect(service) as session:
                assert session.peer.port == left[0].port
                session.stream.sendall(b"who\n")
    world.told.told(service, "down", used.port, mark)
    assert door.users == 0
    print(f"{LOOKUPS} connections of the other host, {door.users} of them to the dead one")
    socket.create_connection((used.address, used.port)).close()
    eventually(lambda: door.users == 1, "the door counts")
    door.close()
    entries = [entry for entry in world.deployment.updates() if entry.port == used.port]
    assert [entry.operation for entry in entries][:2] == ["register", "report"]
    assert "portal.web on web.example.net" in str(entries[1].change.row)
    conversation.close()
    world.end(one, two)


def test_when_none_of_a_service_is_left_the_session_goes_to_the_backup(world: World, face: Face) -> None:
    """ "Goes to the backup": both listeners are killed under the session; then there is no listener at all."""
    service = "chinaserver.openuss"
    own = [world.start(service, world.storage) for _ in range(2)]
    backup = world.start("emergency.rescue", world.rescue)
    conversation = face.converse(service)
    conversation.ask("next")
    assert conversation.peer.service == service
    for _, program in own:
        program.kill()
    assert conversation.ask("who") == backup[0].port
    assert conversation.peer.service == "emergency.rescue"
    backup[1].kill()
    with pytest.raises(client.NoneAnswers) as nobody:
        conversation.ask("who")
    assert f"{world.rescue.address}:{backup[0].port}" in nobody.value.tried
    conversation.close()
    world.end(*own, backup)


def test_a_listener_that_hangs_is_left_after_the_exchanges_own_patience(world: World, face: Face) -> None:
    """SIGSTOP: it still accepts connections, so no client is connected to it again."""
    service = "northwest.openuss"
    listeners = [world.start(service, world.storage) for _ in range(2)]
    conversation = face.converse(service)
    conversation.ask("next")
    hung = conversation.peer
    program = next(program for outcome, program in listeners if outcome.port == hung.port)
    os.kill(program.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{program.pid}/task").iterdir
    eventually(lambda: all((task / "stat").read_text().split()[2] == "T" for task in stat()), "it has stopped")
    assert conversation.ask("who") not in (hung.port, 0)
    conversation.close()
    world.end(*listeners)


def test_a_registration_lasts_as_long_as_its_block(world: World, face: Face, tmp_path: Path) -> None:
    """2.1 and 2.2 by `register` as a context manager; with the process's own number, and held by a connection."""
    token = world.deployment.token("account.openuso")
    file = tmp_path / "token"
    file.write_text(token)
    file.chmod(0o600)
    for options in (
        {"credential": token, "weight": 3, "metadata": {"zone": "b"}},
        {"credential_file": file, "hold": True},
    ):
        port = free_port(world.web.address)
        mark = world.told.mark()
        with face.register("account.openuso", port, **options) as registration:
            assert registration.outcome.state == "up"
            world.told.told("account.openuso", "up", port, mark)
            row = world.deployment.listeners()["account.openuso", port]
            assert (row.weight, row.metadata) == (options.get("weight", 1), options.get("metadata", {}))
            status = world.web.status()
            assert status is not None
            own = next(own for own in status.registrations if own.port == port)
            assert (own.pid, own.hold) == ((0, True) if "hold" in options else (os.getpid(), False))
        world.told.told("account.openuso", "offline", port, mark)


def test_a_lookup_after_the_first_asks_nobody(world: World, face: Face) -> None:
    """Answered from memory while the daemon is stopped (SIGSTOP); what changed meanwhile is there soon after."""
    service = "account.openuso"
    outcome = world.deployment.register(world.storage, service)
    eventually(lambda: _ports(face, service) == [outcome.port], "the face knows it")
    os.kill(world.web.daemon.pid, signal.SIGSTOP)
    try:
        assert {port for _ in range(LOOKUPS) for port in _ports(face, service)} == {outcome.port}
        assert [view.category for view in face.dependencies().categories] == ["openuso", "openuss"]
        other = world.deployment.register(world.storage, service)
    finally:
        os.kill(world.web.daemon.pid, signal.SIGCONT)
    eventually(lambda: _ports(face, service) == sorted([outcome.port, other.port]), "the face has caught up")
    world.end((outcome, None), (other, None))
    eventually(lambda: _ports(face, service) == [], "the face has seen both go")


def test_a_report_is_told_to_the_others(world: World, face: Face) -> None:
    """Function 2.5 by hand."""
    one = world.start("northeast.openuss", world.storage)
    mark = world.told.mark()
    row = eventually(lambda: _row(face, "northeast.openuss", one[0].port), "the face knows it")
    one[1].kill()
    assert face.report(row, "no answer for 9 s").state == "suspect"
    world.told.told("northeast.openuss", "down", one[0].port, mark)
    world.end(one)


def test_watch_and_registration_outlive_a_restart_of_the_daemon(world: World, face: Face) -> None:
    """ "Reconnect when the host daemon restarts; watch resumes with Last-Event-ID": no event is left out, none comes
    twice, lookups go on meanwhile, and a held registration is made again.
    """
    service = "account.openuso"
    watch = face.watch()
    assert watch.next().kind == "snapshot"
    port = free_port(world.web.address)
    with (
        # The server asks there when the session of the host is lost for long.
        socket.create_server((world.web.address, port)),
        face.register(service, port, credential=world.deployment.token(service), hold=True) as registration,
    ):
        eventually(lambda: _ports(face, service) == [port], "the face knows it")
        first = registration.outcome
        world.web.saved()
        world.web.daemon.kill()
        assert _ports(face, service) == [port]
        world.web.daemon.start()
        world.web.in_session()
        eventually(lambda: registration.outcome is not first, "it is registered again")
        assert (registration.outcome.state, registration.outcome.epoch) == ("up", first.epoch)
        other = world.deployment.register(world.storage, service)
        events = [watch.next()]
        while (row := listener_of(events[-1])) is None or row.port != other.port:
            events.append(watch.next())
        assert all(event.kind == "change" for event in events)
        revisions = [event.revision for event in events]
        assert revisions == sorted(set(revisions))
        own = [row.state for row in map(listener_of, events) if row is not None and row.port == port]
        assert own == ["up"]
        world.end((other, None))
    watch.close()


def test_each_failure_has_an_exception_of_its_own(world: World, kind: str, face: Face) -> None:
    """ "Daemon not running (what to start), unknown name, none registered, not loaded yet: distinct exceptions.\""""
    with pytest.raises(client.NoneRegistered, match="no usable listener is registered, and no backup"):
        face.resolve("account.openuso")
    with pytest.raises(client.UnknownName, match=r"there is no service 'nobody\.openuso'"):
        face.resolve("nobody.openuso")
    with pytest.raises(client.UnknownName, match="no service of this host depends on category elsewhere"):
        face.resolve("elsewhere")
    with pytest.raises(client.NotAllowed, match="credential"), face.register("account.openuso", 9, credential="wrong"):
        pass
    absent = ApiEndpoint(path=str(world.deployment.directory / "nobody.sock"))
    with Opened(kind, absent, ME) as alone:
        with pytest.raises(client.DaemonUnreachable, match=r"opengnscd at unix:.*nobody\.sock.*: start it"):
            alone.resolve("openuso")
        begun = time.monotonic()
        with (
            pytest.raises(client.DaemonUnreachable),
            alone.register("account.openuso", 9, credential="any", patience_seconds=0.3),
        ):
            pass
        assert time.monotonic() - begun >= 0.3


def test_a_daemon_that_has_seen_no_server_says_so(world: World, kind: str) -> None:
    """P5: "not loaded yet" is no statement about what is registered."""
    world.lonely.answers()
    with (
        Opened(kind, ApiEndpoint(path=str(world.lonely.socket)), ME) as face,
        pytest.raises(client.NotLoaded, match="not been loaded"),
    ):
        face.resolve("openuso")


def test_without_a_service_of_its_own_a_program_asks_each_time(world: World, kind: str) -> None:
    """The name is served by what other services of the host depend on."""
    outcome = world.deployment.register(world.storage, "account.openuso")
    world.web.resolves("account.openuso", "service", [outcome.port])
    with Opened(kind, ApiEndpoint(address=world.web.address, port=world.web.port), "") as face:
        assert _ports(face, "account.openuso") == [outcome.port]
        with pytest.raises(client.UnknownName, match="OPENGNS_SERVICE"):
            face.dependencies()
        assert face.dependencies("account.openuso").categories == ()
    world.end((outcome, None))


def _ports(face: Face, name: str) -> list[int]:
    try:
        return sorted(peer.port for peer in face.resolve(name).listeners)
    except client.NoneRegistered:
        return []


def _row(face: Face, name: str, port: int) -> Listener | None:
    try:
        return next((peer for peer in face.resolve(name).listeners if peer.port == port), None)
    except client.NoneRegistered:
        return None


def test_the_pool_policy_and_nearness_decide_here_as_on_the_daemon(world: World, face: Face) -> None:
    """All share an implementation: what an administrator sets is in the next answers of daemon and memory."""
    service, category = "account.openuso", "openuso"
    near, far = (world.deployment.register(host, service) for host in (world.web, world.storage))
    everybody = sorted([near.port, far.port])
    eventually(lambda: _ports(face, service) == everybody, "the face knows both")

    def firsts(resolve: Callable[[str], Resolved], policy: str) -> list[int]:
        """Return the listeners that come first in four lookups, once the policy is known."""
        eventually(lambda: resolve(service).policy == policy, f"{policy} is known")
        return [resolve(service).listeners[0].port for _ in range(4)]

    lookups: tuple[Callable[[str], Resolved], ...] = (face.resolve, world.web.api.resolve)
    world.deployment.opengnsadmin("category", "set", category, "--pool", "round-robin")
    for resolve in lookups:
        turns = firsts(resolve, "round-robin")
        assert turns[:2] == turns[2:]
        assert sorted(turns[:2]) == everybody
    world.deployment.opengnsadmin("category", "set", category, "--pool", "priority", "--locality", "host")
    for resolve in lookups:
        assert firsts(resolve, "priority") == [near.port] * 4
    world.deployment.opengnsadmin("category", "set", category, "--pool", "weighted-random", "--locality", "none")
    world.end((near, None), (far, None))

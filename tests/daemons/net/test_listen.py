"""Network of the daemons: alert command, listening, identity of peers, connections to hosts."""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from compass.daemons.alerts.command import ERROR_OUTPUT_OCTETS_MAX, CommandFailed, command_runner
from compass.daemons.config.sections import TlsSettings
from compass.daemons.net import listen as net_listen
from compass.daemons.net.database_thread import DatabaseThread
from compass.daemons.net.listen import PeerRoles, listen, listen_unix, own_name, rules_of
from compass.daemons.net.live_identity import LiveIdentity
from compass.daemons.net.reuseport import StreamPort
from compass.daemons.net.transport import wrap_tls
from compass.daemons.services.opengnssd import DialDenied, connector
from compass.model.interfaces import StoreUnavailable
from compass.model.rules.networks import ProbeNetworks
from compass.pki.authority import Credentials
from compass.pki.identity import Identity, IdentityError, load_identity
from compass.pki.tls_contexts import server_context
from tests.support.certificates import changed
from tests.support.installation import AUTHORITY, Installation
from tests.support.reactor_thread import ReactorThread

NOBODY = Factory.forProtocol(Protocol)


@pytest.fixture(scope="module")
def thread() -> Iterator[ReactorThread]:
    """Run a real reactor, which watches real child processes."""
    thread = ReactorThread()
    yield thread
    thread.stop()


def alert(thread: ReactorThread, *command: str, limit_seconds: float = 20.0) -> None:
    """Run an alert command. Raises CommandFailed."""
    run = command_runner(thread.reactor, command, limit_seconds)
    thread.call(_reaping, thread.reactor, run)


def _reaping(reactor: Any, run: Any) -> Deferred[None]:
    """Poll for ended children: Twisted receives SIGCHLD in the main thread only."""
    from twisted.internet.process import reapAllProcesses

    def look() -> None:
        reapAllProcesses()
        if not over.called:
            reactor.callLater(0.01, look)

    over: Deferred[None] = run(b'{"event":"opened"}')
    look()
    return over


def test_the_alert_command_gets_the_news_on_its_standard_input(thread: ReactorThread, tmp_path: Path) -> None:
    """The command gets the whole message, then the end of the file."""
    alert(thread, "sh", "-c", f"cat > {tmp_path}/news; echo ignored output")
    assert (tmp_path / "news").read_text() == '{"event":"opened"}'


def test_a_command_that_fails_tells_how_and_why(thread: ReactorThread) -> None:
    """The log gets the status and the end of the output, which is bounded (P10)."""
    with pytest.raises(CommandFailed, match=r"exit code 3\. no mail today$"):
        alert(thread, "sh", "-c", "echo no mail today >&2; exit 3")
    with pytest.raises(CommandFailed) as told:
        alert(thread, sys.executable, "-c", "import sys; sys.stderr.write('x' * 50_000 + 'end'); sys.exit(1)")
    assert str(told.value).endswith("xend")
    assert str(told.value).count("x") <= ERROR_OUTPUT_OCTETS_MAX


def test_a_command_that_hangs_is_ended(thread: ReactorThread) -> None:
    """The next alert can be sent, even if a child of the command continues and holds its pipes."""
    began = time.monotonic()
    with pytest.raises(CommandFailed, match=r"signal 9\. killed after 0\.2 s"):
        alert(thread, "sh", "-c", "sleep 3 & wait", limit_seconds=0.2)
    alert(thread, "sh", "-c", "sleep 3 &")
    assert time.monotonic() - began < 2.5


def test_a_command_that_does_not_read_is_no_trouble(thread: ReactorThread) -> None:
    """A command may ignore its input."""
    alert(thread, "true")


def listened(monkeypatch: pytest.MonkeyPatch, reason: int, address: str) -> tuple[Any, list[str]]:
    """Listen as on a machine without IPv6. Returns the port, and the address that was used."""
    asked: list[str] = []

    class Port(StreamPort):
        def startListening(self) -> None:  # noqa: N802
            asked.append(self.interface)
            if ":" in self.interface:
                raise CannotListenError(self.interface, self.port, OSError(reason, "no"))

    monkeypatch.setattr(net_listen, "StreamPort", Port)
    outcome: list[Any] = []
    Deferred.fromCoroutine(listen(Clock(), address, 4863, NOBODY)).addBoth(outcome.append)
    return outcome[0], asked


def test_everywhere_is_ipv4_on_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default works there; an address of IPv6 and a port in use are reported."""
    port, asked = listened(monkeypatch, errno.EAFNOSUPPORT, "::")
    assert port.interface == "0.0.0.0"
    assert asked == ["::", "0.0.0.0"]
    assert listened(monkeypatch, errno.EAFNOSUPPORT, "::1")[0].check(CannotListenError)
    assert listened(monkeypatch, errno.EADDRINUSE, "::")[0].check(CannotListenError)


def test_everywhere_takes_both_families(thread: ReactorThread) -> None:
    """[::] is reachable over IPv4, as its description says."""
    port = thread.call(lambda: Deferred.fromCoroutine(listen(thread.reactor, "::", 0, NOBODY)))
    try:
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port.getHost().port), 5).close()
    finally:
        thread.call(port.stopListening)


def test_a_socket_with_a_full_queue_is_a_living_daemons(thread: ReactorThread, tmp_path: Path) -> None:
    """The socket of a hanging daemon is not replaced."""
    path = tmp_path / "gns.sock"
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(str(path))
        with pytest.raises(CannotListenError):
            thread.call(listen_unix, thread.reactor, path, 0o666, NOBODY)
        for one in waiting:
            one.close()
    assert path.is_socket()


def test_work_of_the_database_thread_has_a_result_or_a_failure(thread: ReactorThread) -> None:
    """Work that has begun is finished before the thread stops."""
    database = DatabaseThread(thread.reactor)
    database.start()
    assert thread.call(database.run, sum, [1, 2]) == 3
    with pytest.raises(ZeroDivisionError):
        thread.call(database.run, lambda: 1 / 0)
    begun, done = Event(), Event()

    def work() -> None:
        begun.set()
        time.sleep(0.05)
        done.set()

    thread.reactor.callFromThread(database.run, work)
    begun.wait(5)
    thread.call(database.stop)
    assert done.is_set()


def test_a_call_that_hangs_is_ended(thread: ReactorThread) -> None:
    """A connection that never answers is aborted and replaced, and does not keep the daemon from stopping."""
    database = DatabaseThread(thread.reactor)
    database.start()
    freed, cuts = Event(), []

    def cut() -> None:
        cuts.append(time.monotonic())
        freed.set()

    def hang() -> str:
        assert freed.wait(20)
        freed.clear()
        return "it was cut"

    thread.call(database.guard, cut, 0.1)
    assert thread.call(database.run, hang) == "it was cut"
    assert len(cuts) == 1
    begun = Event()

    def hang_again() -> None:
        begun.set()
        hang()

    thread.call(database._check.cancel)
    thread.reactor.callFromThread(database.run, hang_again)
    assert begun.wait(5)
    refused: list[Failure] = []
    thread.call(lambda: database.run(sum, [1]).addErrback(refused.append) and None)
    thread.call(database.stop)
    assert len(cuts) == 2
    thread.call(lambda: None)
    assert refused[0].check(StoreUnavailable), "what had not been begun is not begun any more"


def identity(installation: Installation, name: str) -> Identity:
    directory = installation.directory
    key, crt = directory / f"{name}.key", directory / f"{name}.crt"
    return load_identity(key, crt, directory / "authority.crt", datetime.now(UTC))


def settings(**rules: Any) -> TlsSettings:
    return TlsSettings("web1.crt", "web1.key", "authority.crt", **rules)


def test_a_daemon_knows_its_own_name(installation: Installation) -> None:
    """The name comes from the certificate or by the rules; an invalid name and a wrong role are reported with the
    file."""
    web1 = identity(installation, "web1")
    assert own_name(web1, settings(), "host") == "web1"
    assert rules_of(settings()) is None
    assert own_name(web1, settings(server=("web*",)), "server") == "web1"
    with pytest.raises(IdentityError, match=r"web1\.crt has the role host; this daemon needs one with the role server"):
        own_name(web1, settings(), "server")
    with pytest.raises(IdentityError, match=r"web1\.crt: no role rule matches"):
        own_name(web1, settings(host=("db*",)), "host")
    installation.certify("host", "web_1")
    with pytest.raises(IdentityError, match="'web_1' is not a DNS label"):
        own_name(identity(installation, "web_1"), settings(), "host")


class Transport:
    """Transport whose peer has shown a certificate."""

    def __init__(self, identity: Identity) -> None:
        from OpenSSL import crypto

        self._shown = crypto.X509.from_cryptography(identity.certificate)

    def getPeerCertificate(self) -> object:
        return self._shown


def test_a_peer_is_known_by_role_and_name(installation: Installation) -> None:
    """Names of hosts are in lower case; an unknown peer is refused with the reason."""
    installation.certify("host", "WEB2")
    installation.certify("host", "web_1")
    peer = PeerRoles(None).identify
    assert peer(Transport(identity(installation, "WEB2"))) == ("host", "web2", "")
    assert peer(Transport(identity(installation, "root"))) == ("admin", "root", "")
    assert "not a DNS label" in peer(Transport(identity(installation, "web_1")))[2]
    by_rules = PeerRoles(rules_of(settings(host=("db*",))))
    assert "no role rule" in by_rules.identify(Transport(identity(installation, "root")))[2]


def live(installation: Installation, thread: ReactorThread, name: str) -> LiveIdentity:
    """The identity of that name as a daemon holds it."""
    certificate, key, trusted = (
        str(installation.directory / file) for file in (f"{name}.crt", f"{name}.key", "authority.crt")
    )
    return LiveIdentity(thread.reactor, TlsSettings(certificate, key, trusted), "server")


class Host(Protocol):
    """Host that sends first."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(b"hello")


class End(Protocol):
    """Connecting end: closes after the greeting; records the received data and the end."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: Deferred[Exception] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        transport: Any = self.transport
        transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(reason.value)


def test_a_host_on_a_denied_network_is_not_dialled(installation: Installation, thread: ReactorThread) -> None:
    """W8: the update address of a host is a network that the server's file may deny."""
    connect = connector(thread.reactor, live(installation, thread, "gns1"), ProbeNetworks())
    with pytest.raises(DialDenied, match="which is probed only if probe_networks names it"):
        thread.call(connect, "web1", "127.0.0.1", 4865, End)


@pytest.mark.parametrize(("name", "proven"), [("web1", True), ("web2", False)])
def test_a_dialled_host_proves_its_name(
    installation: Installation, thread: ReactorThread, name: str, proven: bool
) -> None:
    """P11: the server talks to the intended host only, and reports the name that it reached instead."""
    reactor = thread.reactor
    factory = wrap_tls(server_context(identity(installation, "web1")), Factory.forProtocol(Host), client=False)
    port = thread.call(lambda: Deferred.fromCoroutine(listen(reactor, "127.0.0.1", 0, factory)))
    connect: Any = connector(reactor, live(installation, thread, "gns1"), ProbeNetworks(is_local=True))
    try:
        end = thread.call(connect, name, "127.0.0.1", port.getHost().port, End)
        reason = str(thread.call(lambda: end.lost))
        assert end.heard == (b"hello" if proven else b"")
        assert ("dialled web2, but the certificate shown is for web1" in reason) != proven
    finally:
        thread.call(port.stopListening)


class Waiting(End):
    """Connecting end that stays until the other one, or TLS, ends the connection."""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data


@pytest.mark.parametrize("expiring", ["dialled", "dialling"])
def test_both_ends_leave_when_the_other_s_certificate_expires(
    installation: Installation, thread: ReactorThread, expiring: str
) -> None:
    """A host leaves a server, and a server a host, at the end of the certificate; the reason says so."""
    seconds, reactor = 2.0, thread.reactor
    name = "web1" if expiring == "dialled" else "gns1"
    directory = installation.directory
    whole = Credentials((directory / f"{name}.key").read_bytes(), (directory / f"{name}.crt").read_bytes())
    short = changed(AUTHORITY, whole, seconds=seconds)
    (directory / f"{name}.crt").write_bytes(short.certificate_pem)
    began = time.monotonic()
    listening = Waiting()
    factory = wrap_tls(
        server_context(identity(installation, "web1")), Factory.forProtocol(lambda: listening), client=False
    )
    port = thread.call(lambda: Deferred.fromCoroutine(listen(reactor, "127.0.0.1", 0, factory)))
    connect: Any = connector(reactor, live(installation, thread, "gns1"), ProbeNetworks(is_local=True))
    try:
        dialling = thread.call(connect, "web1", "127.0.0.1", port.getHost().port, Waiting)
        leaving = dialling if expiring == "dialled" else listening
        text = str(thread.call(lambda: leaving.lost))
        assert f"the certificate 'CN={name}" in text and "expired on" in text
        assert seconds - 1.0 < time.monotonic() - began < seconds + 1.5
    finally:
        thread.call(port.stopListening)

"""Sessions: which peers are accepted, how sessions end, and what one peer may cost (P10, P11)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.internet.error import ConnectionRefusedError

from compass.model.replies import (
    CredentialIssued,
    Dependencies,
    Done,
    LogEntries,
    Refusal,
    Registered,
    Rows,
    ServerStatus,
    Told,
    Watching,
)
from compass.model.requests import (
    Apply,
    Fetch,
    Impact,
    IssueCredential,
    Pull,
    Put,
    ReadLog,
    Register,
    Remove,
    Status,
    Watch,
)
from compass.model.rows import Category, Credential, Host
from compass.server.sessions import connection_limits
from compass.wire import limits
from compass.wire.frames import frame
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, register, watcher


def security(world: Uss) -> list[Any]:
    reply = world.admin().ask(ReadLog("security"))
    assert isinstance(reply, LogEntries)
    return list(reply.entries)


def test_nothing_is_answered_before_the_catalogue_is_complete(world: Uss) -> None:
    """P5: a server answers nothing until its catalogue is loaded; it sends peers away for a moment."""
    server = world.server(database_seconds=(5.0, 5.0))
    early = world.stranger(("host", "web1"))
    world.until(lambda: early.ended is not None)
    assert early.opened is None
    assert early.ended is not None and early.ended.retry_after_seconds == 1.0
    world.wait(server.started)
    assert isinstance(world.client(("host", "web1")).ask(Pull("portal.web")), Dependencies)


@pytest.mark.parametrize(("role", "why"), [("server", "has the role server"), ("visitor", "has the role visitor")])
def test_a_certificate_without_a_fitting_role_is_refused_and_logged(world: Uss, role: str, why: str) -> None:
    """P11: the refusal and the security log say who came from where, and what is missing."""
    server = world.server()
    world.wait(server.started)
    client = world.stranger((role, "stranger"))
    world.until(lambda: client.lost)
    world.run(0.1)
    entry = security(world)[0]
    assert (entry.operation, entry.principal, entry.origin) == ("connect", "stranger", "stranger")
    assert why in entry.reason


def test_a_host_may_not_administer(world: Uss) -> None:
    """P11: each refusal names who, what, and the right that is missing; one row in the security log."""
    world.wait(world.server().started)
    reply = world.client(("host", "web1")).ask(Put(Category("mine"), True))
    assert isinstance(reply, Refusal) and reply.code == "forbidden"
    assert "host 'web1' may not put: that needs the role admin" in reply.message
    for request in (Fetch("category"), Status()):
        assert world.client(("host", "web1")).ask(request).code == "forbidden"
    world.run(0.1)
    assert [entry.operation for entry in security(world)] == ["put", "fetch", "status"]


def test_a_wrong_credential_is_refused_and_logged_with_its_origin(world: Uss) -> None:
    """G4: a refusal that names service and action, one security row, no update row, no notice."""
    world.wait(world.server().started)
    client = watcher(world, "web1", "portal.web")
    store = world.client(("host", "store1"))
    before = world.admin().ask(Status()).revision
    reply = store.ask(Register(CHINA, "wrong", "192.168.2.1", 2028, 1))
    assert isinstance(reply, Refusal) and reply.code == "bad-credential"
    assert CHINA in reply.message and "register" in reply.message
    world.run(0.5)
    (entry,) = security(world)
    assert (entry.operation, entry.subject, entry.origin, entry.principal) == ("register", CHINA, "store1", "store1")
    assert "wrong" not in entry.parameters
    assert world.admin().ask(Status()).revision == before
    assert not client.pushed


def test_an_unreadable_request_is_refused_and_the_session_goes_on(world: Uss) -> None:
    """An unreadable request does not end the session where the protocol allows."""
    world.wait(world.server().started)
    client = world.client(("host", "web1"))
    client.connection._waiting[77] = 0.0
    client.transport.write(frame(b"\x81\xa4type\xa4nope", 77))
    world.until(lambda: 77 in client.replies)
    assert client.replies[77].code == "unknown-message"  # type: ignore[union-attr]
    assert isinstance(client.ask(Pull("portal.web")), Dependencies)


def test_a_frame_that_is_too_long_ends_the_session_and_no_other(world: Uss) -> None:
    """P10: the server reads the announced length, not the frame."""
    world.wait(world.server().started)
    hostile, other = world.client(("host", "web1")), world.client(("host", "web2"))
    hostile.transport.write((limits.FRAME_MAX_FROM_HOST + 1).to_bytes(4, "big") + bytes(4))
    world.until(lambda: hostile.lost)
    assert isinstance(other.ask(Pull("portal.web")), Dependencies)
    exact = world.client(("host", "web3"))
    exact.connection._waiting[5] = 0.0
    exact.transport.write(frame(bytes(limits.FRAME_MAX_FROM_HOST), 5))
    world.until(lambda: 5 in exact.replies)
    assert exact.replies[5].code == "malformed"  # type: ignore[union-attr]


def test_a_connection_that_says_nothing_is_dropped(world: Uss) -> None:
    """A peer that never greets holds a socket for ten seconds and no longer."""
    world.wait(world.server().started)

    class Mute:
        lost = False

        def makeConnection(self, transport: Any) -> None:
            self.transport = transport

        def connectionLost(self, reason: Any) -> None:
            self.lost = True

    mute = world.wait(world.network.connect("gns1", ("host", "web1"), Mute))
    world.run(limits.GREETING_SECONDS - 1)
    assert not mute.lost
    world.run(2.0)
    assert mute.lost


def test_connect_ask_leave(world: Uss) -> None:
    """A session that only asks is accepted, and ended when it stays idle."""
    world.wait(world.server().started)
    client = world.client(("host", "web1"))
    assert isinstance(client.ask(Pull("portal.web")), Dependencies)
    world.run(limits.IDLE_SECONDS - 1)
    assert client.ended is None
    world.run(2.0)
    assert client.ended is not None and "idle" in client.ended.reason


def test_a_watching_session_at_rest_costs_no_message(world: Uss) -> None:
    """G15: at rest, no application message at all, for an hour."""
    world.wait(world.server().started)
    client = watcher(world, "web1", "portal.web")
    heard, said = client.octets, client.transport.octets_written
    world.run(3600.0)
    assert (client.octets, client.transport.octets_written) == (heard, said)
    assert client.ended is None


def test_a_peer_that_stops_reading_is_disconnected_and_delays_no_other(world: Uss, monkeypatch: Any) -> None:
    """P10: what is buffered for one session is bounded."""
    monkeypatch.setattr(limits, "SEND_BUFFER_MAX", 4096)
    monkeypatch.setattr(limits, "ACKNOWLEDGE_SECONDS", 1e6)
    world.wait(world.server().started)
    stuck, other = watcher(world, "web1", "portal.web"), watcher(world, "web2", "portal.web")
    stuck.transport.pause_reading()
    store = world.client(("host", "store1"))
    for epoch in range(1, 700):
        register(world, store, epoch=epoch)
    world.run(1.0)
    assert stuck.lost
    assert len(other.pushed) == 699 and not other.lost


def test_sessions_are_bounded(world: Uss, monkeypatch: Any) -> None:
    """P10: one connection more than the limit is refused, and accepted when another one has closed."""
    monkeypatch.setattr(connection_limits, "SESSIONS_MAX", 2)
    world.wait(world.server().started)
    first, _second = world.client(("host", "web1")), world.client(("host", "web2"))
    with pytest.raises(ConnectionRefusedError):
        world.stranger(("host", "web3"))
    first.transport.loseConnection()
    world.run(0.1)
    assert world.client(("host", "web3")).opened is not None


def test_a_barred_host_is_disconnected_and_refused(world: Uss) -> None:
    """A bar ends the host's open sessions at once."""
    world.wait(world.server().started)
    client = watcher(world, "web1", "portal.web")
    world.admin().ask(Put(Host("web1", services=("portal.web",), barred=True)))
    world.until(lambda: client.ended is not None)
    again = world.client(("host", "web1"))
    assert again.ask(Pull("portal.web")).code == "forbidden"
    world.admin().ask(Put(Host("web1", services=("portal.web",))))
    assert isinstance(world.client(("host", "web1")).ask(Pull("portal.web")), Dependencies)


def test_a_watch_that_cannot_be_is_refused(world: Uss) -> None:
    """Names are checked before anything is recorded."""
    world.wait(world.server().started)
    client = world.client(("host", "web1"))
    assert client.ask(Watch(("no service",))).code == "bad-name"
    assert client.ask(Watch(("portal.web",), update_address="nowhere", update_port=4865)).code == "bad-address"
    assert client.ask(Watch(tuple(f"s{n}.web" for n in range(257)))).code == "too-large"
    assert isinstance(client.ask(Watch(tuple(f"s{n}.web" for n in range(256)))), Watching)


def test_an_administrator_reads_the_server(world: Uss) -> None:
    """Status, rows and impact show what the server has."""
    world.wait(world.server().started)
    watcher(world, "web1", "portal.web")
    assert isinstance(register(world, world.client(("host", "store1"))), Registered)
    admin = world.admin()
    status = admin.ask(Status())
    assert isinstance(status, ServerStatus)
    assert status.counts == {"category": 4, "service": 6, "listener": 1, "dependency": 2, "credential": 6, "host": 1}
    assert (status.states, status.watching, status.sessions) == ({"up": 1}, 1, 3)
    rows = admin.ask(Fetch("listener"))
    assert isinstance(rows, Rows) and [row.service for row in rows.rows] == [CHINA]  # type: ignore[union-attr]
    told = admin.ask(Impact("openuss"))
    assert isinstance(told, Told) and told.hosts == ("web1",)


def test_a_read_log_waits_for_the_next_entry(world: Uss) -> None:
    """A read-log that waits is answered after the next commit, or with no entry when its time is over."""
    world.wait(world.server().started)
    admin = world.admin()
    revision = admin.ask(Status()).revision
    number = admin.send(ReadLog("updates", after=revision, wait_seconds=10.0))
    world.run(1.0)
    assert number not in admin.replies
    register(world, world.client(("host", "store1")))
    world.until(lambda: number in admin.replies, 1.0)
    reply = admin.replies[number]
    assert isinstance(reply, LogEntries) and [entry.number for entry in reply.entries] == [revision + 1]
    empty = admin.ask(ReadLog("updates", after=revision + 1, wait_seconds=3.0))
    assert empty == LogEntries((), 1)
    # No caller waits any longer, and nothing is kept of the callers that did.
    assert not world.servers["gns1"].nameserver.commits._commit_waiters


def test_no_answer_has_the_digest_of_a_credential(world: Uss) -> None:
    """ "Always '' on the wire": in the log, in lists and in the reply to the request for the credential."""
    world.wait(world.server().started)
    admin = world.admin()
    issued = admin.ask(IssueCredential(CHINA))
    assert isinstance(issued, CredentialIssued) and issued.credential.digest == ""
    credentials = world.servers["gns1"].nameserver.catalogue.credentials.values()
    digests = {row.digest for own in credentials for row in own.values()}
    assert len(digests) == 7 and all(len(digest) == 64 for digest in digests)
    for request in (ReadLog("updates"), ReadLog("updates", last=5, pages=True), Fetch("credential"), Status()):
        reply = msgspec.json.encode(admin.ask(request)).decode()
        assert not [digest for digest in digests if digest in reply]
    log = admin.ask(ReadLog("updates", last=1))
    assert isinstance(log, LogEntries) and log.entries[0].change.row == issued.credential  # type: ignore[union-attr]


def test_no_reply_with_changes_has_the_digest_of_a_credential(world: Uss) -> None:
    """A service that is removed, or pruned by a topology, goes with its credentials: the reply shows them without."""
    world.wait(world.server().started)
    catalogue = world.servers["gns1"].nameserver.catalogue
    digests = {row.digest for own in catalogue.credentials.values() for row in own.values()}
    admin = world.admin()
    for request in (Apply((), prune=True, dry_run=True), Remove("service", CHINA), Apply((), prune=True)):
        reply = admin.ask(request)
        assert isinstance(reply, Done)
        assert [change.row.digest for change in reply.changes if isinstance(change.row, Credential)]
        encoded = msgspec.json.encode(reply).decode()
        assert not [digest for digest in digests if digest in encoded]


def test_a_server_that_stops_says_goodbye(world: Uss) -> None:
    """A server that gets SIGTERM sends hosts a goodbye: they reconnect in a moment, not after a timeout."""
    server = world.server()
    world.wait(server.started)
    client = watcher(world, "web1", "portal.web")
    server.stop()
    world.until(lambda: client.ended is not None)
    assert client.ended is not None and client.ended.retry_after_seconds > 0
    # Nothing of it is left running.
    world.run(60.0)
    assert not world.clock.getDelayedCalls()

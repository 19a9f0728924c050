"""Refusals, and what a refusal leaves behind: its own log row and nothing else."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime

import pytest

from compass.admin.shell.connection import AdminSession, ConnectionFailed, Server, connect_tcp, context_of, start_tls
from compass.client.core.blocking_api import ApiProblem
from compass.model.host_api import LocalDeregister, LocalRegister
from compass.model.replies import LogEntries, Refusal, Registered
from compass.model.requests import Deregister, Fetch, Put, ReadLog, Register
from compass.model.rows import Category, SecurityEntry
from compass.pki.authority import create_authority
from tests.e2e.deployment import ANSWER_SECONDS, Deployment, free_port, new_address


@pytest.fixture(scope="module")
def world(deployment: Deployment) -> Deployment:
    """Start a host that depends on storage, and storage."""
    deployment.add_hosts("web", "storage")
    return deployment


def _security(deployment: Deployment) -> list[SecurityEntry]:
    entries = deployment.ask(ReadLog("security", 0, 10_000), LogEntries).entries
    return [entry for entry in entries if isinstance(entry, SecurityEntry)]


def test_a_late_deregistration_leaves_the_new_instance_alone(world: Deployment) -> None:
    """Issue 2, line 6: "A late deregister with an old epoch leaves the new registration alone; the answer says so";
    P6. A service restarts at the same port; then comes the goodbye of the instance before, through the same host's
    daemon, and another time straight to the server.
    """
    storage = world.hosts["storage"]
    old = world.register(storage, "account.openuso")
    new = world.register(storage, "account.openuso", old.port)
    assert new.epoch > old.epoch
    revision = world.revision
    token = world.token("account.openuso")
    late = LocalDeregister("account.openuso", old.port, token, epoch=old.epoch)
    with pytest.raises(ApiProblem, match="newer instance, which stays registered") as refused:
        storage.api.deregister(late)
    assert (refused.value.code, refused.value.epoch) == ("stale-epoch", new.epoch)
    more = {"OPENGNS_CREDENTIAL": token}
    asked = world.opengnsc(
        storage, "deregister", "account.openuso", str(old.port), "--epoch", str(old.epoch), more=more
    )
    assert asked.returncode != 0
    assert "newer instance" in asked.stderr
    straight = Deregister("account.openuso", token, storage.address, old.port, old.epoch)
    reply = world.ask(straight, Refusal, world.certify("host", "elsewhere.example.net"))
    assert (reply.code, reply.epoch) == ("stale-epoch", new.epoch)
    row = world.listeners()["account.openuso", new.port]
    assert (row.state, row.epoch, world.revision) == ("up", new.epoch, revision)


def test_a_wrong_credential_leaves_one_row_in_the_security_log_and_nothing_else(world: Deployment) -> None:
    """Issue 2, line 7: "A wrong credential: refusal that names the service and the action; one row in the security log
    with the origin address; no notice"; G4, P11. Through a host's daemon, and from an address of its own.
    """
    web, storage = world.hosts["web"], world.hosts["storage"]
    tokens = [world.token(name) for name in ("account.openuso", "northeast.openuss")]
    dependant = world.watch(web)
    mark, revision, rows = dependant.mark(), world.revision, world.listeners()
    before = len(_security(world))
    wrong = LocalRegister("account.openuso", free_port(storage.address), tokens[1])
    with pytest.raises(ApiProblem, match=r"register account\.openuso: this is not a credential") as refused:
        storage.api.register(wrong)
    assert refused.value.code == "bad-credential"
    entries = _security(world)[before:]
    assert [(e.operation, e.subject, e.principal, e.origin) for e in entries] == [
        ("register", "account.openuso", storage.name, "127.0.0.1")
    ]
    # From a machine of its own, which the log names.
    origin = new_address()
    place, identity = Server(world.address, world.port), world.certify("host", "intruder.example.net")
    plain = socket.create_connection((world.address, world.port), ANSWER_SECONDS, source_address=(origin, 0))
    secured = start_tls(plain, context_of(identity), place, world.address)
    with AdminSession(secured, place, "a test", ANSWER_SECONDS) as link:
        reply = link.ask(Register("account.openuso", "guessed", "192.0.2.66", 666, 1))
    assert isinstance(reply, Refusal)
    assert reply.message.startswith("register account.openuso: ")
    entries = _security(world)[before + 1 :]
    assert len(entries) == 1
    entry = entries[0]
    assert (entry.origin, entry.principal, entry.operation) == (origin, "intruder.example.net", "register")
    assert json.loads(entry.parameters)["address"] == "192.0.2.66"
    assert "guessed" not in entry.parameters
    # The next thing that the dependant hears of is the next thing that happens.
    last = world.register(storage, "account.openuso")
    dependant.told("account.openuso", "up", last.port, mark)
    assert len(dependant.since(mark)) == 1
    assert [e.number for e in world.updates(revision)] == [last.revision]
    assert {place: row for place, row in world.listeners().items() if place[1] != last.port} == rows


def test_a_wrong_credential_is_not_asked_again(world: Deployment) -> None:
    """A host keeps what a server cannot take yet, but not what it refused: a restart repeats nothing."""
    storage = world.hosts["storage"]
    before = len(_security(world))
    with pytest.raises(ApiProblem):
        storage.api.register(LocalRegister("account.openuso", free_port(storage.address), "wrong"))
    storage.restart()
    storage.in_session()
    world.register(storage, "northwest.openuss")
    assert len(_security(world)) == before + 1


def test_administration_is_refused_to_a_host_and_logged(world: Deployment) -> None:
    """G20: "an unauthorised one refused and logged"; P11: the refusal names who, what and the right that is missing."""
    identity = world.certify("host", "curious.example.net")
    before, revision = len(_security(world)), world.revision
    reply = world.ask(Put(Category("mine"), create=True), Refusal, identity)
    assert reply.code == "forbidden"
    assert "curious.example.net" in reply.message
    assert "admin" in reply.message
    reading = world.ask(Fetch("credential"), Refusal, identity)
    assert reading.code == "forbidden"
    # The program says so with an exit status of its own.
    said = world.opengnsadmin("category", "add", "mine", status=4, identity=identity)
    assert "forbidden" in said
    entries = _security(world)[before:]
    assert {entry.principal for entry in entries} == {"curious.example.net"}
    assert len(entries) == 3
    assert world.revision == revision


def test_a_client_of_another_authority_is_refused_and_the_server_goes_on(world: Deployment) -> None:
    """P11 and "bad input": "a certificate of another CA ... the other side stays alive, nothing is lost". Even a
    stranger who calls itself an administrator gets no session, while the hosts keep theirs.
    """
    strangers = create_authority("strangers", datetime.now(UTC))
    identity = world.certify("admin", "mallory", authority=strangers)
    dependant = world.watch(world.hosts["web"])
    mark = dependant.mark()
    with pytest.raises(ConnectionFailed, match="authority is not trusted by the server") as refused:
        world.link(identity)
    assert refused.value.kind == "untrusted"
    outcome = world.register(world.hosts["storage"], "northwest.openuss")
    dependant.told("northwest.openuss", "up", outcome.port, mark)


def test_bytes_that_are_no_tls_and_frames_that_are_no_messages_end_one_connection_only(world: Deployment) -> None:
    """P10 and "bad input": "a frame too long, a truncated or lying length": their sender loses this session, and
    no other peer notices.
    """
    dependant = world.watch(world.hosts["web"])
    mark = dependant.mark()
    place = Server(world.address, world.port)
    plain = connect_tcp(place, ANSWER_SECONDS)
    plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert _closes(plain)
    secured = start_tls(
        connect_tcp(place, ANSWER_SECONDS), context_of(world.certify("host", "noisy.example.net")), place, place.host
    )
    secured.sendall(b"\xff" * 64)
    assert _closes(secured)
    outcome = world.register(world.hosts["storage"], "northwest.openuss")
    dependant.told("northwest.openuss", "up", outcome.port, mark)


def _closes(connection: socket.socket) -> bool:
    """Return whether the other end closes the connection, whatever it says before."""
    connection.settimeout(ANSWER_SECONDS)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    connection.close()
    return True


def test_a_registration_answers_what_is_stored(world: Deployment) -> None:
    """G1 and G2: "a service starts; listener list shows id, address, port, state, time", from the answer on."""
    storage = world.hosts["storage"]
    port = free_port(storage.address)
    asked = world.opengnsc(
        storage,
        *("--json", "register", "chinaserver.openuss", str(port), "--weight", "2", "--metadata", "zone=b"),
        more={"OPENGNS_CREDENTIAL": world.token("chinaserver.openuss")},
    )
    assert asked.returncode == 0, asked.stderr
    outcome = json.loads(asked.stdout)
    table = world.opengnsadmin("listener", "list", "--within", "chinaserver.openuss")
    assert all(word in table for word in ("chinaserver.openuss", f"{storage.address}", str(port), "up"))
    shown = json.loads(
        world.opengnsadmin("--json", "listener", "show", "chinaserver.openuss", f"{storage.address}:{port}")
    )
    row = shown if "service" in shown else shown["rows"][0]
    assert (row["service"], row["address"], row["port"], row["state"]) == (
        *("chinaserver.openuss", storage.address, port),
        "up",
    )
    assert (row["weight"], row["metadata"], row["epoch"]) == (2, {"zone": "b"}, outcome["epoch"])
    assert abs(row["changed_at"] - datetime.now(UTC).timestamp()) < 60
    again = Register("chinaserver.openuss", world.token("chinaserver.openuss"), storage.address, port, outcome["epoch"])
    identity = world.certify("host", "twice.example.net")
    # Who asks again for the same instance moves it to another host at most; it is not there twice.
    assert world.ask(again, Registered, identity).state == "up"
    assert [place for place in world.listeners() if place[1] == port] == [("chinaserver.openuss", port)]

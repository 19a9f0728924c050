"""The server is killed while it is writing: what it answered is there, once, and the log has the whole story."""

from __future__ import annotations

import threading
import time
from collections import Counter

from compass.admin.shell.connection import AdminSession, ConnectionFailed, IdentityFiles, Server
from compass.model.catalogue.catalogue import catalogue_of
from compass.model.host_api import LocalEvent
from compass.model.replies import Registered, Rows
from compass.model.requests import Fetch, Register
from compass.model.rows import Listener, key_of
from compass.store.store import Store
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import ANSWER_SECONDS, Deployment, Host
from tests.e2e.processes import PATIENCE_SECONDS, eventually

CLIENTS = 20
REGISTRATIONS = 1000
KILLED_AT = (250, 600)
"""Answers after which the server is killed."""
WHOLE_SECONDS = 4 * PATIENCE_SECONDS
"""Time limit for the whole test, two restarts included."""
SERVICE = "northeast.openuss"
PORTS = range(20_000, 20_000 + REGISTRATIONS // CLIENTS)


class Client:
    """A host that registers its share over one session, and goes on with the same when the server is back."""

    def __init__(self, deployment: Deployment, number: int, token: str) -> None:
        self.address = f"192.0.2.{number + 1}"
        self.answered: dict[int, int] = {}
        """The revision of each answer, by port."""
        self.losses = 0
        self._place = Server(deployment.address, deployment.port)
        self._identity: IdentityFiles = deployment.certify("host", f"client{number}.example.net")
        self._token = token
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        until = time.monotonic() + WHOLE_SECONDS
        while len(self.answered) < len(PORTS) and time.monotonic() < until:
            try:
                with AdminSession.connect([self._place], self._identity, ANSWER_SECONDS) as link:
                    self._register_all(link)
            except ConnectionFailed:
                self.losses += 1
                time.sleep(0.02)

    def _register_all(self, link: AdminSession) -> None:
        for port in PORTS:
            if port not in self.answered:
                # The epoch is the instance's, so asking again after a loss is the same registration.
                reply = link.ask(Register(SERVICE, self._token, self.address, port, epoch=1))
                assert isinstance(reply, Registered), reply
                self.answered[port] = reply.revision


def test_a_server_killed_while_it_writes_loses_and_doubles_nothing(deploy: Deploy) -> None:
    """Issue 2, line 4: "kill -9 of opengnssd in the middle of 1,000 registrations by 20 concurrent clients: after
    restart every answered registration is there, none is there twice, the update log has no gap, and replaying it
    gives the tables"; P1, P2, G3. Killed twice; the clients come back by themselves and finish.

    P3 and G11 in the same storm: a dependant is sent each of these changes once and in order, resumes by itself, never
    needs a new snapshot, and in the end holds what a pull gives.
    """
    deployment = deploy()
    deployment.start()
    token = deployment.token(SERVICE)
    (web,) = deployment.add_hosts("web")
    dependant = deployment.watch(web)
    mark = dependant.mark()
    clients = [Client(deployment, number, token) for number in range(CLIENTS)]

    def answered() -> dict[tuple[str, int], int]:
        return {(client.address, port): r for client in clients for port, r in list(client.answered.items())}

    begun = time.monotonic()
    for client in clients:
        client.thread.start()
    for number in KILLED_AT:
        eventually(lambda: len(answered()) >= number, f"{number} answers", WHOLE_SECONDS)  # noqa: B023
        deployment.server.kill()
        before = answered()
        deployment.server.start()
        deployment.serves()
        rows = _rows(deployment)
        assert number <= len(before) < REGISTRATIONS
        assert before.keys() <= rows.keys(), "an answered registration is lost"
        print(f"\nkilled after {len(before)} answers; {len(rows)} there after the restart")
    for client in clients:
        client.thread.join(WHOLE_SECONDS)
    taken = time.monotonic() - begun
    assert len(answered()) == REGISTRATIONS
    assert sum(client.losses for client in clients) >= CLIENTS
    web.in_session()
    last = deployment.updates()[-1].number
    dependant.wait(lambda event: event.revision >= last, mark)
    deployment.holds(web, last)
    _check_told(deployment, dependant.since(mark))
    assert {(row.address, row.port): row for row in _pulled(web)} == _rows(deployment)
    deployment.server.stop()
    _check_store(deployment, answered())
    print(f"{REGISTRATIONS} registrations by {CLIENTS} clients with two kills and restarts: {taken:.2f} s")


def _pulled(host: Host) -> list[Listener]:
    categories = host.api.dependencies("portal.web").categories
    return [peer for category in categories for service in category.services for peer in service.listeners]


def _check_told(deployment: Deployment, events: list[LocalEvent]) -> None:
    """Each registration in the log was notified once, in order, and nothing else was meanwhile: afterwards servers may
    probe what clients registered whose sessions have ended."""
    registered = [entry.number for entry in deployment.updates() if entry.operation == "register"]
    meanwhile = [(event.kind, event.revision) for event in events if event.revision <= registered[-1]]
    assert meanwhile == [("change", number) for number in registered]


def _rows(deployment: Deployment) -> dict[tuple[str, int], Listener]:
    rows = deployment.ask(Fetch("listener", within=SERVICE), Rows).rows
    return {(row.address, row.port): row for row in rows if isinstance(row, Listener)}


def _check_store(deployment: Deployment, answered: dict[tuple[str, int], int]) -> None:
    """Read the database itself, while no other process uses it."""
    store = Store.open(deployment.store)
    loaded = store.load()
    changes = store.changes_after(0, 10_000)
    store.close()
    # No gap.
    assert [change.revision for change in changes] == list(range(1, loaded.revision + 1))
    # Nothing twice: as many registrations as were asked for, one of each, where the answer said.
    registered = [change for change in changes if change.operation == "register"]
    times = Counter(key_of(change.row) for change in registered)
    assert len(times) == REGISTRATIONS
    assert set(times.values()) == {1}
    revisions = {
        (change.row.address, change.row.port): change.revision
        for change in registered
        if isinstance(change.row, Listener)
    }
    assert revisions.keys() == answered.keys()
    # An answer names the revision that it is true at: the registration's own, or a later one of a repetition.
    assert all(revisions[place] <= answered[place] for place in answered)
    # The log explains the tables.
    replayed = catalogue_of([], {}, 0)
    for change in changes:
        replayed = replayed.apply(change)
    tables = catalogue_of(loaded.rows, loaded.topics, loaded.revision)
    assert replayed == tables

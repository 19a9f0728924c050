"""Server, daemon and HTTP API on one real reactor, over real sockets, with a real process that is really killed."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import random
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, fail, maybeDeferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint

from compass.agent.agent import Agent
from compass.agent.dependencies import AgentDependencies
from compass.agent.registration.process_watch import ProcessWatch
from compass.agent.upstream.server_selector import ServerSelector, in_order
from compass.gateway.host_api import routes
from compass.model.replies import CredentialIssued
from compass.model.requests import Apply, IssueCredential
from compass.model.rows import Category, Dependency, Service
from compass.model.rules.draft import Principal
from compass.server.components import ServerDependencies
from compass.server.server import Server
from compass.store.store import Store
from compass.system.machine import this_machine
from tests.support.reactor_thread import ReactorThread


class Direct:
    """Calls the store on the reactor's thread."""

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        done: Deferred[Any] = maybeDeferred(work, *args)
        return done


class Machines:
    """Server and host with their listening ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.thread = ReactorThread()
        self.token = self.thread.call(self._start)

    def _start(self) -> Any:
        return ensureDeferred(self._started())

    async def _started(self) -> str:
        reactor = self.thread.reactor
        store = Store.open("sqlite://")
        parts = ServerDependencies(
            clock=reactor,
            now=time.time,
            token=lambda: "token",
            storage=store,
            in_database=Direct(),
            peer_of=lambda transport: ("host", "h1", ""),
            probe=lambda policy, address, port: succeed("refused"),
            connect=lambda *args: fail(ConnectionRefusedError()),
            id="s-1",
            roster=store.roster(),
            beside=Direct(),
        )
        self.server = Server("s", "test", parts)
        await self.server.start()
        rows = (Category("web"), Service("www.web"), Category("uss"), Service("china.uss"), Dependency("web", "uss"))
        admin = Principal("admin", "root", "")
        await self.server.commits.submit(Apply(rows), admin)
        issued = await self.server.commits.submit(IssueCredential("china.uss"), admin)
        assert isinstance(issued, CredentialIssued)
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.server)
        self.agent = Agent(
            AgentDependencies(
                clock=reactor,
                now=time.time,
                random=random,
                state_directory=self.directory,
                host_name="h1",
                default_address="127.0.0.1",
                selector=ServerSelector(random, in_order(["gns1"])),
                dial=lambda way: cast(Any, TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getHost().port)),
                process_watch=ProcessWatch(reactor),
                machine=this_machine("h1"),
                peer_of=lambda transport: ("server", "s", ""),
            )
        )
        self.agent.start()
        site = routes.site(self.agent.api, reactor)
        api = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
        self.port = api.getHost().port
        return issued.token

    def stop(self) -> None:
        self.thread.call(self.agent.stop)
        self.thread.call(self.server.stop)
        self.thread.stop()

    def open(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        return connection.getresponse()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    machines = Machines(tmp_path)
    yield machines
    machines.stop()


def shows(watch: Any, port: int, state: str) -> None:
    """Read events until one says that the listener is in that state; a snapshot shows all but the offline ones."""
    found = "never told"
    while found != state:
        lines = iter(lambda: watch.readline().decode().rstrip("\n"), "")
        data = json.loads(dict(line.split(": ", 1) for line in lines)["data"])
        rows = [data["row"]] if "row" in data else listeners(data)
        found = next((row["state"] for row in rows if row["port"] == port), "offline")


def listeners(pulled: Any) -> list[Any]:
    services = [service for category in pulled.get("categories", []) for service in category.get("services", [])]
    return [listener for service in services for listener in service.get("listeners", [])]


def test_a_killed_process_leaves_every_list_at_once(machines: Machines) -> None:
    """P9 from end to end: register, see it come, kill it, see it go, all within a second."""
    watch = machines.open("GET", "/v1/watch?service=www.web")
    shows(watch, 2028, "offline")
    process = subprocess.Popen(["sleep", "60"])
    wish = {"service": "china.uss", "port": 2028, "credential": machines.token, "pid": process.pid}
    answer = machines.open("POST", "/v1/register", wish)
    assert answer.status == 200
    shows(watch, 2028, "up")
    resolved = json.loads(machines.open("GET", "/v1/resolve/china.uss").read())
    assert [listener["port"] for listener in resolved["listeners"]] == [2028]
    began = time.monotonic()
    process.kill()
    shows(watch, 2028, "offline")
    assert time.monotonic() - began < 1.0
    process.wait()
    watch.close()
    assert json.loads(machines.open("GET", "/v1/resolve/china.uss").read())["source"] == "none"
    pulled = json.loads(machines.open("GET", "/v1/dependencies/www.web").read())
    assert [category["category"] for category in pulled["categories"]] == ["uss"]


def test_a_held_registration_ends_with_its_connection(machines: Machines) -> None:
    """The program need not have a pid to show: closing the connection is enough."""
    watch = machines.open("GET", "/v1/watch?service=www.web")
    shows(watch, 2028, "offline")
    wish = {"service": "china.uss", "port": 2028, "credential": machines.token, "hold": True}
    held = machines.open("POST", "/v1/register", wish)
    assert json.loads(held.readline())["state"] == "up"
    shows(watch, 2028, "up")
    held.close()
    shows(watch, 2028, "offline")
    watch.close()

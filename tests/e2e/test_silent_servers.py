"""Outcomes in time, with real processes: whatever a server does, a program has its answer within 2 s, because
the agent's journal has the request; and what was pending happens when the server goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from compass.client.core.blocking_api import ApiProblem
from compass.model.host_api import LocalDeregister, LocalLoad, LocalRegister, LocalReport, Outcome
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import eventually

SERVICE = "chinaserver.openuss"
SECONDS = 2.0
"""Promise; a busy machine gets SLACK_SECONDS more."""
SLACK_SECONDS = 1.0


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """While the block runs, the process is stopped; the kernel still accepts its connections."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def timed(call: Callable[[], Outcome]) -> Outcome:
    """Return the outcome of a call that has to answer in time."""
    began = time.monotonic()
    outcome = call()
    assert time.monotonic() - began < SECONDS + SLACK_SECONDS
    return outcome


def registered(deployment: Deployment, port: int) -> str:
    row = deployment.listeners().get((SERVICE, port))
    return row.state if row is not None else "none"


def test_a_server_that_is_stopped_leaves_no_program_waiting(deploy: Deploy) -> None:
    """SIGSTOP: registration, load, report and deregistration are `pending` within 2 s, and happen after SIGCONT."""
    deployment = deploy()
    deployment.start()
    host = deployment.add_host("web", services=("portal.web",))
    host.in_session()
    token, ports = deployment.token(SERVICE), [free_port(host.address) for _ in range(3)]
    for port in ports[:2]:
        host.api.register(LocalRegister(SERVICE, port, token))
    eventually(lambda: len(host.resolved(SERVICE)[1]) == 2, "both are known")
    with stopped(deployment.server.pid):
        calls = (
            lambda: host.api.register(LocalRegister(SERVICE, ports[2], token)),
            lambda: host.api.report_load(LocalLoad(SERVICE, ports[1], token, 0.5)),
            lambda: host.api.report(LocalReport(SERVICE, host.address, ports[1])),
            lambda: host.api.deregister(LocalDeregister(SERVICE, ports[0], token)),
        )
        with ThreadPoolExecutor() as programs:
            assert [outcome.state for outcome in programs.map(timed, calls)] == ["pending"] * 4
    eventually(lambda: registered(deployment, ports[2]) == "up", "what was pending is registered")
    eventually(lambda: registered(deployment, ports[0]) == "offline", "what was pending is deregistered")


def test_a_refusal_that_comes_after_pending_is_shown(deploy: Deploy) -> None:
    """The program has been answered, so the refusal stays in the status and in the log; nothing vanishes."""
    deployment = deploy()
    deployment.start()
    host = deployment.add_host("web", services=("portal.web",))
    host.in_session()
    port = free_port(host.address)
    with stopped(deployment.server.pid):
        assert timed(lambda: host.api.register(LocalRegister(SERVICE, port, "wrong" * 9))).state == "pending"

    def shown() -> str:
        status = host.status()
        return "".join(one.problem for one in status.registrations) if status is not None else ""

    assert "credential" in eventually(shown, "the refusal is in the status")
    assert "is not registered any more" in host.daemon.log.read_text()


def test_a_store_that_is_locked(deploy: Deploy) -> None:
    """The server waits for its store longer than a program: the registration is committed when the store answers."""
    deployment = deploy()
    deployment.start()
    host = deployment.add_host("web", services=("portal.web",))
    host.in_session()
    token, port = deployment.token(SERVICE), free_port(host.address)
    store = sqlite3.connect(deployment.store.removeprefix("sqlite:///"), isolation_level=None)
    with contextlib.closing(store):
        store.execute("BEGIN IMMEDIATE")
        assert timed(lambda: host.api.register(LocalRegister(SERVICE, port, token))).state == "pending"
        store.execute("ROLLBACK")
    eventually(lambda: registered(deployment, port) == "up", "what was pending is registered")


def test_a_network_that_swallows_everything(deploy: Deploy) -> None:
    """The agent has no session, and its address of a server accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        deployment = deploy()
        host: Host = deployment.add_host("web", servers=f'["127.0.0.1:{silent.getsockname()[1]}"]')
        host.answers()
        token, port = "a" * 43, free_port(host.address)
        assert timed(lambda: host.api.register(LocalRegister(SERVICE, port, token))).state == "pending"
        try:
            timed(lambda: host.api.report(LocalReport(SERVICE, host.address, port)))
        except ApiProblem as problem:
            assert problem.code == "unreachable" and "does not answer" not in problem.message

"""Users of one machine: what one without any credential does costs the others nothing that they notice."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host, free_port
from tests.support.another_user import another_user_does, as_another_user, needs_root

SERVICE = "chinaserver.openuss"
pytestmark = needs_root


def asked(host: Host, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """One request over TCP: status and answer."""
    connection = http.client.HTTPConnection(host.address, host.port, timeout=10)
    try:
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, text, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def guess(host: Host, port: int, number: int = 0) -> tuple[int, dict[str, Any]]:
    """A registration with a wrong credential."""
    wrong = {"service": SERVICE, "credential": f"x{number}", "address": host.address, "port": port}
    return asked(host, "/v1/register", wrong)


def web_and_storage(deploy: Deploy) -> tuple[Deployment, Host, Host]:
    """A deployment with two hosts, of which the first one depends on what the second one serves."""
    deployment = deploy()
    deployment.start()
    web, storage = deployment.add_hosts("web", "storage")
    deployment.register(web, "portal.web")
    return deployment, web, storage


def within(seconds: float, condition: Callable[[], Any], what: str) -> None:
    """Fail unless the condition becomes true in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)


def test_guesses_keep_no_one_from_registering_deregistering_and_dying(deploy: Deploy) -> None:
    """A right credential is accepted at once, and a death is notified within a second, while a user guesses."""
    deployment, web, storage = web_and_storage(deploy)
    deployment.token(SERVICE)
    port, dying = free_port(storage.address), free_port(storage.address)

    def guesses() -> list[int]:
        return [guess(storage, port, number)[0] for number in range(80)]

    assert as_another_user(guesses) == [403] * 80
    with another_user_does(lambda: guess(storage, port)):
        sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert deployment.register(storage, SERVICE, dying, pid=sleeper.pid).state == "up"
        for _ in range(5):
            outcome = deployment.register(storage, SERVICE, port)
            assert outcome.state == "up"
            gone = {"service": SERVICE, "credential": deployment.token(SERVICE), "address": storage.address}
            assert asked(storage, "/v1/deregister", gone | {"port": port, "epoch": outcome.epoch})[0] == 200
        within(1, lambda: web.resolved(SERVICE) == ("service", [dying]), "web knows the listener")
        os.kill(sleeper.pid, signal.SIGKILL)
        sleeper.wait()
        within(1, lambda: web.resolved(SERVICE)[0] != "service", "web knows of the death")

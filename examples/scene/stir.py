"""Endless changes, one every few seconds, for a person who watches the console."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from compass.model.host_api import LocalReport
from examples.scene.deployment import Deployment, Serving, until

PAUSE_SECONDS = 8.0
"""Between two of them: as long as one needs to see what changed."""
REGISTERED_SECONDS = 20.0


def stir(deployment: Deployment) -> Iterator[str]:
    """Do the next thing and say what it is. Every round ends as it began."""
    china = [one for one in deployment.serving if one.service == "chinaserver.openuss"]
    hung = next(one for one in deployment.serving if one.service == "northeast.openuss")
    while True:
        more = _serve(deployment, "northwest.openuss", "store2")
        yield f"{more.service} starts at {more.endpoint}"
        os.kill(hung.pid, signal.SIGSTOP)
        deployment.hosts["web1"].api.report(
            LocalReport(hung.service, hung.host.address, hung.port, reporter="portal.web")
        )
        yield f"{hung.service} at {hung.endpoint} hangs, and portal.web reports it"
        for one in china:
            os.kill(one.pid, signal.SIGKILL)
            yield f"kill -9 of {one.service} at {one.endpoint}"
        china = [_serve(deployment, one.service, one.host.name) for one in china]
        yield "chinaserver.openuss starts again on both hosts"
        os.kill(hung.pid, signal.SIGCONT)
        yield f"{hung.service} at {hung.endpoint} goes on"
        more.process.terminate()
        yield f"{more.service} at {more.endpoint} ends and deregisters"


def _serve(deployment: Deployment, service: str, host: str) -> Serving:
    serving = deployment.serve(service, host)
    until(serving.registered, REGISTERED_SECONDS, f"{service} is registered")
    return serving

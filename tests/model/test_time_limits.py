"""Time limits along the chain of those who ask: none is shorter than that of whom is asked.

The constants are read where they are used, not copied.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from compass.agent.upstream import pending_requests
from compass.cli.run import state_machine
from compass.client import asyncio as on_asyncio
from compass.client import blocking
from compass.client import twisted as on_twisted
from compass.client.core import api, blocking_api
from compass.daemons.alerts import smtp
from compass.daemons.config import sections
from compass.daemons.net import gate
from compass.gateway.http import sse
from compass.model import limits as of_the_domain
from compass.model import limits as time_limits
from compass.server.alerts import notifier
from compass.server.commit import store_access
from compass.wire import limits

CHAIN: tuple[tuple[str, float, str, float], ...] = (
    # asked, its longest time, who asks, its time limit
    ("a store in time", store_access.STORE_WAIT_SECONDS, "its configuration", sections.STORE_WAIT_SECONDS_MAX),
    ("a server that waits for its store", sections.STORE_WAIT_SECONDS_MAX, "host, administrator", limits.REPLY_SECONDS),
    ("a server that waits for the log", of_the_domain.LOG_WAIT_SECONDS_MAX, "administrator", limits.REPLY_SECONDS),
    ("a server that tests a channel", time_limits.ALERT_TEST_SECONDS, "administrator", limits.REPLY_SECONDS),
    ("a mail relay", smtp.CONNECT_SECONDS + smtp.ANSWER_SECONDS, "notifier", notifier.ATTEMPT_SECONDS + 0.1),
    ("a server with other handshakes", gate.TURN_SECONDS, "host", limits.GREETING_SECONDS),
    ("a server with other handshakes", gate.TURN_SECONDS, "administrator", time_limits.ADMIN_CONNECT_SECONDS),
    (
        "an agent that waits for a session and a reply",
        pending_requests.ASK_PATIENCE_SECONDS + limits.REPLY_SECONDS,
        "program",
        api.ANSWER_SECONDS,
    ),
    ("an agent with a journal", time_limits.PENDING_SECONDS, "the promise of 2 s", 2.0),
    ("an agent with a report", time_limits.PENDING_SECONDS, "program", time_limits.REPORT_SECONDS),
    ("an agent with a deregistration", time_limits.PENDING_SECONDS, "opengnsc run", state_machine.LEAVE_SECONDS),
    ("an agent with a watch", sse.HEARTBEAT_SECONDS, "program", api.SILENCE_SECONDS),
)


@pytest.mark.parametrize(("asked", "longest", "asks", "limit"), CHAIN)
def test_a_caller_waits_longer_than_whom_it_asks(asked: str, longest: float, asks: str, limit: float) -> None:
    """Otherwise the caller says of what will answer that it does not, and does again what is done already."""
    assert longest < limit, f"{asked} may take {longest:g} s, but {asks} waits only {limit:g} s"


def test_every_face_of_the_client_library_has_the_same_limit() -> None:
    """Blocking, asyncio, Twisted, and the command line's calls: the default is the one constant."""
    faces: tuple[Any, ...] = (
        blocking.Client,
        on_asyncio.Client,
        on_twisted.Client,
        api.HostApiCalls,
        blocking_api.HostApi,
    )
    for face in faces:
        default = inspect.signature(face.__init__).parameters["answer_seconds"].default
        assert default == time_limits.ANSWER_SECONDS, face

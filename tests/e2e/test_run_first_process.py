"""`opengnsc run` as the first process of a container: a process namespace of its own, real daemons, another host."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import environment, eventually, python

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
SERVICE = "northwest.openuss"
LISTENS = """
import os, signal, socket, sys, time
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.3)     # An orphan, once its parent has gone: the first process becomes its parent.
        os._exit(0)
    os._exit(0)
os.wait()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
with socket.create_server((os.environ["OPENGNS_ADDRESS"], int(os.environ["OPENGNS_PORT"]))) as listening:
    while True:
        listening.accept()[0].close()
"""

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("unshare"), reason="process namespaces need root and unshare (util-linux)"
)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def started(deployment: Deployment, host: Host, port: int, manager: Path, *options: str) -> subprocess.Popen[bytes]:
    own = [sys.executable, "-c", LISTENS]
    more = ["--port", str(port), "--address", host.address, *options]
    command = [*UNSHARE, *python("compass.cli.main:main", "run", SERVICE, *more, "--", *own)]
    secrets = {"OPENGNS_API": f"unix:{host.socket}", "OPENGNS_CREDENTIAL": deployment.token(SERVICE)}
    secrets |= {"NOTIFY_SOCKET": str(manager), "WATCHDOG_USEC": "2000000"}
    return subprocess.Popen(command, env=environment() | secrets)


def told(manager: socket.socket, word: bytes) -> None:
    """Wait until the service manager has been notified of that."""
    manager.settimeout(40.0)
    while word not in manager.recv(1000):
        pass


def test_the_first_process_of_a_container(deployment: Deployment, tmp_path: Path) -> None:
    """Registered, restarted after a kill -9, orphans let go, drained, stopped, with the command's own exit status: each
    as another host sees it, and as sd_notify(3) notifies a service manager."""
    user, store = deployment.add_hosts("first-user", "first-store")
    user.api.dependencies("portal.web")
    port = free_port(store.address)
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    unshared = started(deployment, store, port, tmp_path / "notify", "--drain", "1", "--restart", "on-failure")
    try:
        eventually(lambda: user.resolved(SERVICE) == ("service", [port]), "the user sees it")
        told(manager, b"READY=1")
        (first,) = children(unshared.pid)
        (service, *_) = children(first)
        eventually(lambda: all(state_of(child) != "Z" for child in children(first)), "no orphan is left")
        os.kill(service, signal.SIGKILL)
        eventually(lambda: user.resolved(SERVICE)[1] != [port], "the user sees its death")
        eventually(lambda: user.resolved(SERVICE) == ("service", [port]), "the user sees the new instance")
        assert service not in children(first)
        told(manager, b"READY=1")
        told(manager, b"WATCHDOG=1")
        os.kill(first, signal.SIGTERM)
        eventually(lambda: user.resolved(SERVICE) == ("draining", [port]), "the user sees it drain")
        eventually(lambda: user.resolved(SERVICE)[1] == [], "the user sees it gone")
        told(manager, b"STOPPING=1")
        assert unshared.wait(20) == 7
    finally:
        unshared.kill()
        unshared.wait()
        manager.close()

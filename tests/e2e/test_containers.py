"""Identity of processes: services and daemons in containers, copied state directories, forks that inherit a connection.

Real daemons in PID namespaces of their own, killed with SIGKILL, as another host sees it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.containers import (
    NEEDS_NAMESPACES,
    SERVES,
    UNSHARE,
    children,
    contained,
    first_process,
    kill_container,
    serving,
    started,
)
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import eventually, python

SERVICE = "account.openuso"
GONE_SECONDS = 1.0
"""P9: a killed process on a living host is gone within a second."""
pytestmark = NEEDS_NAMESPACES

BLOCKING = """
import sys, time
from compass.client import Client
with Client().register("account.openuso", int(sys.argv[2]), address=sys.argv[1]): time.sleep(100)
"""
ASYNCIO = """
import asyncio, sys
from compass.client.asyncio import Client
async def main():
    async with Client() as client, client.register("account.openuso", int(sys.argv[2]), address=sys.argv[1]):
        await asyncio.sleep(100)
asyncio.run(main())
"""
TWISTED = """
import sys
from twisted.internet import reactor
from compass.client.twisted import Client
Client(reactor).register("account.openuso", int(sys.argv[2]), address=sys.argv[1])
reactor.run()
"""
FACES = {"blocking": BLOCKING, "asyncio": ASYNCIO, "twisted": TWISTED}


@pytest.fixture(scope="module")
def hosts(deployment: Deployment) -> Iterator[tuple[Host, Host]]:
    """The host of a user, and that of the services."""
    user, store = deployment.add_hosts("user", "store")
    user.api.dependencies("portal.web")
    yield user, store


def up_at(user: Host, port: int) -> None:
    eventually(lambda: user.resolved(SERVICE) == ("service", [port]), "the user sees it")


def gone_within_a_second(user: Host, end: Callable[[], object]) -> None:
    began = time.monotonic()
    end()
    eventually(lambda: user.resolved(SERVICE)[1] == [], "the user sees it gone")
    assert time.monotonic() - began < GONE_SECONDS


def run(host: Host, port: int) -> list[str]:
    own = [sys.executable, "-c", SERVES, host.address, str(port)]
    options = ["--port", str(port), "--address", host.address]
    return python("compass.cli.main:main", "run", SERVICE, *options, "--", *own)


@pytest.mark.parametrize("first", ["tini", "run"])
@pytest.mark.parametrize("way", ["socket", "tcp"])
def test_a_service_under_run_in_a_container(
    deployment: Deployment, hosts: tuple[Host, Host], first: str, way: str
) -> None:
    """`opengnsc run` is the first process, or the child of one, as with --init, tini or a shell."""
    user, store = hosts
    port = free_port(store.address)
    command = run(store, port)
    if first == "tini":
        command = ["sh", "-c", '"$@"; true', "sh", *command]
    with contained(deployment, store, SERVICE, command, "" if way == "socket" else store.url) as container:
        up_at(user, port)
        gone_within_a_second(user, lambda: kill_container(container))


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("way", ["socket", "tcp"])
def test_a_python_service_in_a_container(deployment: Deployment, hosts: tuple[Host, Host], face: str, way: str) -> None:
    """The library registers its own process: by a number that the kernel translates, or else by a connection."""
    user, store = hosts
    port = free_port(store.address)
    command = [sys.executable, "-c", FACES[face], store.address, str(port)]
    with contained(deployment, store, SERVICE, command, "" if way == "socket" else store.url) as container:
        up_at(user, port)
        (entry,) = [one for one in store.api.status().registrations if one.port == port]
        assert (entry.hold, entry.pid) == ((False, first_process(container)) if way == "socket" else (True, 0))
        gone_within_a_second(user, lambda: kill_container(container))


def test_a_number_within_a_container_means_the_process_there(deployment: Deployment, hosts: tuple[Host, Host]) -> None:
    """`opengnsc register --pid` names a process that is not its own, of the same container."""
    user, store = hosts
    port = free_port(store.address)
    register = python("compass.cli.main:main", "register", SERVICE, str(port), "--address", store.address, "--pid", "2")
    with contained(deployment, store, SERVICE, ["sh", "-c", 'sleep 100 & "$@"; wait', "sh", *register]) as container:
        up_at(user, port)
        (entry,) = [one for one in store.api.status().registrations if one.port == port]
        gone_within_a_second(user, lambda: os.kill(entry.pid, signal.SIGKILL))
        assert container.poll() is None or container.wait() == 0


def test_a_number_that_means_nothing_here_is_refused_with_advice(
    deployment: Deployment, hosts: tuple[Host, Host]
) -> None:
    _, store = hosts
    register = python("compass.cli.main:main", "register", SERVICE, "9999", "--pid", "4711")
    own = {"OPENGNS_API": store.url, "OPENGNS_CREDENTIAL": deployment.token(SERVICE)}
    done = subprocess.run([*UNSHARE, *register], env=os.environ | own, capture_output=True, text=True, timeout=30)
    assert done.returncode == 6 and "hold" in done.stderr and "--pid host" in done.stderr, done.stderr


def test_the_daemon_itself_in_a_container(deployment: Deployment, hosts: tuple[Host, Host]) -> None:
    """Programs outside hold their registrations by themselves, for the daemon sees none of their processes."""
    user, _ = hosts
    alone = deployment.add_host("alone")
    alone.in_session()
    alone.daemon.kill()
    alone.daemon._command[:0] = UNSHARE
    alone.daemon.start()
    alone.in_session()
    port = free_port(alone.address)
    own = {"OPENGNS_API": f"unix:{alone.socket}", "OPENGNS_CREDENTIAL": deployment.token(SERVICE)}
    for command in (run(alone, port), [sys.executable, "-c", BLOCKING, alone.address, str(port)]):
        with started(command, own) as service:
            up_at(user, port)
            gone_within_a_second(user, service.kill)


def test_a_daemon_without_the_processes_of_its_journal_takes_out_nothing(
    deployment: Deployment, hosts: tuple[Host, Host]
) -> None:
    """`--pid host` is forgotten at a restart: what lives stays, is shown as not verified, and is verified later."""
    user, _ = hosts
    moved = deployment.add_host("moved")
    moved.in_session()
    command = list(moved.daemon._command)
    ports = [free_port(moved.address) for _ in range(2)]
    with serving(moved, ports[0]) as one, serving(moved, ports[1]) as other:
        for port, process in zip(ports, (one, other), strict=True):
            deployment.register(moved, SERVICE, port, pid=process.pid)
        eventually(lambda: user.resolved(SERVICE) == ("service", sorted(ports)), "both are up")
        moved.daemon.kill()
        moved.daemon._command[:] = [*UNSHARE, *command]
        moved.daemon.start()
        moved.in_session()
        shown = deployment.opengnsc(moved, "status").stdout
        assert shown.count("not verified: it was registered in another PID namespace") == 2, shown
        assert "died" not in moved.daemon.shown_log()
        other.kill()
        moved.daemon.kill()
        moved.daemon._command[:] = command
        eventually(lambda: is_free(moved), "the container has ended")
        moved.daemon.start()
        eventually(lambda: user.resolved(SERVICE) == ("service", [ports[0]]), "the dead one is gone")
        gone_within_a_second(user, one.kill)


def is_free(host: Host) -> bool:
    """Return whether the port of a daemon that was killed with its container is free."""
    with socket.socket() as probe:
        return probe.connect_ex((host.address, host.port)) != 0


def test_a_process_that_died_unseen_is_found_by_a_probe(deployment: Deployment, hosts: tuple[Host, Host]) -> None:
    """The daemon cannot know of the death, so the server probes, and what answers nothing goes."""
    user, _ = hosts
    blind = deployment.add_host("blind")
    blind.in_session()
    port = free_port(blind.address)
    with serving(blind, port) as process:
        deployment.register(blind, SERVICE, port, pid=process.pid)
        up_at(user, port)
        blind.daemon.kill()
    blind.daemon._command[:0] = UNSHARE
    blind.daemon.start()
    eventually(lambda: user.resolved(SERVICE)[1] == [], "the user sees it gone")
    eventually(lambda: deployment.listeners()[SERVICE, port].state == "offline", "its row goes, too")
    eventually(lambda: not blind.api.status().registrations, "and the journal forgets it")


@pytest.mark.parametrize("namespace", ["same", "other"])
def test_a_copied_state_directory_ends_no_listener_of_the_original(
    deployment: Deployment, hosts: tuple[Host, Host], namespace: str
) -> None:
    """A host that was cloned with its journal, but with a certificate of its own, says nothing of the original's."""
    user, _ = hosts
    original, copy = deployment.add_host(f"original-{namespace}"), deployment.add_host(f"copy-{namespace}")
    original.in_session()
    copy.in_session()
    copy.daemon.kill()
    port = free_port(original.address)
    with serving(original, port) as process:
        deployment.register(original, SERVICE, port, pid=process.pid)
        manual = deployment.register(original, "northwest.openuss")
        up_at(user, port)
        state = copy.directory / "state"
        shutil.rmtree(state)
        shutil.copytree(original.directory / "state", state)
        if namespace == "other":
            copy.daemon._command[:0] = UNSHARE
        copy.daemon.start()
        copy.in_session()
        assert f"written by host {original.name}" in deployment.opengnsc(copy, "status").stdout
        assert not copy.api.status().registrations
        deployment.quiet(copy)
        rows = deployment.listeners()
        assert {rows[SERVICE, port].host, rows[manual.service, manual.port].host} == {original.name}
        assert user.resolved(SERVICE) == ("service", [port])
        gone_within_a_second(user, process.kill)
    copy.daemon.kill()


HOLDS = {
    "blocking": """
import os, sys, time
from compass.client import Client
with Client().register("account.openuso", int(sys.argv[2]), address=sys.argv[1], hold=True):
    forked = os.fork()
    time.sleep(100)
""",
    "asyncio": """
import asyncio, os, sys, time
from compass.client.asyncio import Client
async def main():
    async with Client() as client, client.register("account.openuso", int(sys.argv[2]), address=sys.argv[1], hold=True):
        forked = os.fork()
        time.sleep(100)
asyncio.run(main())
""",
    "twisted": """
import os, sys, time
from twisted.internet import reactor
from compass.client.twisted import Client
def fork(registration):
    os.fork()
    time.sleep(100)
made = Client(reactor).register("account.openuso", int(sys.argv[2]), address=sys.argv[1], hold=True)
made.addCallback(fork)
reactor.run()
""",
    "forkserver": """
import multiprocessing, sys, time
from compass.client import Client
if __name__ == "__main__":
    with Client().register("account.openuso", int(sys.argv[2]), address=sys.argv[1], hold=True):
        for kind in ("spawn", "forkserver"):
            multiprocessing.get_context(kind).Process(target=time.sleep, args=(100,)).start()
        time.sleep(100)
""",
}


@pytest.mark.parametrize("way", ["socket", "tcp"])
@pytest.mark.parametrize("kind", HOLDS)
def test_a_fork_does_not_keep_the_registration_of_its_dead_parent(
    deployment: Deployment, hosts: tuple[Host, Host], kind: str, way: str, tmp_path: Path
) -> None:
    """The connection ends with the program that registered, although its children have inherited it."""
    user, store = hosts
    port = free_port(store.address)
    (tmp_path / "service.py").write_text(HOLDS[kind])
    own = {"OPENGNS_API": f"unix:{store.socket}" if way == "socket" else store.url}
    own["OPENGNS_CREDENTIAL"] = deployment.token(SERVICE)
    with started([sys.executable, str(tmp_path / "service.py"), store.address, str(port)], own) as parent:
        up_at(user, port)
        wanted = 3 if kind == "forkserver" else 1
        eventually(lambda: len(children(parent.pid)) >= wanted, "it has forked")
        gone_within_a_second(user, parent.kill)


PASSED = r"""
import os, socket, sys, time, json
request = json.dumps({"service": "account.openuso", "port": int(sys.argv[3]), "address": sys.argv[2], "hold": True,
    "credential": os.environ["OPENGNS_CREDENTIAL"]})
api = socket.socket(socket.AF_UNIX)
api.connect(sys.argv[1])
head = f"Host: unix\r\nContent-Type: application/json\r\nContent-Length: {len(request)}"
api.sendall(f"POST /v1/register HTTP/1.1\r\n{head}\r\n\r\n{request}".encode())
api.recv(1000)
os.fork()
time.sleep(100)
"""


def test_a_fork_of_any_program_keeps_nothing_on_the_socket(deployment: Deployment, hosts: tuple[Host, Host]) -> None:
    """The kernel names the program that connected, and the daemon watches it: no library has to close anything."""
    user, store = hosts
    port = free_port(store.address)
    own = {"OPENGNS_CREDENTIAL": deployment.token(SERVICE)}
    with started([sys.executable, "-c", PASSED, str(store.socket), store.address, str(port)], own) as parent:
        up_at(user, port)
        eventually(lambda: children(parent.pid), "it has forked")
        gone_within_a_second(user, parent.kill)


MASTER = """
import os, sys, time
from compass.client import Client
here = Client().register("account.openuso", int(sys.argv[2]), address=sys.argv[1])
if len(sys.argv) < 4:
    while not os.path.exists(sys.argv[0] + ".upgrade"): time.sleep(0.01)
    if os.fork() == 0: os.execv(sys.executable, [sys.executable, *sys.argv, "new"])
    while not os.path.exists(sys.argv[0] + ".quit"): time.sleep(0.01)
    here.end()
else:
    open(sys.argv[0] + ".new", "w").close()
    time.sleep(100)
"""


def test_a_master_that_replaces_itself_stays_registered(
    deployment: Deployment, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    """SIGUSR2 of gunicorn and nginx: a new master registers the same listener, and then the old one deregisters."""
    user, store = hosts
    port = free_port(store.address)
    program = tmp_path / "master.py"
    program.write_text(MASTER)
    own = {"OPENGNS_API": f"unix:{store.socket}", "OPENGNS_CREDENTIAL": deployment.token(SERVICE)}
    with started([sys.executable, str(program), store.address, str(port)], own) as master:
        up_at(user, port)
        epoch = deployment.listeners()[SERVICE, port].epoch
        Path(f"{program}.upgrade").touch()
        eventually(Path(f"{program}.new").exists, "the new master has registered")
        newer = deployment.listeners()[SERVICE, port]
        Path(f"{program}.quit").touch()
        master.wait(30)
        assert newer.epoch > epoch and deployment.listeners()[SERVICE, port] == newer
        (entry,) = [one for one in store.api.status().registrations if one.port == port]
        gone_within_a_second(user, lambda: os.kill(entry.pid, signal.SIGKILL))


def test_a_program_that_becomes_a_daemon_has_ended(deployment: Deployment, hosts: tuple[Host, Host]) -> None:
    """The registered process is what counts: its child would have to be registered by its own number."""
    user, store = hosts
    port = free_port(store.address)
    code = "import os, time\nif os.fork(): time.sleep(1)\nelse: time.sleep(100)"
    with started([sys.executable, "-c", code], {}) as process:
        deployment.register(store, SERVICE, port, pid=process.pid)
        process.wait(30)
        eventually(lambda: user.resolved(SERVICE)[1] == [], "the user sees it gone")
        ended = subprocess.run(
            python("compass.cli.main:main", "register", SERVICE, str(port), "--pid", str(process.pid)),
            env=os.environ | {"OPENGNS_API": store.url, "OPENGNS_CREDENTIAL": deployment.token(SERVICE)},
            capture_output=True,
            text=True,
        )
        assert "register with the pid of the process that serves" in ended.stderr

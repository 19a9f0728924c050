"""B7: from the death of a process, and from a report of a dead listener, to the last of all who depend on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.generator import ROOT, Load, Plan
from bench.statistics import Book
from bench.systems.compass import DEPENDENCY, Compass, asked
from bench.systems.running import Running, free_port
from bench.workloads import Size
from compass.client.core.blocking_api import ApiEndpoint, ApiProblem, HostApi
from compass.model.host_api import LocalRegister
from compass.model.requests import Register, Report

DEPENDANTS = 1_000
ARMED_SECONDS = 0.2
"""Time that the generator needs until it waits."""
LISTENS = "import socket, time\ns = socket.create_server(('127.0.0.1', {port}))\nprint(1, flush=True)\ntime.sleep(1000)"


def incidents(compass: Compass, size: Size, book: Book, directory: Path) -> None:
    """Both kinds, again and again. The listeners are real processes, registered by a real host daemon."""
    book.tell(f"B7 kill, and report, to the last of {DEPENDANTS:,} dependants")
    host = _host_daemon(compass)
    try:
        with Load(_waiting(compass, b"offline"), directory / "B7-killed") as load:
            load.ready()
            for _ in range(size.incidents):
                took = _killed(compass, load)
                book.add(
                    "B7 killed process", compass.name, compass.tls, DEPENDANTS, {("to the last", "ms"): took * 1e3}
                )
        with Load(_waiting(compass, b"down"), directory / "B7-reported") as load:
            load.ready()
            for _ in range(size.incidents):
                took = _reported(compass, load)
                book.add("B7 report", compass.name, compass.tls, DEPENDANTS, {("to the last", "ms"): took * 1e3})
    finally:
        host.stop()


def _waiting(compass: Compass, state: bytes) -> Plan:
    plan = compass.fan_out(DEPENDANTS - 1)
    plan.mode, plan.writer_setups, plan.writer_request = "trigger", [], None
    plan.settings["match"] = state.hex()
    return plan


def _killed(compass: Compass, load: Load) -> float:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", LISTENS.format(port=port)], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    compass.host_api.register(LocalRegister(DEPENDENCY, port, compass.tokens[DEPENDENCY], pid=process.pid))
    load.go()
    time.sleep(ARMED_SECONDS)
    began = time.monotonic()
    os.kill(process.pid, 9)
    last: float = load.result()["last_at"]
    process.wait()
    process.stdout.close()
    load.ready()
    return last - began


def _reported(compass: Compass, load: Load) -> float:
    port = free_port()
    with compass.link() as link:
        asked(link, Register(DEPENDENCY, "", "127.0.0.1", port, time.time_ns() // 1000))
        load.go()
        time.sleep(ARMED_SECONDS)
        began = time.monotonic()
        asked(link, Report(DEPENDENCY, "127.0.0.1", port))
        last: float = load.result()["last_at"]
    load.ready()
    return last - began


def _host_daemon(compass: Compass) -> Running:
    """A real opengnscd in session with the server; `compass.host_api` asks it."""
    here = compass.directory / "host"
    here.mkdir()
    compass.identity("host", "killed.bench")
    config = here / "opengnscd.toml"
    api, at = free_port(), compass.directory
    config.write_text(
        f'[host]\nservers = ["127.0.0.1:{compass.port}"]\nstate_directory = "{here}/state"\naddress = "127.0.0.1"\n'
        f'api = "127.0.0.1:{api}"\nsocket = "{here}/api.sock"\n'
        f'[tls]\ncertificate = "{at}/killed.bench.crt"\nkey = "{at}/killed.bench.key"\n'
        f'authority = "{at}/authority.crt"\n'
    )
    entry = "from compass.daemons.main import host; host()"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    running = Running([sys.executable, "-c", entry, "--config", str(config)], here / "log", environment)
    running.listens("127.0.0.1", api)
    compass.host_api = HostApi(ApiEndpoint(path=str(here / "api.sock")), 10.0)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            if compass.host_api.status().session == "open":
                return running
        except ApiProblem:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"opengnscd is not in session: see {here}")

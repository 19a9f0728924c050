"""ZooKeeper: setData, and watches that fire once, so that its clients read again to be notified again."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import time
from pathlib import Path

from bench.generator import Plan, Step, Template
from bench.systems.running import START_SECONDS, NotInstalled, Running, free_port, program
from bench.systems.system import LISTENERS, RECORD_OCTETS, SERVICES, System

SCRIPTS = ("/usr/share/zookeeper/bin/zkServer.sh", "zkServer.sh")
CREATE, GET, SET = 1, 4, 5
SESSION_MILLISECONDS = 30_000
"""Time of silence after which a session ends; its clients send a ping after a third of that."""
PING = struct.pack("!ii", -2, 11)


class ZooKeeper(System):
    """Single server with the synchronous log that it has by default."""

    name = "ZooKeeper"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._port = free_port()

    def start(self) -> None:
        script = next((script for script in SCRIPTS if Path(script).exists()), "") or program("zkServer.sh")
        program("java")
        config = self.directory / "zoo.cfg"
        config.write_text(
            f"tickTime=2000\ndataDir={self.directory / 'data'}\nclientPort={self._port}\nclientPortAddress=127.0.0.1\n"
            "maxClientCnxns=0\nadmin.enableServer=false\n"
        )
        (self.directory / "data").mkdir()
        environment = os.environ | {"ZOO_LOG_DIR": str(self.directory), "JVMFLAGS": "-Xmx2g"}
        self.running = Running(["bash", script, "start-foreground", str(config)], self.directory / "log", environment)
        try:
            self.running.listens("127.0.0.1", self._port)
        except RuntimeError as error:
            raise NotInstalled(f"ZooKeeper does not start: {error}") from error
        self.version = self._serves()
        plan = self._plan(1)
        for path in (b"/changing", *(b"/s%d" % n for n in range(SERVICES))):
            plan.setups.append(Step(Template(_create(path, b"x" * RECORD_OCTETS * LISTENERS))))
        self.loaded(plan)

    def _serves(self) -> str:
        """Wait until it takes sessions, which is after it takes connections; its version."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 2.0) as asking:
                asking.sendall(b"srvr")
                found = re.search(rb"[Vv]ersion: ([0-9.]+)", asking.recv(1000))
                if found:
                    return found[1].decode()
            time.sleep(0.05)
        raise RuntimeError(f"ZooKeeper does not serve: see {self.directory}")

    def registrations(self, clients: int) -> Plan:
        plan = self._plan(clients)
        created = Template(_create(b"/IIIIII", b"x")).number(b"IIIIII", "index", decimal=True)
        plan.setups.append(Step(created))
        changed = _set(b"/IIIIII")
        plan.request = Step(changed.number(b"IIIIII", "index", decimal=True))
        return plan

    def fan_out(self, watchers: int) -> Plan:
        plan = self._plan(watchers + 1, "fanout")
        plan.writer_setups = list(plan.setups)
        read = Template(_request(GET, _text(b"/changing") + b"\1"))
        plan.setups.append(Step(read))
        plan.writer_request = Step(_set(b"/changing"))
        plan.reaction = Step(read)
        return plan

    def lists(self, clients: int) -> Plan:
        plan = self._plan(clients)
        octets = b"".join(_request(GET, _text(b"/s%d" % n) + b"\0") for n in range(SERVICES))
        plan.request = Step(Template(octets), SERVICES)
        return plan

    def _plan(self, connections: int, mode: str = "closed") -> Plan:
        connect = struct.pack("!iqiq", 0, 0, SESSION_MILLISECONDS, 0) + _text(bytes(16)) + b"\0"
        plan = Plan("zookeeper", ("127.0.0.1", self._port), connections, mode, None, [Step(Template(_framed(connect)))])
        # Its default backlog is 50 connections; what comes beyond waits for the kernel's next try.
        plan.settings["in_flight"] = 40
        plan.heartbeat, plan.settings["beat_seconds"] = Step(Template(_framed(PING))), SESSION_MILLISECONDS / 3e3
        return plan


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def _request(kind: int, body: bytes) -> bytes:
    return _framed(struct.pack("!ii", 1, kind) + body)


def _text(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


def _create(path: bytes, data: bytes) -> bytes:
    anybody = struct.pack("!ii", 1, 31) + _text(b"world") + _text(b"anyone")
    return _request(CREATE, _text(path) + _text(data) + anybody + struct.pack("!i", 0))


def _set(path: bytes) -> Template:
    value = b"CCCCCCCC".ljust(RECORD_OCTETS, b"x")
    octets = _request(SET, _text(path) + _text(value) + struct.pack("!i", -1))
    return Template(octets).number(b"CCCCCCCC", "count", decimal=True)

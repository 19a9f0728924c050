"""Redis: SET with the append-only file synchronised for each command, PUBLISH and SUBSCRIBE, HGETALL."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.generator import Plan, Step, Template
from bench.systems.running import Running, free_port, program
from bench.systems.system import LISTENERS, RECORD_OCTETS, SERVICES, System


class Redis(System):
    """Single server with `appendfsync always`."""

    name = "Redis"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._port = free_port()

    def start(self) -> None:
        redis = program("redis-server")
        told = subprocess.run([redis, "--version"], capture_output=True, text=True).stdout
        self.version = told.partition("v=")[2].split()[0]
        command = [redis, "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--maxclients", "20000", "--tcp-backlog", "4096"]
        self.running = Running(command, self.directory / "log")
        self.running.listens("127.0.0.1", self._port)
        plan = self._plan(1)
        for n in range(SERVICES):
            fields = [part for n in range(LISTENERS) for part in (f"l{n}".encode(), b"x" * RECORD_OCTETS)]
            plan.setups.append(Step(Template(_command(b"HSET", f"s{n}".encode(), *fields))))
        self.loaded(plan)

    def registrations(self, clients: int) -> Plan:
        plan = self._plan(clients)
        plan.request = Step(_set(b"service:IIIIII").number(b"IIIIII", "index", decimal=True))
        return plan

    def fan_out(self, watchers: int) -> Plan:
        plan = self._plan(watchers + 1, "fanout")
        plan.setups = [Step(Template(_command(b"SUBSCRIBE", b"changes")))]
        both = _set(b"changing")
        both.octets += _command(b"PUBLISH", b"changes", b"x" * RECORD_OCTETS)
        plan.writer_request = Step(both, 2)
        return plan

    def lists(self, clients: int) -> Plan:
        plan = self._plan(clients)
        octets = b"".join(_command(b"HGETALL", f"s{n}".encode()) for n in range(SERVICES))
        plan.request = Step(Template(octets), SERVICES)
        return plan

    def _plan(self, connections: int, mode: str = "closed") -> Plan:
        return Plan("redis", ("127.0.0.1", self._port), connections, mode)


def _set(key: bytes) -> Template:
    value = b"CCCCCCCC".ljust(RECORD_OCTETS, b"x")
    return Template(_command(b"SET", key, value)).number(b"CCCCCCCC", "count", decimal=True)


def _command(*parts: bytes) -> bytes:
    octets = b"*%d\r\n" % len(parts)
    return octets + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)

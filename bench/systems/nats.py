"""NATS with JetStream: publish with acknowledgement (not synchronised to disk by default), subjects to many."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from bench.generator import Plan, Step, Template
from bench.systems.running import Running, free_port, program
from bench.systems.system import RECORD_OCTETS, System


class Nats(System):
    """Single server; its stream is stored in files, and the kernel decides when they reach the disk."""

    name = "NATS"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._port = free_port()

    def start(self) -> None:
        nats = program("nats-server")
        told = subprocess.run([nats, "--version"], capture_output=True, text=True)
        self.version = (told.stdout + told.stderr).split()[-1].lstrip("v")
        command = [nats, "-js", "-sd", str(self.directory / "data"), "-a", "127.0.0.1", "-p", str(self._port)]
        self.running = Running(command, self.directory / "log")
        self.running.listens("127.0.0.1", self._port)
        stream = {"name": "S", "subjects": ["svc.>", "changes"], "storage": "file", "max_msgs_per_subject": 1}
        plan = self._plan(1)
        body = json.dumps(stream).encode()
        plan.setups.append(
            Step(Template(b"SUB _INBOX.s 1\r\n" + _publish(b"$JS.API.STREAM.CREATE.S", b"_INBOX.s", body)))
        )
        self.loaded(plan)

    def registrations(self, clients: int) -> Plan:
        plan = self._plan(clients)
        subscribe = Template(b"SUB _INBOX.IIIIII 1\r\n").number(b"IIIIII", "index", decimal=True)
        plan.setups.append(Step(subscribe, 0))
        publish = Template(_publish(b"svc.JJJJJJ", b"_INBOX.IIIIII", b"x" * RECORD_OCTETS))
        publish.number(b"IIIIII", "index", decimal=True).number(b"JJJJJJ", "index", decimal=True)
        plan.request = Step(publish)
        return plan

    def fan_out(self, watchers: int) -> Plan:
        plan = self._plan(watchers + 1, "fanout")
        plan.writer_setups = [*plan.setups, Step(Template(b"SUB _INBOX.w 1\r\n"), 0)]
        plan.setups = [Step(Template(CONNECT + b"SUB changes 2\r\nPING\r\n"))]
        plan.writer_request = Step(Template(_publish(b"changes", b"_INBOX.w", b"x" * RECORD_OCTETS)))
        return plan

    def lists(self, clients: int) -> Plan | None:
        return None

    def _plan(self, connections: int, mode: str = "closed") -> Plan:
        greeting = Step(Template(CONNECT + b"PING\r\n"))
        return Plan("nats", ("127.0.0.1", self._port), connections, mode, None, [greeting])


CONNECT = b'CONNECT {"verbose":false,"pedantic":false}\r\n'


def _publish(subject: bytes, reply: bytes, body: bytes) -> bytes:
    return b"PUB %s %s %d\r\n%s\r\n" % (subject, reply, len(body), body)

"""etcd, spoken to over gRPC: puts, ranges in one transaction, watches."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from bench.generator import Plan, Step, Template, Tls
from bench.systems.running import Running, free_port, program
from bench.systems.system import LISTENERS, RECORD_OCTETS, SERVICES, System
from compass.pki.authority import create_authority, issue, write_credentials

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_MAX = 2**31 - 1
"""Largest window: the generator never has to open a window again (RFC 9113 section 6.9)."""


class Etcd(System):
    """Single member, as its packages start it; with TLS both ends send a certificate, as with compass."""

    name = "etcd"

    def __init__(self, directory: Path, *, tls: bool = False) -> None:
        super().__init__(directory)
        self.tls = tls
        self._port = free_port()
        self._identity: Tls | None = None

    def start(self) -> None:
        etcd = program("etcd")
        self.version = subprocess.run([etcd, "--version"], capture_output=True, text=True).stdout.split()[2]
        scheme, peer, here = "https" if self.tls else "http", free_port(), self.directory
        client, peers = f"{scheme}://127.0.0.1:{self._port}", f"http://127.0.0.1:{peer}"
        command = [etcd, "--data-dir", str(here / "data"), "--log-level", "error"]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peers]
        command += ["--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"]
        if self.tls:
            command += self._certify()
        self.running = Running(command, here / "log")
        self.running.listens("127.0.0.1", self._port)
        self.loaded(self._fill())

    def _certify(self) -> list[str]:
        here, now = self.directory, datetime.now(UTC)
        authority = create_authority("bench", now)
        (here / "authority.crt").write_bytes(authority.certificate_pem)
        server = write_credentials(here, "server", issue(authority, "server", "etcd.bench", ("127.0.0.1",), now))
        client = write_credentials(here, "client", issue(authority, "host", "client.bench", (), now))
        self._identity = Tls(str(client.key), str(client.certificate))
        trusted = ["--client-cert-auth", "--trusted-ca-file", str(here / "authority.crt")]
        return ["--cert-file", str(server.certificate), "--key-file", str(server.key), *trusted]

    def _fill(self) -> Plan:
        """Put the list in, one key a request."""
        plan = self._plan(1)
        for n in range(SERVICES * LISTENERS):
            service, listener = divmod(n, LISTENERS)
            key = f"/list/s{service}/{listener}".encode()
            call = self._call("KV/Put", 1 + 2 * n, _field(1, key) + _field(2, b"x" * RECORD_OCTETS))
            plan.setups.append(Step(call, 2))
        return plan

    def registrations(self, clients: int) -> Plan:
        plan = self._plan(clients)
        plan.request = Step(self._put(b"/services/IIIIII"))
        plan.request.template.number(b"IIIIII", "index", decimal=True)
        return plan

    def fan_out(self, watchers: int) -> Plan:
        plan = self._plan(watchers + 1, "fanout")
        create = _field(1, _field(1, b"/changing"))
        plan.setups.append(Step(self._call("Watch/Watch", 1, create, ends=False)))
        plan.writer_setups = self._plan(1).setups
        plan.writer_request = Step(self._put(b"/changing"))
        return plan

    def lists(self, clients: int) -> Plan:
        plan = self._plan(clients)
        call = self._call("KV/Txn", 0, _ten_ranges())
        plan.request = Step(_streams(call))
        return plan

    def cold_start(self, clients: int, *, resumed: bool) -> Plan | None:
        if resumed:
            return None
        plan = self._plan(clients, "start")
        plan.setups.append(Step(self._call("KV/Txn", 1, _ten_ranges()), 2))
        plan.setups.append(Step(self._call("Watch/Watch", 3, _field(1, _field(1, b"/changing")), ends=False)))
        return plan

    def _plan(self, connections: int, mode: str = "closed") -> Plan:
        settings = _frame(4, 0, 0, b"\0\4" + WINDOW_MAX.to_bytes(4, "big"))
        window = _frame(8, 0, 0, (WINDOW_MAX - 65_535).to_bytes(4, "big"))
        greeting = Step(Template(PREFACE + settings + window), 0)
        return Plan("http2", ("127.0.0.1", self._port), connections, mode, self._identity, [greeting])

    def _put(self, key: bytes) -> Template:
        value = b"CCCCCCCC".ljust(RECORD_OCTETS, b"x")
        call = _streams(self._call("KV/Put", 0, _field(1, key) + _field(2, value)))
        return call.number(b"CCCCCCCC", "count", decimal=True)

    def _call(self, method: str, stream: int, message: bytes, *, ends: bool = True) -> Template:
        """A gRPC call: headers that need no table of the peer's, and one message."""
        headers = b"\x83" + (b"\x87" if self.tls else b"\x86")
        headers += b"\x04" + _text(f"/etcdserverpb.{method}".encode()) + b"\x01" + _text(b"localhost")
        headers += b"\x0f\x10" + _text(b"application/grpc") + b"\x00" + _text(b"te") + _text(b"trailers")
        data = b"\0" + len(message).to_bytes(4, "big") + message
        return Template(_frame(1, 4, stream, headers) + _frame(0, int(ends), stream, data))


def _streams(call: Template) -> Template:
    """A new stream for each call: 1, 3, 5, ..."""
    second = 9 + int.from_bytes(call.octets[:3], "big")
    return call.at(5, 4, "count", 1, 2).at(second + 5, 4, "count", 1, 2)


def _ten_ranges() -> bytes:
    ranges = b""
    for n in range(SERVICES):
        one = _field(1, f"/list/s{n}/".encode()) + _field(2, f"/list/s{n}0".encode())
        ranges += _field(2, _field(1, one))
    return ranges


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _text(text: bytes) -> bytes:
    """A string of RFC 7541 section 5.2, without Huffman coding."""
    return bytes([len(text)]) + text


def _field(number: int, value: bytes) -> bytes:
    """A field of Protocol Buffers with a length."""
    length, octets = len(value), b""
    while length > 127:
        octets += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + octets + bytes([length]) + value

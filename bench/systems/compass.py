"""opengnssd under load: on SQLite or PostgreSQL, over mutual TLS 1.3 or, for like terms with the peers, unencrypted."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import compass
from bench.generator import ROOT, Plan, Step, Template, Tls
from bench.systems.running import START_SECONDS, NotInstalled, Running, free_port
from bench.systems.system import LISTENERS, SERVICES, System
from compass.admin.shell.connection import AdminSession, ConnectionFailed, IdentityFiles, Server
from compass.model.replies import CredentialIssued, Refusal, Reply
from compass.model.requests import Apply, IssueCredential, Pull, Register, Request, Watch
from compass.model.rows import Category, Dependency, Service
from compass.pki.authority import Credentials, create_authority, issue, write_credentials
from compass.wire.frames import frame
from compass.wire.messages import Acknowledge, Hello, encode
from tests.support.postgresql import PostgreSQL

FIRST_PORT = 1024
"""First port of the listeners that clients register, one for each client."""
EPOCH = 2**40
"""Epochs from here on are nine octets in MessagePack, so that a template has room for each."""
EPOCH_MARK = 0x0102030405060708
"""Stands in a template where a number will be."""
DEPENDANT, DEPENDENCY = "portal.web", "s0.c0"
REGISTERED = "s0.registered"
"""Service of the registrations. No host with a session depends on its category: the generator's hosts disappear without
a goodbye, and the next watchers must not receive the changes of their listeners."""
REVISION_WIDTHS = {2: 0x0100, 4: 0x10000}


class Compass(System):
    """A real `opengnssd` in a process of its own."""

    name = "compass"
    version = compass.__version__

    def __init__(self, directory: Path, *, tls: bool, store: str = "", without: str = "") -> None:
        """`without`: names of fast paths that are turned off (COMPASS_BENCH_WITHOUT)."""
        super().__init__(directory)
        self.tls = tls
        self.port, self.plain_port = free_port(), free_port()
        self._store = store or f"sqlite:///{directory / 'store.sqlite'}"
        self._without = without
        self._authority = create_authority("bench", datetime.now(UTC))
        (directory / "authority.crt").write_bytes(self._authority.certificate_pem)
        self._identities: dict[int, Tls] = {}
        self.tokens: dict[str, str] = {}
        """Tokens by service."""
        self.host_api: Any = None
        """API of a host daemon that some workloads start."""

    def start(self) -> None:
        self.identity("server", "gns1.example.net", ("127.0.0.1",))
        self._admin = self.identity("admin", "bench")
        config = self.directory / "opengnssd.toml"
        here = self.directory
        config.write_text(
            f'[server]\nstore = "{self._store}"\nlisten = ["127.0.0.1:{self.port}"]\n'
            f'[tls]\ncertificate = "{here}/gns1.example.net.crt"\nkey = "{here}/gns1.example.net.key"\n'
            f'authority = "{here}/authority.crt"\n'
        )
        environment = os.environ | {"PYTHONPATH": str(ROOT), "COMPASS_BENCH_WITHOUT": self._without}
        command = [sys.executable, "-m", "bench.systems.daemon", str(self.plain_port), str(config)]
        self.running = Running(command, here / "opengnssd.log", environment)
        self.running.listens("127.0.0.1", self.plain_port)
        self._serves()
        self.fill()

    def _serves(self) -> None:
        """Wait until its catalogue is complete: until then it says goodbye."""
        until = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(ConnectionFailed), self.link() as link:
                link.ask(Pull(DEPENDANT))
                return
            if time.monotonic() > until:
                raise RuntimeError(f"opengnssd does not serve: see {self.directory}")
            time.sleep(0.02)

    def fill(self) -> None:
        """The topology of the workloads: web depends on ten categories with one service of three listeners each."""
        names = ("web", "registered", "elsewhere", *(f"c{n}" for n in range(SERVICES)))
        categories = [Category(name) for name in names]
        services = [Service(DEPENDANT), Service(REGISTERED), *(Service(f"s0.c{n}") for n in range(SERVICES))]
        needs = [Dependency("elsewhere", "registered"), *(Dependency("web", f"c{n}") for n in range(SERVICES))]
        with self.link() as link:
            asked(link, Apply((*categories, *services, *needs)))
            for n in range(SERVICES):
                token = self.tokens[f"s0.c{n}"] = self.credential(link, f"s0.c{n}")
                for listener in range(LISTENERS):
                    asked(link, Register(f"s0.c{n}", token, f"10.0.{n}.{listener + 1}", 80, EPOCH))
            self.tokens[REGISTERED] = self.credential(link, REGISTERED)

    def link(self) -> AdminSession:
        """An administrator's session."""
        return AdminSession.connect([Server("127.0.0.1", self.port)], self._admin, 60.0)

    def credential(self, link: AdminSession, service: str) -> str:
        """A new one of the service."""
        issued = asked(link, IssueCredential(service))
        assert isinstance(issued, CredentialIssued)
        return issued.token

    # What is sent.

    def registrations(self, clients: int) -> Plan:
        request = Step(self.registering(REGISTERED).number(frame_number(), "count", 1))
        return self._plan(clients, setups=[HELLO], request=request)

    def registering(self, service: str) -> Template:
        """A registration of the connection's own listener with the next epoch."""
        request = Register(service, self.tokens[service], "10.9.9.9", 0xABCD, EPOCH_MARK)
        template = Template(frame(encode(request), 0x7F7F7F7F))
        template.number(EPOCH_MARK.to_bytes(8, "big"), "total", _epochs(), 1)
        return template.number(b"\xab\xcd", "index", FIRST_PORT, 1)

    def fan_out(self, watchers: int) -> Plan:
        changing = Step(self.registering(DEPENDENCY).number(frame_number(), "count", 1))
        watch = Step(Template(frame(encode(Watch((DEPENDANT,))), 1)))
        plan = self._plan(watchers + 1, mode="fanout", setups=[HELLO, watch])
        plan.writer_setups, plan.writer_request = [HELLO], changing
        plan.reaction = Step(self.acknowledging(), 0)
        return plan

    def acknowledging(self) -> Template:
        """An acknowledgement with the revision copied from the notice, in as many octets as it has there now."""
        with self.link() as link:
            now = asked(link, Pull(DEPENDANT)).revision  # type: ignore[union-attr]
        width = 2 if 0x100 <= now < 0x8000 else 4
        while now < 0x100 or (width == 2 and now > 0x8000):
            # Short revisions are encoded in one octet; a few hundred changes more and there is room.
            with self.link() as link:
                for _ in range(0x100 - now):
                    request = Register(DEPENDENCY, self.tokens[DEPENDENCY], "10.0.0.1", 80, _epochs())
                    now = asked(link, request).revision  # type: ignore[union-attr]
        revision = REVISION_WIDTHS[width]
        acknowledge = frame(encode(Acknowledge(revision)))
        mark = b"revision" + encode_number(revision)
        target = acknowledge.index(mark) + len(b"revision") + 1
        return Template(acknowledge).copied(self._notice_offset(), target, width)

    def _notice_offset(self) -> int:
        """Return the offset of the revision's octets in a notice: after the names of the preceding fields."""
        from compass.model.rows import Change
        from compass.wire.messages import Notice

        row = Service("a.b")
        encoded = frame(encode(Notice(Change(0x0101, 0, 0.0, "x", row))))
        return encoded.index(b"revision\xcd\x01\x01") + len(b"revision") + 1

    def lists(self, clients: int) -> Plan:
        pull = Template(frame(encode(Pull(DEPENDANT)), 0x7F7F7F7F)).number(frame_number(), "count", 1)
        return self._plan(clients, setups=[HELLO], request=Step(pull))

    def cold_start(self, clients: int, *, resumed: bool) -> Plan:
        watch = Step(Template(frame(encode(Watch((DEPENDANT,))), 1)))
        plan = self._plan(clients, mode="start", setups=[HELLO, watch])
        plan.settings["resume"] = int(resumed)
        # The server refuses some of many simultaneous requests until later.
        plan.reaction = Step(self.acknowledging(), 0)
        plan.settings["later"] = b"retry_after_seconds".hex()
        return plan

    def _plan(self, connections: int, *, mode: str = "closed", setups: list[Step], request: Step | None = None) -> Plan:
        port = self.port if self.tls else self.plain_port
        tls = self._tls(connections) if self.tls else None
        return Plan("opengnsp", ("127.0.0.1", port), connections, mode, tls, setups, request)

    # Identities.

    def identity(self, role: str, name: str, more: tuple[str, ...] = ()) -> IdentityFiles:
        credentials = issue(self._authority, role, name, more, datetime.now(UTC))  # type: ignore[arg-type]
        files = write_credentials(self.directory, name, credentials)
        return IdentityFiles(files.certificate, files.key, self.directory / "authority.crt")

    def _tls(self, number: int) -> Tls:
        if number not in self._identities:
            self._identities[number] = _hosts(self._authority, self.directory, number)
        return self._identities[number]


class CompassOnPostgreSQL(System):
    """The same over a PostgreSQL of its own, with the settings that it comes with; for what depends on the store."""

    name = "compass (PostgreSQL)"
    version = compass.__version__

    def start(self) -> None:
        try:
            self._database = PostgreSQL()
        except (ImportError, OSError, RuntimeError) as error:
            raise NotInstalled(f"PostgreSQL does not start: {error}") from error
        self._server = Compass(self.directory / "server", tls=False, store=self._database.new_url())
        self._server.start()
        self.running = self._server.running

    def stop(self) -> None:
        self._server.stop()
        self._database.remove()

    def registrations(self, clients: int) -> Plan:
        return self._server.registrations(clients)

    def fan_out(self, watchers: int) -> None:
        return None

    def lists(self, clients: int) -> None:
        return None


def asked(link: AdminSession, request: Request) -> Reply:
    """The reply, which must not be a refusal."""
    reply = link.ask(request)
    assert not isinstance(reply, Refusal), reply
    return reply


def frame_number() -> bytes:
    """The mark of the request number in a template."""
    return b"\x7f\x7f\x7f\x7f"


def encode_number(number: int) -> bytes:
    """Encode a number as MessagePack does."""
    return b"\xcd" + number.to_bytes(2, "big") if number < 0x10000 else b"\xce" + number.to_bytes(4, "big")


_last_epoch = EPOCH


def _epochs() -> int:
    """An epoch beyond all that earlier loads used."""
    global _last_epoch
    _last_epoch += 10_000_000
    return _last_epoch


def _hosts(authority: Credentials, directory: Path, number: int) -> Tls:
    """Issue the certificates of a number of hosts for one key: the load of the server is the same, and it is faster."""
    signer = serialization.load_pem_private_key(authority.key_pem, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(authority.certificate_pem).subject
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    own, signers = key.public_key(), signer.public_key()
    key_id = x509.SubjectKeyIdentifier.from_public_key(own)
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signers)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    with (directory / f"hosts-{number}.crt").open("wb") as file:
        for index in range(number):
            name = f"h{index}.bench"
            subject = x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "host"),
                    x509.NameAttribute(NameOID.COMMON_NAME, name),
                ]
            )
            builder = x509.CertificateBuilder(
                issuer, subject, own, index + 1000, now - timedelta(hours=1), now + timedelta(days=2)
            )
            builder = (
                builder.add_extension(key_id, False).add_extension(authority_id, False).add_extension(usage, False)
            )
            names = x509.SubjectAlternativeName([x509.DNSName(name)])
            certificate = builder.add_extension(names, False).sign(signer, hashes.SHA256())
            file.write(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / f"hosts-{number}.key"
    path.write_bytes(private)
    return Tls(str(path), str(directory / f"hosts-{number}.crt"))


HELLO = Step(Template(frame(encode(Hello((1,), "bench")))))
"""The greeting; the welcome answers it."""

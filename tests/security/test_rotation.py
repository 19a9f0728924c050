"""Keys, authorities and credentials replaced while all daemons work, as docs/explanation/security.md says to do it.

The commands are those of the document; the daemons are real. A resolving client asks all the time and must never see
an error or an empty list.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from compass.admin.shell.connection import ConnectionFailed, IdentityFiles
from compass.client.core.blocking_api import ApiEndpoint, ApiProblem, HostApi
from compass.model.host_api import LocalRegister, Resolved
from compass.model.limits import EPOCH_AHEAD_SECONDS_MAX, EPOCH_MAX, EPOCHS_PER_SECOND
from compass.model.replies import CredentialIssued, Refusal, Rows, ServerStatus
from compass.model.requests import Deregister, Fetch, IssueCredential, Pull, Register, Status
from compass.model.rows import Credential
from compass.pki.authority import Credentials, create_authority, issue
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import eventually

SERVICE = "chinaserver.openuss"


class Resolving:
    """A program that resolves in a loop; `troubles` is what went wrong."""

    def __init__(self, host: Host) -> None:
        self.troubles: list[str] = []
        self.answers = 0
        self._api = HostApi(ApiEndpoint(path=str(host.socket)), 5.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.005):
            try:
                answer: Resolved = self._api.resolve(SERVICE)
            except ApiProblem as problem:
                self.troubles.append(str(problem))
            else:
                self.answers += 1
                if not answer.listeners:
                    self.troubles.append("an empty list")

    def stop(self) -> None:
        self._over.set()
        self._thread.join(10)


@contextmanager
def resolving(host: Host) -> Iterator[Resolving]:
    """Resolve while the block runs; nothing may go wrong."""
    program = Resolving(host)
    try:
        yield program
        after = program.answers + 10
        eventually(lambda: program.troubles or program.answers > after, "somebody resolves")
    finally:
        program.stop()
    assert program.troubles == []


def started(deploy: Deploy) -> tuple[Deployment, Host, Host]:
    """A server, a host with a registered listener, and a host that uses it."""
    deployment = deploy()
    deployment.start()
    storage, web = deployment.add_hosts("storage", "web")
    deployment.register(web, "portal.web")
    deployment.register(storage, SERVICE)
    eventually(lambda: web.resolved(SERVICE)[1], "the listener is known")
    return deployment, storage, web


def replace(deployment: Deployment, name: str, credentials: Credentials) -> None:
    """Put a new key and certificate where the old ones are: new files first, then each is renamed."""
    for suffix, content in ((".key", credentials.key_pem), (".crt", credentials.certificate_pem)):
        path = deployment.directory / (name + suffix)
        fresh = path.with_name(path.name + ".new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(content)
        fresh.replace(path)


def serial(deployment: Deployment) -> int:
    """The serial number of the certificate that the server shows."""
    context = ssl.create_default_context(cafile=str(deployment.directory / "authority.crt"))
    context.load_cert_chain(deployment.admin.certificate, deployment.admin.key)
    with (
        socket.create_connection((deployment.address, deployment.port), 5) as client,
        context.wrap_socket(client, server_hostname=deployment.address) as session,
    ):
        shown = session.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def states(deployment: Deployment) -> int:
    """Return the number of changes of listeners: a flap would add some."""
    return len(deployment.updates())


def test_certificates_are_renewed_by_a_restart_that_nobody_notices(deploy: Deploy, authority: Credentials) -> None:
    """First the server's, then a host's: lookups go on, and no listener flaps."""
    deployment, storage, web = started(deploy)
    before, changes = serial(deployment), states(deployment)
    now = datetime.now(UTC)
    with resolving(web):
        replace(
            deployment, "gns1.example.net", issue(authority, "server", "gns1.example.net", [deployment.address], now)
        )
        assert serial(deployment) == before, "the old one is shown until the restart"
        deployment.server.stop()
        deployment.server.start()
        deployment.serves()
        web.in_session()
        replace(deployment, storage.name, issue(authority, "host", storage.name, [], now))
        storage.restart()
        storage.in_session()
    assert serial(deployment) != before
    assert states(deployment) == changes


def test_one_authority_replaces_another_while_everybody_works(deploy: Deploy, authority: Credentials) -> None:
    """Both are trusted first, then the certificates are replaced, then the old authority is distrusted."""
    deployment, storage, web = started(deploy)
    changes = states(deployment)
    now = datetime.now(UTC)
    successor = create_authority("successor", now)
    trust = deployment.directory / "authority.crt"

    def everybody_again() -> None:
        deployment.server.stop()
        deployment.server.start()
        deployment.serves()
        for host in (storage, web):
            host.daemon.stop()
            host.daemon.start()
            host.in_session()

    def server_and_storage_again() -> None:
        deployment.server.stop()
        deployment.server.start()
        deployment.serves()
        storage.restart()
        storage.in_session()
        web.in_session()

    # 1. All trust both.
    trust.write_bytes(authority.certificate_pem + successor.certificate_pem)
    everybody_again()
    with resolving(web):
        # 2. Certificates of the new authority, one daemon after the other.
        replace(
            deployment, "gns1.example.net", issue(successor, "server", "gns1.example.net", [deployment.address], now)
        )
        replace(deployment, storage.name, issue(successor, "host", storage.name, [], now))
        server_and_storage_again()
    replace(deployment, web.name, issue(successor, "host", web.name, [], now))
    old_admin = deployment.certify("admin", "mallory")
    assert deployment.ask(Status(), ServerStatus, old_admin)
    replace(deployment, "alice", issue(successor, "admin", "alice", [], now))
    # 3. The old one is not trusted any longer: whatever was issued or stolen of it is worth nothing.
    trust.write_bytes(successor.certificate_pem)
    everybody_again()
    with resolving(web):
        assert deployment.ask(Status(), ServerStatus)
    with pytest.raises(ConnectionFailed):
        deployment.ask(Status(), ServerStatus, old_admin)
    assert states(deployment) == changes


def test_a_credential_is_replaced_with_an_overlap(deploy: Deploy, tmp_path: Path) -> None:
    """Both tokens are good until the new one is everywhere; then the old one is refused."""
    deployment, storage, web = started(deploy)
    old = deployment.token(SERVICE)
    output = tmp_path / "new.token"
    with resolving(web):
        deployment.opengnsadmin("credential", "add", SERVICE, "--overlap", "1h", "--output", str(output))
        new = output.read_text().strip()
        ports = [free_port(storage.address) for _ in range(3)]
        for port, token in zip(ports, (old, new), strict=False):
            assert storage.api.register(LocalRegister(SERVICE, port, token)).state == "up"
        rows = deployment.ask(Fetch("credential", within=SERVICE), Rows).rows
        ids = [row.id for row in rows if isinstance(row, Credential) and row.expires_at]
        assert len(ids) == 1
        deployment.opengnsadmin("credential", "remove", SERVICE, ids[0])
        with pytest.raises(ApiProblem, match="credential") as problem:
            storage.api.register(LocalRegister(SERVICE, ports[2], old))
        assert problem.value.code == "bad-credential"
        assert storage.api.register(LocalRegister(SERVICE, ports[2], new)).state == "up"


def test_a_stolen_host_key_is_barred_at_once(deploy: Deploy) -> None:
    """No restart anywhere: the thief's session ends, whatever it asks is refused, and the log has it."""
    deployment, _, web = started(deploy)
    stolen = deployment.directory / "stolen"
    stolen.mkdir()
    for suffix in (".key", ".crt"):
        shutil.copy(deployment.directory / (web.name + suffix), stolen / ("host" + suffix))
    thief = IdentityFiles(stolen / "host.crt", stolen / "host.key", deployment.directory / "authority.crt")
    with deployment.link(thief) as link:
        assert not isinstance(link.ask(Pull("portal.web")), Refusal)
        deployment.opengnsadmin("host", "set", web.name, "--barred")
        with pytest.raises(ConnectionFailed):
            link.ask(Pull("portal.web"))
    with deployment.link(thief) as link:
        refusal = link.ask(Pull("portal.web"))
        assert isinstance(refusal, Refusal) and refusal.code == "forbidden" and "barred" in refusal.message
    # The machine itself goes on from what it has, as with a server that is unavailable.
    assert web.resolved(SERVICE)[1]


def test_a_stolen_administrators_key_is_shut_out_by_role_rules(deploy: Deploy) -> None:
    """The quick way: role rules in every server's file that name who is left, and a restart of the servers."""
    deployment, _, web = started(deploy)
    mallory = deployment.certify("admin", "mallory")
    assert deployment.ask(Status(), ServerStatus, mallory)
    config = deployment.directory / "opengnssd.toml"
    with resolving(web):
        rules = 'admin = ["alice"]\nhost = ["*.example.net"]\nserver = ["gns*.example.net"]\n'
        config.write_text(config.read_text() + rules)
        deployment.server.stop()
        deployment.server.start()
        deployment.serves()
        web.in_session()
    with pytest.raises((ConnectionFailed, AssertionError), match=r"role|rule"):
        deployment.ask(Status(), ServerStatus, mallory)
    assert deployment.ask(Status(), ServerStatus)


def test_a_stolen_credential_can_be_mended(deploy: Deploy) -> None:
    """The thief of a service's token cannot close an address of it: no epoch is further ahead than a day, and the owner
    takes the next one."""
    deployment, storage, _ = started(deploy)
    token, port = deployment.token(SERVICE), free_port(storage.address)
    thief = deployment.certify("host", "thief.example.net")
    with deployment.link(thief) as link:
        refused = link.ask(Register(SERVICE, token, storage.address, port, EPOCH_MAX))
        assert isinstance(refused, Refusal) and refused.code == "bad-value"
        ahead = int((time.time() + EPOCH_AHEAD_SECONDS_MAX - 60) * EPOCHS_PER_SECOND)
        for request in (Register, Deregister):
            assert not isinstance(link.ask(request(SERVICE, token, storage.address, port, ahead)), Refusal)
    assert storage.api.register(LocalRegister(SERVICE, port, token)).state == "up"
    # Every registration of the host goes on as before, also after a restart.
    assert deployment.register(storage, "northeast.openuss").state == "up"
    storage.restart()
    storage.in_session()
    status = storage.status()
    assert status is not None and len(status.registrations) == 3
    # The token is replaced without an overlap, and the thief is out.
    fresh = deployment.ask(IssueCredential(SERVICE, 0), CredentialIssued).token
    with deployment.link(thief) as link:
        refusal = link.ask(Register(SERVICE, token, storage.address, port + 1, 5))
        assert isinstance(refusal, Refusal) and refusal.code == "bad-credential"
    assert storage.api.register(LocalRegister(SERVICE, free_port(storage.address), fresh)).state == "up"

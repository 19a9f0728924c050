"""Certificates of the private authority renew themselves before their end, and nothing flaps.

Lifetimes are shortened by the setting `certificate_seconds`: the daemons go through several of them while a program
resolves all the time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from compass.model.replies import Certified, LogEntries, Refusal
from compass.model.requests import ReadLog, Renew
from compass.model.rows import SecurityEntry
from compass.pki.authority import Credentials, Role, Subject, certify, create_authority, write_credentials
from compass.pki.identity import load_identity, role_and_name
from compass.pki.signing import new_request, renewal_due
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host
from tests.e2e.processes import eventually
from tests.security.test_rotation import resolving

LIFETIME_SECONDS = 8
"""More than a daemon needs to start on a loaded machine; a renewal is due when a third of it is left."""
SERVICE = "chinaserver.openuss"


def short_lived(
    deployment: Deployment, authority: Credentials, role: Role, name: str, seconds: float = LIFETIME_SECONDS
) -> None:
    """Give a daemon that does not run yet a certificate that ends soon."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = (deployment.address,) if role == "server" else ()
    made = certify(
        authority, Subject(role, name, names), key.public_key(), datetime.now(UTC), timedelta(seconds=seconds)
    )
    pem = serialization.Encoding.PEM
    files = {
        "key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        "crt": made.public_bytes(pem),
    }
    for suffix, content in files.items():
        path = deployment.directory / f"{name}.{suffix}"
        path.touch(mode=0o600)
        path.write_bytes(content)


def certificate_of(deployment: Deployment, name: str) -> x509.Certificate:
    """Return the certificate in a daemon's file."""
    return x509.load_pem_x509_certificate((deployment.directory / f"{name}.crt").read_bytes())


def signing(deploy: Deploy, authority: Credentials, keys: Path, settings: str = "") -> Deployment:
    """Return a deployment whose server holds the authority's key and signs for a short time."""
    write_credentials(keys, "authority", authority)
    lifetime = f"certificate_seconds = {LIFETIME_SECONDS}\n"
    return deploy(settings=f'authority = "{keys}"\n{lifetime}{settings}')


def short_host(deployment: Deployment, authority: Credentials, name: str, tls: str = "") -> Host:
    """Start a host whose certificate ends soon."""
    issued = deployment.certify

    def instead(role: Role, full_name: str, *_: str) -> None:
        short_lived(deployment, authority, role, full_name)

    deployment.certify = instead  # type: ignore[method-assign, assignment]
    own = deployment._tls
    deployment._tls = lambda name: own(name) + tls  # type: ignore[method-assign]
    try:
        host = deployment.add_host(name)
    finally:
        deployment.certify, deployment._tls = issued, own  # type: ignore[method-assign]
    host.in_session()
    return host


def past_renewal(deployment: Deployment, host: Host) -> None:
    """Wait until a second after the time at which a certificate would be renewed."""
    due = renewal_due(certificate_of(deployment, host.name)) + timedelta(seconds=1)
    eventually(lambda: datetime.now(UTC) > due, "the renewal would be over")


def sessions_of(host: Host) -> int:
    """Return the number of sessions that a daemon has begun."""
    return host.daemon.log.read_text().count("session with server")


def test_a_host_renews_in_its_session_and_nothing_flaps(deploy: Deploy, authority: Credentials, tmp_path: Path) -> None:
    """Past the end of the first certificate the one session is still open and no listener has changed."""
    deployment = signing(deploy, authority, tmp_path)
    deployment.start()
    storage = short_host(deployment, authority, "storage")
    (web,) = deployment.add_hosts("web")
    first = certificate_of(deployment, storage.name)
    deployment.register(web, "portal.web")
    deployment.register(storage, SERVICE)
    eventually(lambda: web.resolved(SERVICE)[1], "the listener is known")
    changes = len(deployment.updates())
    with resolving(web):
        end = first.not_valid_after_utc + timedelta(seconds=0.5)
        eventually(lambda: datetime.now(UTC) > end, "the first certificate is over")
    last = certificate_of(deployment, storage.name)
    assert role_and_name(last) == ("host", storage.name)
    assert last.public_key() != first.public_key(), "the key is renewed, too"
    assert len(deployment.updates()) == changes
    assert sessions_of(storage) == 1
    files = deployment.identity_of(storage)
    held = load_identity(files.key, files.certificate, files.authority, datetime.now(UTC))
    assert held.certificate == last, "key and certificate fit"
    names = [path.name for path in deployment.directory.iterdir() if storage.name in path.name and path.is_file()]
    assert sorted(names) == [f"{storage.name}.crt", f"{storage.name}.key"]
    assert (deployment.directory / f"{storage.name}.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_server_renews_its_own_and_nothing_flaps(deploy: Deploy, authority: Credentials, tmp_path: Path) -> None:
    """Hosts of the server begin a new session at the end of the old certificate, and no listener changes."""
    deployment = signing(deploy, authority, tmp_path)
    short_lived(deployment, authority, "server", "gns1.example.net")
    first = certificate_of(deployment, "gns1.example.net")
    deployment.start()
    storage, web = deployment.add_hosts("storage", "web")
    deployment.register(web, "portal.web")
    deployment.register(storage, SERVICE)
    eventually(lambda: web.resolved(SERVICE)[1], "the listener is known")
    changes = len(deployment.updates())
    with resolving(web):
        end = first.not_valid_after_utc + timedelta(seconds=1)
        eventually(lambda: datetime.now(UTC) > end, "the first certificate is over")
        for host in (storage, web):
            host.in_session()
    assert certificate_of(deployment, "gns1.example.net").not_valid_after_utc > end
    assert len(deployment.updates()) == changes
    assert sorted(path.name for path in deployment.directory.glob("gns1*")) == [
        "gns1.example.net.crt",
        "gns1.example.net.key",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("tls", "holds_key"), [("renew = false\n", True), ("", False)])
def test_nothing_is_tried_where_it_is_switched_off_or_impossible(
    deploy: Deploy, authority: Credentials, tmp_path: Path, tls: str, holds_key: bool
) -> None:
    """The file stays as it is: the setting forbids a renewal, or the server does not hold the key."""
    deployment = signing(deploy, authority, tmp_path) if holds_key else deploy()
    deployment.start("")
    host = short_host(deployment, authority, "storage", tls)
    before = (deployment.directory / f"{host.name}.crt").read_bytes()
    past_renewal(deployment, host)
    assert (deployment.directory / f"{host.name}.crt").read_bytes() == before
    assert "renewed" not in host.daemon.log.read_text()


@pytest.mark.slow
def test_a_certificate_of_another_pki_is_not_touched(deploy: Deploy, authority: Credentials, tmp_path: Path) -> None:
    """A host that both authorities' peers accept keeps what its own PKI has issued, although the server could sign."""
    other = create_authority("own-pki", datetime.now(UTC))
    deployment = signing(deploy, authority, tmp_path)
    both = authority.certificate_pem + other.certificate_pem
    (deployment.directory / "authority.crt").write_bytes(both)
    deployment.start("")
    host = short_host(deployment, other, "storage")
    before = (deployment.directory / f"{host.name}.crt").read_bytes()
    past_renewal(deployment, host)
    assert (deployment.directory / f"{host.name}.crt").read_bytes() == before
    assert deployment.ask(ReadLog("security"), LogEntries).entries == (), "nothing was tried"


def test_a_renewal_never_gets_more_than_the_session_has(deploy: Deploy, authority: Credentials, tmp_path: Path) -> None:
    """A request for another name or role, or in an administrator's session, is refused and in the security log."""
    deployment = signing(deploy, authority, tmp_path)
    deployment.start("")
    identity = deployment.certify("host", "web1.example.net")
    with deployment.link(identity) as link:
        done = link.ask(Renew(new_request("web1.example.net")[1]))
        assert isinstance(done, Certified)
        made = x509.load_pem_x509_certificate(done.certificate.encode())
        assert role_and_name(made) == ("host", "web1.example.net")
        for request, words in (
            (new_request("gns1.example.net")[1], "asks for gns1.example.net"),
            (_request_for_role("admin"), "asks for the role admin"),
            (b"no request", "not a certificate request"),
        ):
            refused = link.ask(Renew(request))
            assert isinstance(refused, Refusal) and refused.code == "forbidden" and words in refused.message
    with deployment.link() as link:
        refused = link.ask(Renew(new_request("alice")[1]))
        assert isinstance(refused, Refusal) and refused.code == "forbidden"
    entries = deployment.ask(ReadLog("security"), LogEntries).entries
    assert [one.principal for one in entries if isinstance(one, SecurityEntry)] == ["web1.example.net"] * 3 + ["alice"]


def _request_for_role(role: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, role), (x509.NameOID.COMMON_NAME, "web1.example.net")]
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)

"""Dates are no configuration: daemons start with a wrong clock or certificate, answer from disk, and recover by
themselves; certificates of a whole chain are checked and named."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from compass.pki.authority import Credentials, issue
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host
from tests.e2e.processes import environment, eventually, python
from tests.support.certificates import changed
from tests.support.intermediate import make

SERVICE = "chinaserver.openuss"


def put(deployment: Deployment, name: str, credentials: Credentials) -> None:
    """Write the files of a daemon's identity."""
    for suffix, content in ((".key", credentials.key_pem), (".crt", credentials.certificate_pem)):
        (deployment.directory / (name + suffix)).write_bytes(content)


def asked(host: Host, path: str) -> Any:
    """Return what a GET of the host's API answers."""
    with urllib.request.urlopen(f"{host.url}{path}", timeout=5) as answer:
        text = answer.read().decode()
    return json.loads(text) if path != "/metrics" else text


def filled(deploy: Deploy) -> tuple[Deployment, Host]:
    """A host that has its view on disk, and is stopped."""
    deployment = deploy()
    deployment.start()
    host = deployment.add_host("web", services=("portal.web",))
    host.in_session()
    deployment.register(host, SERVICE)
    eventually(lambda: host.resolved(SERVICE)[1], "the listener is known")
    host.saved()
    host.daemon.stop()
    return deployment, host


def test_a_host_whose_clock_is_not_set_yet_answers_from_disk_and_comes_by_itself(
    deploy: Deploy, authority: Credentials
) -> None:
    """F7: its certificate begins in the future, as for a machine whose clock is slow. There are lookups at once, and a
    session as soon as the date is right, without a restart."""
    deployment, host = filled(deploy)
    whole = issue(authority, "host", host.name, [host.address], datetime.now(UTC))
    put(deployment, host.name, changed(authority, whole, begins=4.0))
    host.daemon.start()
    host.answers()
    assert host.resolved(SERVICE)[1]
    status = host.status()
    assert status is not None and status.session != "open"
    assert asked(host, "/readyz")["certificates"] == "invalid"
    assert "opengns_host_certificates_invalid 1.0" in asked(host, "/metrics")
    shown = deployment.opengnsc(host, "status").stdout
    assert f"{host.name}.crt is not valid before" in shown and "set the clock" in shown
    host.in_session()
    assert "certificates" not in asked(host, "/readyz")
    assert host.daemon.log.read_text().count("is not valid before") < 12, "loud, but not at each attempt"


def test_a_host_with_an_expired_certificate_says_so_and_uses_a_new_one(deploy: Deploy, authority: Credentials) -> None:
    """F8 (d): whose certificate, since when, what to do; the new file is used without a restart."""
    deployment, host = filled(deploy)
    whole = issue(authority, "host", host.name, [host.address], datetime.now(UTC))
    put(deployment, host.name, changed(authority, whole, seconds=-60.0))
    host.daemon.start()
    host.answers()
    assert host.resolved(SERVICE)[1]

    def refused() -> str:
        status = host.status()
        return status.problem if status is not None and "refuses" in status.problem else ""

    problem = eventually(refused, "the server has refused the certificate")
    assert f"{host.name}.crt expired on" in problem and "opengnsadmin tls host NAME" in problem
    assert "SSL routines" not in host.daemon.log.read_text()
    put(deployment, host.name, whole)
    host.in_session()


def test_a_server_with_an_expired_certificate_starts_and_recovers(deploy: Deploy, authority: Credentials) -> None:
    """The hosts answer meanwhile, and come when the file is replaced."""
    deployment, host = filled(deploy)
    deployment.server.stop()
    whole = issue(authority, "server", "gns1.example.net", [deployment.address], datetime.now(UTC))
    put(deployment, "gns1.example.net", changed(authority, whole, seconds=-60.0))
    deployment.server.start()
    host.daemon.start()
    host.answers()
    assert host.resolved(SERVICE)[1]
    log = host.daemon.log
    text = "the certificate 'CN=gns1.example.net,OU=server' of the peer expired on"
    eventually(lambda: text in log.read_text(), "the host says whose certificate it is")
    assert deployment.server.runs and "gns1.example.net.crt expired on" in deployment.server.log.read_text()
    put(deployment, "gns1.example.net", whole)
    host.in_session()


@pytest.mark.parametrize("partial", [False, True])
def test_the_check_and_the_doctor_name_the_certificate_of_the_chain(deploy: Deploy, partial: bool) -> None:
    """F8 (b), (c): an intermediate that has expired is found before the start and from outside; the issuing authority
    alone is enough to trust."""
    deployment = deploy()
    ends = timedelta(days=100) if partial else timedelta(hours=-1)
    root = make("Root", "ca")
    inter = make("Inter", "ca", root, ends=ends)
    name, directory = "gns1.example.net", deployment.directory
    leaf = make(name, "server", inter, names=(name, "localhost"))
    alice = make("alice", "admin", inter)
    (directory / "authority.crt").write_bytes((inter if partial else root).pem)
    for who, made in ((name, leaf), ("alice", alice)):
        put(deployment, who, Credentials(made.key_pem, made.pem + inter.pem))
    config = directory / "opengnssd.toml"
    command = python("compass.daemons.main:server", "--config", str(config), "--check")
    checked = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=40)
    is_named = "the intermediate certificate 'OU=ca,CN=Inter' in" in checked.stderr
    assert (checked.returncode, is_named) == ((0, False) if partial else (78, True)), checked.stderr
    deployment.server.start()
    eventually(lambda: "opengnssd listens on" in deployment.server.log.read_text(), "the server serves")
    doctor = deployment.opengnsadmin("--server-name", name, "doctor", status=0 if partial else 1)
    assert ("TLS" in doctor and "proven" in doctor) == partial
    assert ("above the certificate of the server, expired on" in doctor) != partial, doctor
    assert "tls server NAME" not in doctor

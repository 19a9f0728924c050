"""A machine becomes a host with one token and one command; every wrong way ends with one sentence and writes nothing.

Servers and the command are real processes that talk TLS over sockets.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from compass.model.limits import (
    CERTIFICATE_REQUEST_OCTETS_MAX,
    INVITATION_NAMES_MAX,
    INVITATION_SECONDS_MAX,
    INVITATION_SECONDS_MIN,
)
from compass.model.replies import Invited, LogEntries, Refusal
from compass.model.requests import Invite, ReadLog, Renew
from compass.model.rows import AdministrationEntry, SecurityEntry
from compass.pki.authority import Credentials, create_authority, write_credentials
from compass.pki.identity import leaf_problem, role_and_name
from compass.pki.join_token import JoinToken, decode, encode
from compass.pki.signing import new_request
from compass.server.sessions.rate_limit import FAILURES_PER_MINUTE_MAX
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, free_port
from tests.e2e.processes import PATIENCE_SECONDS, ROOT, environment, python

SHIFTED = """
import sys, time
real, shift = time.time, float(sys.argv.pop(1))
time.time = lambda: real() + shift
from compass.daemons.main import host
host()
"""
"""The command on a machine whose clock is wrong by a number of seconds."""


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory, authority: Credentials) -> Iterator[Deployment]:
    """A deployment whose server holds the authority's key."""
    keys = tmp_path_factory.mktemp("keys")
    write_credentials(keys, "authority", authority)
    settings = f'authority = "{keys}"\n'
    with Deployment(tmp_path_factory.mktemp("gns"), authority, settings=settings) as deployment:
        deployment.start("")
        yield deployment


def invite(deployment: Deployment, name: str, *options: str) -> str:
    """Return the text of a token."""
    made = json.loads(deployment.opengnsadmin("host", "invite", name, "--json", *options))
    token: str = made["token"]
    return token


def join(directory: Path, *arguments: str, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `opengnscd join` on a machine whose files are in a directory."""
    places = ["--config", str(directory / "opengnscd.toml"), "--state-directory", str(directory / "state")]
    return subprocess.run(
        [*(command or python("compass.daemons.main:host")), "join", *arguments, *places],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def refused(result: subprocess.CompletedProcess[str], status: int, directory: Path) -> str:
    """Return the one line that a refused command prints; it has written nothing."""
    assert result.returncode == status, result
    assert result.stdout == "" and result.stderr.startswith("opengnscd: ") and result.stderr.count("\n") == 1
    assert list(directory.iterdir()) == [], "something was written"
    return result.stderr


def security(deployment: Deployment) -> list[SecurityEntry]:
    """Return the entries of the security log about joining."""
    entries = deployment.ask(ReadLog("security", limit=1000), LogEntries).entries
    return [one for one in entries if isinstance(one, SecurityEntry) and one.operation == "join"]


def test_one_token_and_one_command_make_a_host(signing: Deployment, tmp_path: Path) -> None:
    """Key, certificate, authority and configuration are there; the next command is printed, and it works."""
    name = "web1.example.net"
    token = invite(signing, name, "--also", signing.address)
    result = join(tmp_path, "--token", token)
    assert result.returncode == 0, result
    assert result.stdout.splitlines()[-1] == f"Next: opengnscd --config {tmp_path / 'opengnscd.toml'}"
    tls = tmp_path / "state" / "tls"
    assert sorted(path.name for path in tls.iterdir()) == ["authority.crt", "host.crt", "host.key"]
    assert (tls / "host.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["opengnscd.toml", "state"]
    certificate = x509.load_pem_x509_certificate((tls / "host.crt").read_bytes())
    assert role_and_name(certificate) == ("host", name)
    assert leaf_problem(certificate, server=False) == ""
    config = tmp_path / "opengnscd.toml"
    config.write_text(config.read_text().replace("[tls]", f'api = ""\nsocket = "{tmp_path}/gns.sock"\n[tls]'))
    checked = subprocess.run(
        python("compass.daemons.main:host", "--config", str(config), "--check"), env=environment(), capture_output=True
    )
    assert checked.returncode == 0, checked
    daemon = subprocess.Popen(
        python("compass.daemons.main:host", "--config", str(config)),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert daemon.stderr is not None
        assert any("session with server gns1.example.net" in line for line in daemon.stderr)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=PATIENCE_SECONDS)
    entry = [one for one in security(signing) if one.subject == name]
    assert len(entry) == 1 and "a certificate was issued" in entry[0].reason and entry[0].principal == "alice"
    log = signing.ask(ReadLog("administration", limit=1000), LogEntries).entries
    made = [one for one in log if isinstance(one, AdministrationEntry) and one.operation == "invite"]
    assert made and made[0].principal == "alice" and name in made[0].arguments
    secret = decode(token).secret
    assert secret not in str(log) + str(security(signing)), "a secret is in a log"
    assert secret.encode() not in (signing.directory / "store.sqlite").read_bytes(), "the store has the secret"


def test_a_used_token_makes_no_second_host(signing: Deployment, tmp_path: Path) -> None:
    """The refusal says when it was used and from where."""
    token = invite(signing, "web2.example.net")
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    assert join(first, "--token", token).returncode == 0
    text = refused(join(second, "--token", token), 4, second)
    assert "the join token was used at" in text and "opengnsadmin host invite" in text
    assert "was used at" in [one for one in security(signing) if one.subject == "web2.example.net"][-1].reason


def test_two_hosts_with_one_token_at_once_one_wins(signing: Deployment) -> None:
    """The use is one transaction: of eight at the same moment one gets a certificate."""
    token = decode(invite(signing, "web3.example.net"))
    context = ssl.create_default_context(cadata=(signing.directory / "authority.crt").read_text())

    def ask(_: int) -> int:
        body = json.dumps({"token": token.secret, "request": _base64(new_request(token.name)[1])}).encode()
        asked = urllib.request.Request(f"{signing.https}/v1/join", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, context=context, timeout=PATIENCE_SECONDS) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(ask, range(8)))
    assert statuses == [200, *[403] * 7]
    uses = [one for one in security(signing) if one.subject == "web3.example.net"]
    assert sum("a certificate was issued" in one.reason for one in uses) == 1 and len(uses) == 8


def _base64(octets: bytes) -> str:
    encoded: str = msgspec.to_builtins(octets)
    return encoded


def test_an_expired_token_is_refused(signing: Deployment, tmp_path: Path) -> None:
    """The server's clock decides; the refusal says when it expired."""
    token = invite(signing, "web4.example.net", "--valid", "1s")
    time.sleep(1.1)
    assert "the join token expired at" in refused(join(tmp_path, "--token", token), 4, tmp_path)
    assert "expired" in [one for one in security(signing) if one.subject == "web4.example.net"][-1].reason


def test_a_token_for_another_store_is_not_sent(signing: Deployment, tmp_path: Path) -> None:
    """The host compares the store before it sends the token, so the server knows of no attempt."""
    token = decode(invite(signing, "web5.example.net"))
    before = len(security(signing))
    other = JoinToken(token.name, token.servers, token.https_port, "0" * 32, token.authority, token.secret)
    assert "the token is for the store 00000000..." in refused(join(tmp_path, "--token", encode(other)), 4, tmp_path)
    assert len(security(signing)) == before


def test_another_authority_gets_no_token(signing: Deployment, tmp_path: Path) -> None:
    """A machine between host and server shows another authority: the host sends nothing."""
    token = decode(invite(signing, "web6.example.net"))
    before = len(security(signing))
    other = JoinToken(token.name, token.servers, token.https_port, token.store, "ab" * 32, token.secret)
    text = refused(join(tmp_path, "--token", encode(other)), 4, tmp_path)
    assert "the token expects abababababababab..." in text and "nothing was sent" in text
    assert len(security(signing)) == before


@pytest.mark.parametrize(("seconds", "word"), [(301, "ahead of"), (-90_000_000, "behind")])
def test_a_wrong_clock_is_found_before_the_token_is_used(
    signing: Deployment, tmp_path: Path, seconds: int, word: str
) -> None:
    """Also with a clock at which no certificate is valid yet; afterwards the token still works."""
    token = invite(signing, f"clock{abs(seconds)}.example.net")
    command = [sys.executable, "-c", SHIFTED, str(seconds)]
    text = refused(join(tmp_path, "--token", token, command=command), 1, tmp_path)
    assert f"s {word} that of" in text and "timedatectl" in text
    assert join(tmp_path, "--token", token).returncode == 0


def test_a_clock_that_differs_a_little_is_no_reason(signing: Deployment, tmp_path: Path) -> None:
    """Just below the bound, with a second for the test itself."""
    token = invite(signing, "late.example.net")
    command = [sys.executable, "-c", SHIFTED, "-295"]
    assert join(tmp_path, "--token", token, command=command).returncode == 0


def test_a_server_that_cannot_be_reached_leaves_the_token(signing: Deployment, tmp_path: Path) -> None:
    """The command says what to check; another server is tried as long as nothing was sent."""
    token = decode(invite(signing, "web7.example.net"))
    nowhere = f"{signing.address}:{free_port(signing.address)}"
    text = refused(join(tmp_path, nowhere, "--token", encode(token)), 7, tmp_path)
    assert f"{nowhere} cannot be reached (Connection refused)" in text and "the token was not used" in text
    two = JoinToken(
        token.name, ("127.0.0.9:1", *token.servers), token.https_port, token.store, token.authority, token.secret
    )
    assert join(tmp_path, "--token", encode(two)).returncode == 0


@pytest.mark.parametrize("existing", ["opengnscd.toml", "state/tls/host.key"])
def test_existing_files_are_not_overwritten(signing: Deployment, tmp_path: Path, existing: str) -> None:
    """Nothing is asked of the server then: the token still works elsewhere."""
    token = invite(signing, f"{existing[:5].rstrip('/')}x.example.net")
    path = tmp_path / existing
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    result = join(tmp_path, "--token", token)
    assert result.returncode == 5 and f"{path} exists, and nothing is overwritten" in result.stderr
    assert path.read_text() == "mine"
    assert join(tmp_path / "other", "--token", token).returncode == 0


def test_a_damaged_token_is_recognised(tmp_path: Path) -> None:
    """Cut, or another text."""
    token = JoinToken("web", ("gns1:4863",), 4864, "0" * 32, "ab" * 32, "secret")
    for text, words in (("hello", "this is not a join token"), (encode(token)[:-9], "the join token is damaged")):
        assert words in refused(join(tmp_path, "--token", text), 2, tmp_path)


def test_a_server_without_the_key_says_what_to_do(deploy: Deploy, tmp_path: Path) -> None:
    """That servers sign is a decision: without it neither an invitation nor a join works, and nothing is tried."""
    deployment = deploy()
    deployment.start("")
    text = deployment.opengnsadmin("host", "invite", "web1.example.net", status=3)
    assert "does not hold the authority's key" in text and "opengnsadmin tls host NAME" in text
    where = f"{deployment.address}:{deployment.port}"
    token = JoinToken("web1", (where,), deployment.https_port, "0" * 32, "ab" * 32, "x" * 43)
    assert "does not hold the authority's key" in refused(join(tmp_path, "--token", encode(token)), 3, tmp_path)


def test_a_barred_host_gets_no_token(signing: Deployment, tmp_path: Path) -> None:
    """Nor can it join with one that was made before."""
    token = invite(signing, "thief.example.net")
    signing.opengnsadmin("host", "add", "thief.example.net", "--barred")
    assert "is barred" in signing.opengnsadmin("host", "invite", "thief.example.net", status=4)
    assert "is barred" in refused(join(tmp_path, "--token", token), 4, tmp_path)


def test_a_foreign_authority_in_the_settings_is_refused_at_the_start(tmp_path: Path, deploy: Deploy) -> None:
    """A server does not sign what no peer would accept."""
    write_credentials(tmp_path, "authority", create_authority("other", datetime.now(UTC)))
    deployment = deploy(settings=f'authority = "{tmp_path}"\n')
    command = python("compass.daemons.main:server", "--config", str(deployment.directory / "opengnssd.toml"))
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert ended.returncode == 78 and "no peer would accept what it signs" in ended.stderr


def test_a_second_machine_joins_with_one_command(tmp_path: Path) -> None:
    """A machine in its own network namespace has nothing but the token."""
    alone = ["unshare", "--net", "--mount"]
    if not shutil.which("unshare") or not shutil.which("ip") or os.getuid():
        pytest.skip("network namespaces need root, unshare (util-linux) and ip (iproute2)")
    command = [*alone, sys.executable, "-m", "tests.e2e.second_machine", str(tmp_path)]
    run = subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_SECONDS
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "second.example.net is a host in session" in run.stdout


def test_the_key_in_the_request_is_the_hosts_own(signing: Deployment, tmp_path: Path) -> None:
    """Key and certificate on disk fit."""
    assert join(tmp_path, "--token", invite(signing, "web9.example.net")).returncode == 0
    tls = tmp_path / "state" / "tls"
    key = serialization.load_pem_private_key((tls / "host.key").read_bytes(), None)
    certificate = x509.load_pem_x509_certificate((tls / "host.crt").read_bytes())
    assert key.public_key() == certificate.public_key()


def test_twenty_wrong_tokens_get_nothing_and_are_logged(deploy: Deploy, tmp_path: Path, authority: Credentials) -> None:
    """Each is an entry with its origin. Beyond the bound of a minute the server does not compare any more."""
    write_credentials(tmp_path, "authority", authority)
    signing = deploy(settings=f'authority = "{tmp_path}"\n')
    signing.start("")
    token = decode(invite(signing, "web8.example.net"))
    before = len(security(signing))
    context = ssl.create_default_context(cadata=(signing.directory / "authority.crt").read_text())
    request = _base64(new_request(token.name)[1])
    codes: list[str] = []

    def guess(number: int) -> None:
        body = json.dumps({"token": f"{token.secret[:-2]}{number:02}", "request": request}).encode()
        asked = urllib.request.Request(f"{signing.https}/v1/join", body, {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(asked, context=context, timeout=PATIENCE_SECONDS)
        codes.append(json.loads(error.value.read())["code"])

    for number in range(20):
        guess(number)
    assert codes == ["bad-credential"] * 20
    wrong = security(signing)[before:]
    assert len(wrong) == 20 and all("unknown" in one.reason and one.origin for one in wrong)
    for number in range(20, FAILURES_PER_MINUTE_MAX):
        guess(number)
    guess(99)
    assert "busy" in codes and codes[-1] == "busy"


def test_the_bounds_of_an_invitation(signing: Deployment) -> None:
    """Each is accepted at its bound and refused beyond it."""
    for request, is_accepted in (
        (Invite("b.example.net", seconds=INVITATION_SECONDS_MIN), True),
        (Invite("b.example.net", seconds=INVITATION_SECONDS_MIN / 2), False),
        (Invite("b.example.net", seconds=INVITATION_SECONDS_MAX), True),
        (Invite("b.example.net", seconds=INVITATION_SECONDS_MAX + 1), False),
        (Invite("b.example.net", _names(INVITATION_NAMES_MAX)), True),
        (Invite("b.example.net", _names(INVITATION_NAMES_MAX + 1)), False),
        (Invite("b.example.net", ("not a name",)), False),
    ):
        with signing.link() as link:
            assert isinstance(link.ask(request), Invited) == is_accepted, request


def _names(number: int) -> tuple[str, ...]:
    return tuple(f"n{one}.example.net" for one in range(number))


def test_the_bound_of_a_request(signing: Deployment) -> None:
    """At the bound it is read, and refused for its content; beyond it is not read."""
    identity = signing.certify("host", "c.example.net")
    with signing.link(identity) as link:
        for more, code in ((0, "forbidden"), (1, "malformed")):
            refused = link.ask(Renew(bytes(CERTIFICATE_REQUEST_OCTETS_MAX + more)))
            assert isinstance(refused, Refusal) and refused.code == code

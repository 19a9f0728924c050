"""The private authority: what its certificates say, and how `opengnsadmin tls` hands them out."""

import json
import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from compass.admin.commands.tls import tls
from compass.pki.authority import (
    CLOCK_SKEW,
    AuthorityError,
    Credentials,
    Role,
    create_authority,
    describe,
    issue,
    write_credentials,
)

NOW = datetime.now(UTC).replace(microsecond=0)
AUTHORITY = create_authority("test-authority", NOW)


def certificate_of(credentials: Credentials) -> x509.Certificate:
    return x509.load_pem_x509_certificate(credentials.certificate_pem)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(tls, [str(argument) for argument in arguments])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory in which `opengnsadmin tls init` was run."""
    assert run("init", "--directory", tmp_path / "tls").exit_code == 0
    return tmp_path / "tls"


def context(purpose: int, own: Credentials, directory: Path) -> ssl.SSLContext:
    files = write_credentials(directory, f"context-{purpose}", own)
    made = ssl.SSLContext(purpose)
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=AUTHORITY.certificate_pem.decode())
    made.load_cert_chain(files.certificate, files.key)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def shake_hands(server: Credentials, client: Credentials, name: str, directory: Path) -> None:
    """A handshake between two ends of the standard library, both strict. SSLError when one refuses."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    accepting = context(ssl.PROTOCOL_TLS_SERVER, server, directory).wrap_bio(up, down, server_side=True)
    dialling = context(ssl.PROTOCOL_TLS_CLIENT, client, directory).wrap_bio(down, up, server_hostname=name)
    unfinished = [dialling, accepting]
    for _ in range(6):
        for end in list(unfinished):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            unfinished.remove(end)
    assert not unfinished


@pytest.mark.parametrize("name", ["gns1.example.net", "192.0.2.1", "2001:db8::1"])
def test_strict_verification_accepts_both_ends(name: str, tmp_path: Path) -> None:
    """Two machines accept each other by name or address, also under strict X.509 as in Python 3.13."""
    server = issue(AUTHORITY, "server", "gns1.example.net", ["192.0.2.1", "2001:db8::1"], NOW)
    shake_hands(server, issue(AUTHORITY, "host", "web1.example.net", [], NOW), name, tmp_path)


def test_servers_and_hosts_can_each_dial_the_other(tmp_path: Path) -> None:
    """A server dials a host that keeps no session open, with the same certificate it answers with."""
    server = issue(AUTHORITY, "server", "gns1.example.net", [], NOW)
    shake_hands(issue(AUTHORITY, "host", "web1", [], NOW), server, "web1", tmp_path)


def test_an_administrator_cannot_pose_as_a_server(tmp_path: Path) -> None:
    """A stolen administrator's key is no use for answering in a server's place, whatever name it carries."""
    false_server = issue(AUTHORITY, "admin", "gns1.example.net", [], NOW)
    with pytest.raises(ssl.SSLError, match="purpose"):
        shake_hands(false_server, issue(AUTHORITY, "host", "web1", [], NOW), "gns1.example.net", tmp_path)


@pytest.mark.parametrize("role", ["server", "host", "admin"])
def test_a_certificate_says_role_name_and_names(role: Role) -> None:
    """The subject holds role and name; the name comes first among those it is reached by, none twice."""
    made = issue(AUTHORITY, role, "a.example.net", ["B.example.net", "a.example.net", "::1"], NOW)
    told = describe(made.certificate_pem)
    assert (told["role"], told["name"]) == (role, "a.example.net")
    assert told["names"] == ["a.example.net", "b.example.net", "::1"]
    assert told["issuer"] == "CN=test-authority"
    usage = certificate_of(made).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert (ExtendedKeyUsageOID.SERVER_AUTH in usage) is (role != "admin")
    assert ExtendedKeyUsageOID.CLIENT_AUTH in usage


def test_a_person_need_not_have_a_dns_name() -> None:
    """An administrator's name that is no DNS name stands in the subject only."""
    told = describe(issue(AUTHORITY, "admin", "alice@example.net", [], NOW).certificate_pem)
    assert (told["name"], told["names"]) == ("alice@example.net", [])


def test_a_certificate_ends_with_its_authority_at_the_latest() -> None:
    """No certificate looks valid after its authority has expired."""
    authority = create_authority("short", NOW, days=10)
    made = certificate_of(issue(authority, "host", "web1", [], NOW))
    assert made.not_valid_after_utc == NOW + timedelta(days=10)
    assert made.not_valid_before_utc == NOW - timedelta(hours=1)
    with pytest.raises(AuthorityError, match="the authority expired"):
        issue(authority, "host", "web1", [], NOW + timedelta(days=10))


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "../x", "naïve", "x" * 65, "a\n"])
def test_names_that_would_confuse_files_or_logs_are_refused(name: str) -> None:
    """A name has no blanks, slashes or control characters, and is no longer than a certificate can carry."""
    with pytest.raises(AuthorityError, match="name"):
        issue(AUTHORITY, "host", name, [], NOW)
    assert issue(AUTHORITY, "host", "x" * 64, [], NOW)


@pytest.mark.parametrize("name", ["a_b", "*.example.net", "192.0.2", "192.0.2.256", "a..b", "", "bücher.example"])
def test_a_further_name_must_be_a_dns_name_or_an_address(name: str) -> None:
    """Whatever cannot be dialled is refused when the certificate is made, not at the first handshake."""
    with pytest.raises(AuthorityError, match="neither a DNS name nor an IP address"):
        issue(AUTHORITY, "server", "gns1", [name], NOW)


@pytest.mark.parametrize("days", [0, -1, 10**7])
def test_a_span_that_is_none_is_refused(days: int) -> None:
    """A certificate is valid for a minute at least, and no further than the calendar goes."""
    with pytest.raises(AuthorityError, match=r"at least 60 s|past the end of the calendar"):
        create_authority("a", NOW, days)


def test_time_without_a_zone_and_unknown_roles_are_our_own_mistakes() -> None:
    """An invalid time or role raises an error at once."""
    with pytest.raises(ValueError, match="time zone"):
        create_authority("a", NOW.replace(tzinfo=None))
    with pytest.raises(AuthorityError, match="not a role"):
        issue(AUTHORITY, "root", "a", [], NOW)  # type: ignore[arg-type]


def test_an_authority_that_is_damaged_or_mixed_up_signs_nothing() -> None:
    """Garbage, a mismatched pair and a key of another kind have different errors."""
    other = create_authority("other", NOW)
    with pytest.raises(AuthorityError, match="damaged"):
        issue(Credentials(b"", AUTHORITY.certificate_pem), "host", "web1", [], NOW)
    with pytest.raises(AuthorityError, match="does not belong to its certificate"):
        issue(Credentials(other.key_pem, AUTHORITY.certificate_pem), "host", "web1", [], NOW)
    rsa_pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(AuthorityError, match="not an ECDSA key"):
        issue(Credentials(rsa_pem, AUTHORITY.certificate_pem), "host", "web1", [], NOW)


def test_a_key_is_never_printed() -> None:
    """The text form of credentials, as it would stand in a traceback, does not hold the key."""
    assert "PRIVATE" not in repr(AUTHORITY)


def test_keys_are_written_for_their_owner_only_and_never_over_another(tmp_path: Path) -> None:
    """A key file is 0600 from its first byte; what exists is kept, and no half of a pair is left behind."""
    files = write_credentials(tmp_path / "new", "a", AUTHORITY)
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.key.parent.stat().st_mode) == 0o700
    with pytest.raises(AuthorityError, match=r"a\.crt already exists and is not overwritten; move it away"):
        write_credentials(tmp_path / "new", "a", create_authority("b", NOW))
    files.certificate.unlink()
    with pytest.raises(AuthorityError, match=r"a\.key already exists"):
        write_credentials(tmp_path / "new", "a", create_authority("b", NOW))
    assert files.key.read_bytes() == AUTHORITY.key_pem
    (files.certificate).symlink_to(tmp_path / "nowhere" / "at-all")
    files.key.unlink()
    with pytest.raises(AuthorityError):
        write_credentials(tmp_path / "new", "a", AUTHORITY)
    assert not files.key.exists()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The reason why nothing could be written names the place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(AuthorityError, match="file is not a directory"):
        write_credentials(tmp_path / "file", "a", AUTHORITY)
    with pytest.raises(AuthorityError, match=r"cannot write to .*file/below: Not a directory"):
        write_credentials(tmp_path / "file" / "below", "a", AUTHORITY)


def test_the_commands_make_an_installation(directory: Path) -> None:
    """After init, each machine and person gets a pair, and the text says which files to copy where."""
    told = run("server", "gns1", "gns2.example.net", "--directory", directory)
    assert told.exit_code == 0, told.output
    assert f"Copy both, and {directory}/authority.crt, to the machine gns2.example.net, for opengnssd" in told.output
    assert run("host", "web1", "--also", "192.0.2.7", "--directory", directory).exit_code == 0
    assert run("admin", "alice", "--days", 30, "--directory", directory).exit_code == 0
    names = {f"{stem}.{end}" for stem in ("server-gns1", "host-web1", "admin-alice") for end in ("key", "crt")}
    assert names <= {file.name for file in directory.iterdir()}
    shown = run("show", directory / "host-web1.crt")
    assert "web1, 192.0.2.7" in shown.output
    assert "CN=opengns-authority" in shown.output


def test_every_command_can_answer_in_json(tmp_path: Path) -> None:
    """Scripts get the paths and what the certificate says, with the same names in every answer."""
    made = json.loads(run("init", "--directory", tmp_path, "--name", "ours", "--json").output)["written"]
    assert made[0]["key"] == f"{tmp_path}/authority.key"
    made = json.loads(run("server", "a", "b", "--directory", tmp_path, "--json").output)["written"]
    assert [one["name"] for one in made] == ["a", "b"]
    shown = json.loads(run("show", made[0]["certificate"], "--json").output)
    assert shown.items() <= made[0].items()
    assert shown["role"] == "server"


def test_the_commands_say_why_they_refuse(directory: Path, tmp_path: Path) -> None:
    """A refusal ends with status 1 and says what to do."""
    refusals = {
        "is not overwritten": run("init", "--directory", directory),
        "run 'opengnsadmin tls init' first": run("host", "web1", "--directory", tmp_path / "empty"),
        "is not a valid name": run("host", "a/b", "--directory", directory),
        "not a PEM certificate": run("show", directory / "authority.key"),
        "cannot read": run("show", tmp_path / "missing"),
    }
    for reason, result in refusals.items():
        assert (result.exit_code, reason in result.output) == (1, True), result.output
    assert not list(directory.glob("host-*"))


def test_a_bad_name_among_good_ones_leaves_nothing_behind(directory: Path) -> None:
    """Either every machine named gets its certificate or none does."""
    assert run("server", "gns1", "gns/2", "--directory", directory).exit_code == 1
    assert not list(directory.glob("server-*"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("59s", None),
        ("30m", 1800),
        ("1d12h", 129_600),
        ("2", 172_800),
        ("0", None),
        ("1x", None),
        ("", None),
    ],
)
def test_a_lifetime_is_days_or_a_length_of_time(directory: Path, text: str, seconds: int | None) -> None:
    """People practise an expiry with a short one; LIFETIME_SECONDS_MIN is the shortest."""
    done = run("host", "web1", "--days", text, "--directory", directory)
    if seconds is None:
        assert done.exit_code == 2 and "--days" in done.output
        return
    assert done.exit_code == 0, done.output
    made = x509.load_pem_x509_certificate((directory / "host-web1.crt").read_bytes())
    assert made.not_valid_after_utc - made.not_valid_before_utc == timedelta(seconds=seconds) + CLOCK_SKEW


@pytest.mark.parametrize(
    "arguments", [["server"], ["host"], ["host", "a", "--days", "0"], ["server", "a", "b", "--also", "c"]]
)
def test_a_wrong_command_line_ends_with_status_2(arguments: list[str]) -> None:
    """Mistakes in the command line have another status than refusals."""
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("role", ["server", "host", "admin"])
def test_openssl_finds_nothing_wrong(role: Role, tmp_path: Path) -> None:
    """`openssl verify -x509_strict` accepts each certificate for the purposes of its role, and for no other."""
    write_credentials(tmp_path, "authority", AUTHORITY)
    made = write_credentials(tmp_path, "leaf", issue(AUTHORITY, role, "a.example.net", [], NOW))
    for purpose, right in (("sslclient", True), ("sslserver", role != "admin"), ("any", True)):
        verify = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(tmp_path / "authority.crt")]
        done = subprocess.run([*verify, str(made.certificate)], capture_output=True, text=True, timeout=30)
        assert (done.returncode == 0) is right, done.stderr


def test_only_an_authority_issues() -> None:
    """A host's own certificate and key make no certificates: no peer would accept them."""
    host = issue(AUTHORITY, "host", "web1.example.net", [], NOW)
    with pytest.raises(AuthorityError, match="is not that of an authority"):
        issue(host, "host", "web2.example.net", [], NOW)

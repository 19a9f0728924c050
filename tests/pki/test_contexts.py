"""Real TLS between two ends in one process: who is let in, who is refused, and as whom a peer is known.

The ends are Twisted's own TLS protocols over an in-memory link, so that every byte passes through OpenSSL and
no port, thread or reactor is involved.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa
from OpenSSL import crypto
from twisted.internet import ssl
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test import iosim
from zope.interface import implementer

from compass.pki.authority import Credentials, create_authority, issue, write_credentials
from compass.pki.contexts import (
    Identity,
    IdentityError,
    NameNotProven,
    PeerUnknown,
    RoleRules,
    client_context,
    load_identity,
    peer_of,
    server_context,
)

NOW = datetime.now(UTC).replace(microsecond=0)
AUTHORITY = create_authority("authority", NOW)
FOREIGN_AUTHORITY = create_authority("authority", NOW)


def identity(tmp_path: Path, own: Credentials, *authorities: Credentials) -> Identity:
    """The identity that a daemon would load, from files in a directory of their own."""
    directory = tmp_path / f"identity-{len(list(tmp_path.iterdir()))}"
    files = write_credentials(directory, "own", own)
    trusted = directory / "authority.crt"
    trusted.write_bytes(b"".join(one.certificate_pem for one in authorities or [AUTHORITY]))
    return load_identity(files.key, files.certificate, trusted, NOW)


@implementer(IHandshakeListener)
@dataclass(eq=False)
class End(Protocol):
    """One end of a connection: says hello, and remembers whom it met and how it ended."""

    rules: RoleRules | None = None
    met: tuple[str, str] | PeerUnknown | None = None
    heard: bytes = b""
    lost: Any = None
    transport: Any = field(default=None, init=False)

    def handshakeCompleted(self) -> None:
        try:
            self.met = peer_of(self.transport, self.rules)
        except PeerUnknown as unknown:
            self.met = unknown
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason.value


def factory_of(end: End) -> Any:
    factory = Factory()
    factory.protocol = lambda: end
    return factory


def connect(listening: Any, calling: Any, rules: RoleRules | None = None) -> tuple[End, End]:
    """Connect an end with the context `listening` to one with `calling`, and let all bytes pass."""
    ends = End(rules), End(rules)
    clock: Any = Clock()  # the type checker does not see that it provides IReactorTime
    server, client = (
        TLSMemoryBIOFactory(context, is_client, factory_of(end), clock).buildProtocol(None)
        for context, is_client, end in ((listening, False, ends[0]), (calling, True, ends[1]))
    )
    link = iosim.connect(server, iosim.makeFakeServer(server), client, iosim.makeFakeClient(client))
    link.flush()
    # Twisted gathers what is written and encrypts it a moment later.
    clock.advance(1)
    link.flush()
    return ends


@pytest.fixture
def server(tmp_path: Path) -> Identity:
    return identity(
        tmp_path,
        issue(AUTHORITY, "server", "gns1.example.net", ["192.0.2.1", "2001:db8::1", "localhost"], NOW),
    )


@pytest.fixture
def host(tmp_path: Path) -> Identity:
    return identity(tmp_path, issue(AUTHORITY, "host", "web1.example.net", [], NOW))


@pytest.mark.parametrize("dialled", ["gns1.example.net", "GNS1.example.net.", "localhost", "192.0.2.1", "2001:db8::1"])
def test_two_ends_of_one_installation_meet(server: Identity, host: Identity, dialled: str) -> None:
    """A server and a host that dials it by any of its names or addresses know each other, and talk."""
    accepted, called = connect(server_context(server), client_context(host, dialled))
    assert (accepted.met, called.met) == (("host", "web1.example.net"), ("server", "gns1.example.net"))
    assert (accepted.heard, called.heard) == (b"hello", b"hello")
    assert (accepted.lost, called.lost) == (None, None)


def test_a_server_that_dials_a_host_is_known_as_a_server(server: Identity, host: Identity) -> None:
    """The Update listener of a host accepts the same certificate that the server answers with."""
    accepted, called = connect(server_context(host), client_context(server, "web1.example.net"))
    assert (accepted.met, called.met) == (("server", "gns1.example.net"), ("host", "web1.example.net"))


def test_a_certificate_of_another_authority_is_refused(server: Identity, tmp_path: Path) -> None:
    """A caller vouched for by somebody else gets nowhere, even if that authority bears the same name."""
    stranger = identity(tmp_path, issue(FOREIGN_AUTHORITY, "admin", "mallory", [], NOW))
    assert stranger.warnings
    accepted, called = connect(server_context(server), client_context(stranger, "gns1.example.net"))
    assert (accepted.met, accepted.heard) == (None, b"")
    assert accepted.lost is not None
    assert called.lost is not None


def test_a_server_of_another_authority_is_refused(host: Identity, tmp_path: Path) -> None:
    """A host tells its business to no server that its own authority does not vouch for."""
    false = identity(tmp_path, issue(FOREIGN_AUTHORITY, "server", "gns1.example.net", [], NOW))
    accepted, called = connect(server_context(false), client_context(host, "gns1.example.net"))
    assert (accepted.heard, called.met) == (b"", None)
    assert called.lost is not None


@pytest.mark.parametrize("dialled", ["gns2.example.net", "example.net", "192.0.2.2", "2001:db8::2"])
def test_a_server_that_cannot_prove_the_name_is_refused(server: Identity, host: Identity, dialled: str) -> None:
    """A genuine certificate for another name is not enough, and the reason tells both names."""
    accepted, called = connect(server_context(server), client_context(host, dialled))
    assert (accepted.heard, called.met) == (b"", None)
    assert isinstance(called.lost, NameNotProven)
    assert dialled in str(called.lost)
    assert "gns1.example.net" in str(called.lost)


def test_a_server_whose_certificate_proves_no_name_is_refused(host: Identity, tmp_path: Path) -> None:
    """A genuine certificate without any alternative name proves nothing, whatever its subject says."""
    nameless = identity(tmp_path, issue(AUTHORITY, "host", "gns1_example", [], NOW))
    accepted, called = connect(server_context(nameless), client_context(host, "gns1.example.net"))
    assert (accepted.heard, called.met) == (b"", None)
    assert isinstance(called.lost, NameNotProven)
    assert "proves no name" in str(called.lost)


def test_an_administrator_cannot_answer_as_a_server(host: Identity, tmp_path: Path) -> None:
    """An administrator's certificate is for dialling only."""
    false = identity(tmp_path, issue(AUTHORITY, "admin", "gns1.example.net", [], NOW))
    accepted, called = connect(server_context(false), client_context(host, "gns1.example.net"))
    assert (accepted.heard, called.met) == (b"", None)


def test_a_caller_without_a_certificate_is_refused(server: Identity) -> None:
    """Nobody is anonymous."""
    trust = ssl.trustRootFromCertificates(
        [ssl.Certificate(crypto.X509.from_cryptography(one)) for one in server.authorities]
    )
    accepted, called = connect(server_context(server), ssl.optionsForClientTLS("gns1.example.net", trust))
    assert (accepted.met, accepted.heard) == (None, b"")
    assert accepted.lost is not None
    assert called.lost is not None


def test_tls_1_2_is_refused(server: Identity, host: Identity) -> None:
    """An end that knows only earlier versions of TLS is not met half-way, whichever side it is on."""
    own: dict[str, Any] = {"privateKey": host.key, "certificate": host.certificate}
    old = ssl.CertificateOptions(
        **own,
        trustRoot=ssl.trustRootFromCertificates(
            [ssl.Certificate(crypto.X509.from_cryptography(one)) for one in host.authorities]
        ),
        lowerMaximumSecurityTo=ssl.TLSVersion.TLSv1_2,
    )
    accepted, called = connect(server_context(server), old)
    assert (accepted.met, called.met) == (None, None)
    assert "protocol" in str(accepted.lost)
    accepted, called = connect(old, client_context(server, "web1.example.net"))
    assert (accepted.met, called.met) == (None, None)


def test_one_authority_can_replace_another_without_an_outage(tmp_path: Path) -> None:
    """While both authorities are trusted on both ends, certificates of the old and the new one meet."""
    both = AUTHORITY, FOREIGN_AUTHORITY
    old = identity(tmp_path, issue(AUTHORITY, "server", "gns1", [], NOW), *both)
    new = identity(tmp_path, issue(FOREIGN_AUTHORITY, "host", "web1", [], NOW), *both)
    accepted, called = connect(server_context(old), client_context(new, "gns1"))
    assert (accepted.met, called.met) == (("host", "web1"), ("server", "gns1"))


def test_role_rules_replace_the_role_in_the_certificate(server: Identity, host: Identity) -> None:
    """In a PKI of one's own the names decide, whatever the subject says: widest role first, case ignored."""
    rules = RoleRules(admin=["GNS1.*"], host=["*.example.net"])
    accepted, called = connect(server_context(server), client_context(host, "gns1.example.net"), rules)
    assert (accepted.met, called.met) == (("host", "web1.example.net"), ("admin", "gns1.example.net"))


def test_role_rules_look_at_the_further_names_too(server: Identity, host: Identity) -> None:
    """A certificate whose common name matches nothing is known by the DNS name that does."""
    _, called = connect(server_context(server), client_context(host, "192.0.2.1"), RoleRules(server=["localhost"]))
    assert called.met == ("server", "localhost")


def test_a_peer_that_no_rule_matches_is_unknown(server: Identity, host: Identity) -> None:
    """With rules configured, a role in the certificate counts for nothing; the reason names the holder."""
    accepted, _ = connect(server_context(server), client_context(host, "gns1.example.net"), RoleRules())
    assert isinstance(accepted.met, PeerUnknown)
    assert "web1.example.net" in str(accepted.met)


def test_a_genuine_certificate_without_a_role_is_unknown(server: Identity) -> None:
    """The authority's own certificate has no role; a peer that shows it is nobody."""
    shown = crypto.X509.from_cryptography(server.authorities[0])

    class Transport:
        def getPeerCertificate(self) -> object:
            return shown

    with pytest.raises(PeerUnknown, match="exactly one OU, which is one of server, host, admin"):
        peer_of(Transport())


def test_before_the_handshake_there_is_no_peer() -> None:
    """A transport that has seen no certificate yields no name."""

    class Transport:
        def getPeerCertificate(self) -> object:
            return None

    with pytest.raises(PeerUnknown, match="shown no certificate"):
        peer_of(Transport())


@pytest.mark.parametrize("dialled", ["", "a b", "gns1:4863"])
def test_a_name_that_nobody_could_prove_is_refused_before_dialling(host: Identity, dialled: str) -> None:
    """A mistyped name in the configuration is found at start, not at the first connection."""
    with pytest.raises(ValueError, match="DNS"):
        client_context(host, dialled)


def test_all_that_is_wrong_with_the_files_is_told_at_once(tmp_path: Path) -> None:
    """One start tells about every file, with its name and what is wrong with it."""
    (tmp_path / "a.crt").write_text("nothing")
    with pytest.raises(IdentityError) as told:
        load_identity(tmp_path / "a.key", tmp_path / "a.crt", tmp_path, NOW)
    missing, garbage, unreadable = told.value.problems
    assert missing == f"{tmp_path}/a.key does not exist"
    assert garbage == f"{tmp_path}/a.crt is not a certificate in PEM form"
    assert unreadable == f"{tmp_path} cannot be read: Is a directory"


def test_keys_that_cannot_be_used_are_told_apart(tmp_path: Path) -> None:
    """Another's key, a key with a passphrase, a key of a wrong kind and no key at all are different."""
    own = write_credentials(tmp_path, "own", issue(AUTHORITY, "host", "web1", [], NOW))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key = serialization.load_pem_private_key(own.key.read_bytes(), None)
    contents = {
        "is not the key of the certificate in": AUTHORITY.key_pem,
        "has a passphrase": key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret")),
        "is a key of a kind": dsa.generate_private_key(2048).private_bytes(pem, pkcs8, serialization.NoEncryption()),
        "is not a private key in PEM form": b"nothing",
    }
    for problem, content in contents.items():
        (tmp_path / "other.key").write_bytes(content)
        with pytest.raises(IdentityError, match=rf"other\.key {problem}"):
            load_identity(tmp_path / "other.key", own.certificate, own.certificate, NOW)


def test_certificates_out_of_their_time_are_refused(tmp_path: Path) -> None:
    """An expired certificate, and one that begins in the future, stop a daemon at its start and not later."""
    own = write_credentials(tmp_path, "own", issue(AUTHORITY, "host", "web1", [], NOW, days=10))
    trusted = write_credentials(tmp_path, "authority", AUTHORITY)
    for now, problem in (
        (NOW + timedelta(days=10), "expired on"),
        (NOW - timedelta(days=1), "is the clock right"),
    ):
        with pytest.raises(IdentityError, match=problem):
            load_identity(own.key, own.certificate, trusted.certificate, now)
    near = load_identity(own.key, own.certificate, trusted.certificate, NOW)
    assert near.warnings == (f"{own.certificate} expires in 10 days: issue a new certificate",)


def test_an_expired_authority_beside_a_good_one_is_only_a_remark(tmp_path: Path) -> None:
    """What is left of a replaced authority stops nobody."""
    old = create_authority("old", NOW - timedelta(days=20), days=10)
    mixed = identity(tmp_path, issue(AUTHORITY, "host", "web1", [], NOW), AUTHORITY, old)
    assert [("expired on" in warning) for warning in mixed.warnings] == [True]
    with pytest.raises(IdentityError, match="expired on"):
        identity(tmp_path, issue(AUTHORITY, "host", "web1", [], NOW), old)


def test_a_key_open_to_others_is_a_warning(tmp_path: Path) -> None:
    """A readable key does not stop a daemon; the log says how to close it."""
    own = write_credentials(tmp_path, "own", issue(AUTHORITY, "host", "web1", [], NOW))
    trusted = write_credentials(tmp_path, "authority", AUTHORITY)
    own.key.chmod(0o640)
    (warning,) = load_identity(own.key, own.certificate, trusted.certificate, NOW).warnings
    assert warning == f"{own.key} is open to others than its owner (mode 0640): chmod 600 {own.key}"

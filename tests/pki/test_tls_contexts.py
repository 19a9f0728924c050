"""Real TLS between two ends in one process: who is let in, who is refused, and as whom a peer is known.

The ends are Twisted's own TLS protocols over an in-memory link, so that every byte passes through OpenSSL and
no port, thread or reactor is involved.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from twisted.internet import ssl
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test import iosim
from zope.interface import implementer

from compass.pki.authority import Role, issue
from compass.pki.identity import Identity, PeerUnknown, RoleRules, leaf_problem
from compass.pki.tls_contexts import NameNotProven, client_context, peer_of, server_context
from tests.pki.conftest import AUTHORITY, FOREIGN_AUTHORITY, NOW, identity
from tests.support.certificates import changed

KEY_AGREEMENT = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=True,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@implementer(IHandshakeListener)
@dataclass(eq=False)
class End(Protocol):
    """End of a connection: it sends hello, and records its peer and the end of the connection."""

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
    """A client with a certificate of another authority is refused, even if that authority has the same name."""
    stranger = identity(tmp_path, issue(FOREIGN_AUTHORITY, "admin", "mallory", [], NOW))
    assert stranger.warnings
    accepted, called = connect(server_context(server), client_context(stranger, "gns1.example.net"))
    assert (accepted.met, accepted.heard) == (None, b"")
    assert accepted.lost is not None
    assert called.lost is not None


def test_a_server_of_another_authority_is_refused(host: Identity, tmp_path: Path) -> None:
    """A host sends nothing to a server with a certificate of another authority."""
    false = identity(tmp_path, issue(FOREIGN_AUTHORITY, "server", "gns1.example.net", [], NOW))
    accepted, called = connect(server_context(false), client_context(host, "gns1.example.net"))
    assert (accepted.heard, called.met) == (b"", None)
    assert called.lost is not None


@pytest.mark.parametrize("dialled", ["gns2.example.net", "example.net", "192.0.2.2", "2001:db8::2"])
def test_a_server_that_cannot_prove_the_name_is_refused(server: Identity, host: Identity, dialled: str) -> None:
    """A genuine certificate for another name is refused, and the reason has both names."""
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
    """The handshake fails without a client certificate."""
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
    """The names decide in an own PKI, whatever the subject: widest role first, case-insensitive."""
    rules = RoleRules(admin=["GNS1.*"], host=["*.example.net"])
    accepted, called = connect(server_context(server), client_context(host, "gns1.example.net"), rules)
    assert (accepted.met, called.met) == (("host", "web1.example.net"), ("admin", "gns1.example.net"))


def test_role_rules_look_at_the_further_names_too(server: Identity, host: Identity) -> None:
    """A certificate whose common name matches nothing is known by the DNS name that does."""
    _, called = connect(server_context(server), client_context(host, "192.0.2.1"), RoleRules(server=["localhost"]))
    assert called.met == ("server", "localhost")


def test_a_peer_that_no_rule_matches_is_unknown(server: Identity, host: Identity) -> None:
    """If rules are configured, the role in the certificate is ignored; the reason names the holder."""
    accepted, _ = connect(server_context(server), client_context(host, "gns1.example.net"), RoleRules())
    assert isinstance(accepted.met, PeerUnknown)
    assert "web1.example.net" in str(accepted.met)


def test_a_genuine_certificate_without_a_role_is_unknown(server: Identity) -> None:
    """The authority's own certificate has no role, so a peer with it is unknown."""
    shown = crypto.X509.from_cryptography(server.authorities[0])

    class Transport:
        def getPeerCertificate(self) -> object:
            return shown

    with pytest.raises(PeerUnknown, match="exactly one OU, one of server, host, admin"):
        peer_of(Transport())


def test_before_the_handshake_there_is_no_peer() -> None:
    """A transport that has seen no certificate yields no name."""

    class Transport:
        def getPeerCertificate(self) -> object:
            return None

    with pytest.raises(PeerUnknown, match="sent no certificate"):
        peer_of(Transport())


@pytest.mark.parametrize("dialled", ["", "a b", "gns1:4863"])
def test_a_name_that_no_certificate_can_prove_is_refused_before_dialling(host: Identity, dialled: str) -> None:
    """A mistyped name in the configuration is found at start, not at the first connection."""
    with pytest.raises(ValueError, match="DNS"):
        client_context(host, dialled)


WRONG_LEAVES: tuple[tuple[str, tuple[x509.ExtensionType, ...], type[x509.ExtensionType] | None], ...] = (
    ("is that of an authority", (x509.BasicConstraints(ca=True, path_length=None),), None),
    ("lacks the extended key usage", (), x509.ExtendedKeyUsage),
    ("lacks the extended key usage", (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),), None),
    ("may not sign", (KEY_AGREEMENT,), None),
)


@pytest.mark.parametrize(("why", "extensions", "without"), WRONG_LEAVES)
def test_a_certificate_for_another_purpose_is_no_peer(
    server: Identity, tmp_path: Path, why: str, extensions: Any, without: Any
) -> None:
    """An authority's, one without a purpose or with another one, and one whose key may not sign: neither as client nor
    as server. TLS refuses some of them by itself; the others are known by no name."""
    whole = issue(AUTHORITY, "host", "web1.example.net", [], NOW)
    wrong = identity(tmp_path, changed(AUTHORITY, whole, *extensions, without=without))
    accepted, _ = connect(server_context(server), client_context(wrong, "gns1.example.net"))
    assert accepted.heard == b"" or (isinstance(accepted.met, PeerUnknown) and why in str(accepted.met))
    assert accepted.met is None or isinstance(accepted.met, PeerUnknown)
    answering, called = connect(server_context(wrong), client_context(server, "web1.example.net"))
    assert (called.met, called.heard, answering.heard) == (None, b"", b"")


@pytest.mark.parametrize("role", ["server", "host", "admin"])
def test_what_the_authority_issues_is_right_for_its_end(role: Role) -> None:
    """Every certificate of the installation's own authority passes the same checks."""
    made = x509.load_pem_x509_certificate(issue(AUTHORITY, role, "a.example.net", [], NOW).certificate_pem)
    assert leaf_problem(made, server=False) == ""
    assert (leaf_problem(made, server=True) == "") is (role != "admin")

"""Certificate requests and join tokens: what is signed, and which texts are tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from compass.pki.authority import Subject, create_authority
from compass.pki.identity import role_and_name
from compass.pki.join_token import SERVERS_MAX, TOKEN_LENGTH_MAX, JoinToken, TokenInvalid, decode, encode
from compass.pki.signing import RequestRefused, new_request, renewal_due, sign_request, subject_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
AUTHORITY = create_authority("authority", NOW)
HOST = Subject("host", "web1.example.net", ("192.0.2.7",))
YEAR = timedelta(days=365)


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *names: x509.GeneralName) -> bytes:
    """Return a request with alternative names."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST.name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_a_request_contributes_its_key_alone() -> None:
    """Role and names are those of the subject, which a renewal repeats."""
    certificate = sign_request(AUTHORITY, HOST, new_request(HOST.name)[1], NOW, YEAR)
    assert role_and_name(certificate) == ("host", HOST.name)
    assert subject_of(certificate) == Subject("host", HOST.name, [HOST.name, "192.0.2.7"])
    again = sign_request(AUTHORITY, subject_of(certificate), new_request(HOST.name)[1], NOW, YEAR)
    assert subject_of(again) == subject_of(certificate) and again.public_key() != certificate.public_key()


def test_names_that_are_permitted_may_be_asked_for() -> None:
    """A request that asks for what it gets is signed, one that asks for more is refused."""
    key = ec.generate_private_key(ec.SECP256R1())
    assert sign_request(AUTHORITY, HOST, request(key, x509.DNSName(HOST.name)), NOW, YEAR)
    with pytest.raises(RequestRefused, match=r"asks for gns1\.example\.net"):
        sign_request(AUTHORITY, HOST, request(key, x509.DNSName("gns1.example.net")), NOW, YEAR)


def test_a_damaged_request_and_another_kind_of_key_are_refused() -> None:
    """A changed octet breaks the proof that the sender has the key."""
    good = new_request(HOST.name)[1]
    bad = good[:-1] + bytes([good[-1] ^ 1])
    for octets in (b"", good[:-1], bad, b"\x30\x00"):
        with pytest.raises(RequestRefused):
            sign_request(AUTHORITY, HOST, octets, NOW, YEAR)
    with pytest.raises(RequestRefused, match="EC key"):
        sign_request(AUTHORITY, HOST, request(rsa.generate_private_key(65537, 2048)), NOW, YEAR)


def test_a_renewal_is_due_when_a_third_is_left() -> None:
    """The hour before its issue, which makes up for slow clocks, does not count."""
    certificate = sign_request(AUTHORITY, HOST, new_request(HOST.name)[1], NOW, timedelta(seconds=90))
    assert renewal_due(certificate) == NOW + timedelta(seconds=60)


def test_a_token_survives_its_text() -> None:
    """Spaces and line ends around it are no part of it; its secret is in no representation."""
    token = JoinToken("web1", ("gns1:4863",), 4864, "0" * 32, "ab" * 32, "secret")
    assert decode(f"  {encode(token)}\n") == token
    assert "secret" not in repr(token)


def test_the_bounds_of_a_token() -> None:
    """Ten servers with names of full length fit; one more, or a longer text, is not a token."""
    names = tuple(f"{'n' * 60}{number}.{'example' * 8}.net:4863" for number in range(SERVERS_MAX))
    text = encode(JoinToken("web1", names, 4864, "0" * 32, "ab" * 32, "s" * 43))
    assert len(text) <= TOKEN_LENGTH_MAX and decode(text).servers == names
    for servers in ((), (*names, "one:1")):
        with pytest.raises(TokenInvalid, match="1 to 10 servers"):
            decode(encode(JoinToken("web1", servers, 4864, "0" * 32, "ab" * 32, "s")))
    longest = JoinToken("w", ("s:1",), 4864, "0", "ab", "s")
    pad = next(n for n in range(TOKEN_LENGTH_MAX) if len(encode(_with_secret(longest, n))) >= TOKEN_LENGTH_MAX)
    size = len(encode(_with_secret(longest, pad)))
    assert size in (TOKEN_LENGTH_MAX, TOKEN_LENGTH_MAX + 1)
    if size == TOKEN_LENGTH_MAX:
        assert decode(encode(_with_secret(longest, pad)))
    with pytest.raises(TokenInvalid, match="not a join token"):
        decode(encode(_with_secret(longest, pad + 2)))


def _with_secret(token: JoinToken, length: int) -> JoinToken:
    return JoinToken(token.name, token.servers, token.https_port, token.store, token.authority, "s" * length)


@pytest.mark.parametrize("text", ["", "gnsjoin1.", "gnsjoin1.e30", "gnsjoin1.bnVsbA", "gnsjoin1.####", "gnsjoin2.e30"])
def test_other_texts_are_not_tokens(text: str) -> None:
    """The message says where a token comes from, or that it is damaged."""
    with pytest.raises(TokenInvalid):
        decode(text)

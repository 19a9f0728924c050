"""The three files of an identity: what is accepted, what is refused, and which warnings a daemon logs."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa

from compass.model.rules.certificates import format_time, notices_of, problems_of
from compass.pki.authority import create_authority, issue, write_credentials
from compass.pki.identity import IdentityError, load_identity
from tests.pki.conftest import AUTHORITY, NOW, identity

NOW_10 = format_time((NOW + timedelta(days=10)).timestamp())
"""End of a certificate of ten days."""


def test_all_problems_of_the_files_are_reported_at_once(tmp_path: Path) -> None:
    """A start reports the problem of every file, with its name."""
    (tmp_path / "a.crt").write_text("nothing")
    with pytest.raises(IdentityError) as told:
        load_identity(tmp_path / "a.key", tmp_path / "a.crt", tmp_path, NOW)
    missing, garbage, unreadable = told.value.problems
    assert missing == f"{tmp_path}/a.key does not exist"
    assert garbage == f"{tmp_path}/a.crt is not a certificate in PEM form"
    assert unreadable == f"{tmp_path} cannot be read: Is a directory"


def test_unusable_keys_have_different_errors(tmp_path: Path) -> None:
    """A key of another certificate, with a passphrase, of a wrong kind, or no key have different errors."""
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


def test_certificates_out_of_their_time_are_problems_of_now(tmp_path: Path) -> None:
    """An expired certificate, and one that begins in the future, are loaded: the text says which it is, and since when.
    The clock may be wrong, and it is not for ever."""
    own = write_credentials(tmp_path, "own", issue(AUTHORITY, "host", "web1", [], NOW, days=10))
    trusted = write_credentials(tmp_path, "authority", AUTHORITY)
    for now, problem in (
        (NOW + timedelta(days=10), f"the certificate 'CN=web1,OU=host' in {own.certificate} expired on {NOW_10}"),
        (NOW - timedelta(days=1), "set the clock"),
    ):
        late = load_identity(own.key, own.certificate, trusted.certificate, now)
        assert problem in "".join(problems_of(late.certificates(now), now.timestamp()))
    near = load_identity(own.key, own.certificate, trusted.certificate, NOW)
    (notice,) = notices_of(near.certificates(NOW), NOW.timestamp())
    assert f"in {own.certificate} expires in 10 days, on {NOW_10}; issue a new one ('opengnsadmin tls host" in notice


def test_an_expired_authority_next_to_a_valid_one_is_only_a_warning(tmp_path: Path) -> None:
    """An expired authority in addition to a valid one is a leftover; if none is valid, connections fail."""
    old = create_authority("old", NOW - timedelta(days=20), days=10)
    mixed = identity(tmp_path, issue(AUTHORITY, "host", "web1", [], NOW), AUTHORITY, old)
    (warning,) = mixed.warnings
    assert "'CN=old'" in warning and "nothing here needs it" in warning
    assert problems_of(mixed.certificates(NOW), NOW.timestamp()) == ()
    alone = identity(tmp_path, issue(AUTHORITY, "host", "web1", [], NOW), old)
    (problem,) = problems_of(alone.certificates(NOW), NOW.timestamp())
    assert "the authority 'CN=old'" in problem and "expired on" in problem


def test_a_key_open_to_others_is_a_warning(tmp_path: Path) -> None:
    """A readable key does not stop a daemon; the log says how to close it."""
    own = write_credentials(tmp_path, "own", issue(AUTHORITY, "host", "web1", [], NOW))
    trusted = write_credentials(tmp_path, "authority", AUTHORITY)
    own.key.chmod(0o640)
    (warning,) = load_identity(own.key, own.certificate, trusted.certificate, NOW).warnings
    assert warning == f"{own.key} is readable by other users than its owner (mode 0640): chmod 600 {own.key}"

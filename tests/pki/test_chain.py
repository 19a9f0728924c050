"""Chains with intermediate authorities: in any order, with partial trust, and the dates of each certificate."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from compass.model.rules.certificates import OwnCertificate, condition_of, notices_of, problems_of, seconds_left
from compass.pki import chain
from compass.pki.identity import Identity, IdentityError, load_identity
from compass.pki.tls_contexts import client_context, server_context
from tests.pki.conftest import NOW
from tests.pki.test_tls_contexts import connect
from tests.support.intermediate import Made, make

DAY = 86400
ROOT = make("Root", "ca")
INTER = make("Inter", "ca", ROOT)
SERVER = make("gns1", "server", INTER)
HOST = make("web1", "host", INTER)


def loaded(directory: Path, own: Made, file: Sequence[Made], authority: Sequence[Made]) -> Identity:
    """Return the identity of that key, with these certificates in the two files."""
    directory.mkdir()
    for name, made in (("own.crt", file), ("authority.crt", authority)):
        (directory / name).write_bytes(b"".join(one.pem for one in made))
    (directory / "own.key").touch(mode=0o600)
    (directory / "own.key").write_bytes(own.key_pem)
    return load_identity(directory / "own.key", directory / "own.crt", directory / "authority.crt", NOW)


@pytest.mark.parametrize("file", [[SERVER, INTER], [INTER, SERVER], [ROOT, INTER, SERVER]])
@pytest.mark.parametrize("authority", [[ROOT], [INTER], [INTER, ROOT]])
def test_chains_work_in_any_order_and_with_partial_trust(
    tmp_path: Path, file: list[Made], authority: list[Made]
) -> None:
    """The certificate of the key is the own one, wherever it stands; the issuing authority alone is enough to trust."""
    server = loaded(tmp_path / "s", SERVER, file, authority)
    host = loaded(tmp_path / "h", HOST, [HOST, INTER], authority)
    assert (server.certificate, server.chain[0], server.warnings) == (SERVER.certificate, INTER.certificate, ())
    accepted, called = connect(server_context(server), client_context(host, "gns1"))
    assert (accepted.met, called.met) == (("host", "web1"), ("server", "gns1"))


def test_partial_trust_is_no_trust_in_others(tmp_path: Path) -> None:
    """Trust in one intermediate: the certificates of another one of the same root are refused."""
    other = make("Other", "ca", ROOT)
    stranger = make("web1", "host", other)
    server = loaded(tmp_path / "s", SERVER, [SERVER, INTER], [INTER])
    host = loaded(tmp_path / "h", stranger, [stranger, other], [ROOT])
    accepted, called = connect(server_context(server), client_context(host, "gns1"))
    assert (accepted.met, accepted.heard) == (None, b"")
    assert called.lost is not None


def test_a_missing_intermediate_is_a_warning_that_names_it(tmp_path: Path) -> None:
    """The text has the certificate without an issuer, and what to append."""
    alone = loaded(tmp_path / "s", SERVER, [SERVER], [ROOT])
    (warning,) = alone.warnings
    assert "'OU=server,CN=gns1'" in warning and "its issuer 'OU=ca,CN=Inter'" in warning
    assert "append the intermediate certificates" in warning


def test_each_certificate_of_the_chain_has_its_dates(tmp_path: Path) -> None:
    """Own certificate, intermediate and authority: the text names the one that ends, its file, and what to do."""
    ending = make("Inter", "ca", ROOT, ends=timedelta(hours=30), key=INTER.key)
    server = loaded(tmp_path / "s", SERVER, [SERVER, ending], [ROOT])
    certificates, now = server.certificates(NOW), NOW.timestamp()
    assert [one.role for one in certificates] == ["leaf", "intermediate", "authority"]
    (notice,) = notices_of(certificates, now)
    assert "the intermediate certificate 'OU=ca,CN=Inter' in" in notice and "own.crt expires in 30 hours" in notice
    assert "from the authority that issued it: OU=ca,CN=Root" in notice
    assert condition_of(certificates, now) == "ends-soon"
    assert 29 * 3600 < seconds_left(certificates, now)["intermediate"] < 31 * 3600
    later = now + 31 * 3600
    (problem,) = problems_of(certificates, later)
    assert "'OU=ca,CN=Inter'" in problem and "expired on" in problem
    assert condition_of(certificates, later) == "invalid"
    (early,) = problems_of([certificates[0]], certificates[0].not_before - 1)
    assert "is not valid before" in early and "set the clock" in early


@pytest.mark.parametrize(
    ("seconds", "days"), [(30 * DAY, 0), (30 * DAY - 1, 30), (7 * DAY, 30), (7 * DAY - 1, 7), (1, 1), (0, 0)]
)
def test_notices_begin_at_30_7_and_1_days(tmp_path: Path, seconds: float, days: int) -> None:
    """Each limit at n and n - 1 s; after the end it is a problem and no notice."""
    leaf = loaded(tmp_path / "s", SERVER, [SERVER, INTER], [ROOT]).certificates(NOW)[0]
    assert leaf.notice_days(leaf.not_after - seconds) == days


def test_a_renewed_intermediate_is_preferred_and_the_old_one_a_leftover(tmp_path: Path) -> None:
    """Two certificates of the same key: the valid one counts, and the log says that the other can be removed."""
    old = make("Inter", "ca", ROOT, ends=timedelta(hours=-1), key=INTER.key)
    server = loaded(tmp_path / "s", SERVER, [SERVER, old, INTER], [ROOT])
    assert problems_of(server.certificates(NOW), NOW.timestamp()) == ()
    (warning,) = server.warnings
    assert "'OU=ca,CN=Inter'" in warning and "nothing here needs it" in warning


def test_an_expired_intermediate_is_named_by_the_other_end(tmp_path: Path) -> None:
    """The end that refuses says which certificate of the chain it is, and since when."""
    old = make("Inter", "ca", ROOT, ends=timedelta(hours=-1))
    own = make("gns1", "server", old)
    server = loaded(tmp_path / "s", own, [own, old], [ROOT])
    host = loaded(tmp_path / "h", HOST, [HOST, INTER], [ROOT])
    _, called = connect(server_context(server), client_context(host, "gns1"))
    refusal = called.transport.peer_refusal
    assert "'OU=ca,CN=Inter', above the certificate of the peer, expired on" in refusal


def test_a_file_has_a_limited_number_of_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CHAIN_MAX certificates are read, one more is a problem."""
    monkeypatch.setattr("compass.pki.identity.CHAIN_MAX", 2)
    assert chain.CHAIN_MAX > 150
    loaded(tmp_path / "n", SERVER, [SERVER, INTER], [ROOT])
    with pytest.raises(IdentityError, match="has 3 certificates; at most 2"):
        loaded(tmp_path / "more", SERVER, [SERVER, INTER, ROOT], [ROOT])


@pytest.mark.parametrize(
    ("seconds", "rest"),
    [
        (2 * 86400, "2 days"),
        (2 * 86400 - 3600, "47 hours"),
        (7200, "2 hours"),
        (7199, "120 minutes"),
        (121, "2 minutes"),
        (60, "60 seconds"),
    ],
)
def test_the_rest_of_a_life_is_in_the_unit_that_counts(seconds: float, rest: str) -> None:
    """Nothing "expires in 0 days" for a minute."""
    one = OwnCertificate("leaf", "CN=a", "own.crt", 0.0, 1000.0 + seconds, "renew it")
    assert f"expires in {rest}, on" in one.notice(1000.0)

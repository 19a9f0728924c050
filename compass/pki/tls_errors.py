"""Failures of TLS in words: whose certificate, since when, and what to do.

OpenSSL reports a refusal as a list of triples without the certificate. `refusal_of` describes the certificate that this
end refused; `explain_alert` describes an alert of the peer, which refused the certificate of this end.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from OpenSSL import SSL

from compass.model.rules.certificates import OwnCertificate, format_time, problems_of
from compass.model.text import escape_line

NAME_MAX = 200
"""Characters of a subject in a text: more than any proper one has."""
NOT_YET_VALID, EXPIRED = 9, 10
ISSUER_UNKNOWN = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's X509_V_ERR_* numbers (x509_vfy.h), the same in every program that uses it."""

_ALERTS = {
    "unknown ca": "no authority that the peer trusts issued it; use one issued by the installation's authority",
    "certificate expired": "it, or a certificate above it, has expired by the peer's clock",
    "certificate required": "the peer requires one, and none was sent",
    "bad certificate": "it is not valid yet by the peer's clock, or the peer cannot accept it; compare both clocks",
    "certificate unknown": "the peer cannot accept it; check it with 'opengnsadmin tls show FILE'",
    "certificate revoked": "it has been revoked; issue a new one",
    "unsupported certificate": "its kind or purpose is not accepted from this end",
    "access denied": "its holder may not connect there",
}
"""TLS alerts about certificates (RFC 8446 section 6.2) as OpenSSL writes them, and their meaning for the own one."""


class TlsFailed(Exception):
    """TLS with a peer failed; the message is a sentence."""


def subject_of(shown: x509.Certificate) -> str:
    """Return the subject of a certificate that nothing has proven: escaped and cut."""
    return escape_line(shown.subject.rfc4514_string(), NAME_MAX)


def refusal_of(shown: x509.Certificate, error: int, depth: int, peer: str = "the peer") -> str:
    """Return why a certificate of the peer's chain is refused. `error`: the number of OpenSSL; `depth` 0: its own."""
    # The peer is not authenticated, so its text is escaped and cut.
    subject, issuer = (escape_line(one.rfc4514_string(), NAME_MAX) for one in (shown.subject, shown.issuer))
    what = f"the certificate {subject!r} of {peer}" if depth == 0 else f"{subject!r}, above the certificate of {peer},"
    if error == EXPIRED:
        who = "its holder" if depth == 0 else "that authority"
        return f"{what} expired on {format_time(shown.not_valid_after_utc.timestamp())}; {who} needs a new one"
    if error == NOT_YET_VALID:
        begin = format_time(shown.not_valid_before_utc.timestamp())
        return f"{what} is not valid before {begin}; check the clock of this machine"
    if error in ISSUER_UNKNOWN:
        return (
            f"{what} was issued by {issuer!r}, which is neither in the file `authority` of this end nor sent by the "
            "peer; add the issuing authority there, or the intermediate certificate to the peer's certificate"
        )
    return f"{what} is not accepted: OpenSSL's verification error {error} (openssl-verification-options(1))"


def alert_of(error: BaseException) -> str:
    """Return the TLS alert about certificates in an error of OpenSSL; empty: it is another error."""
    text = _text_of(error)
    return next((alert for alert in _ALERTS if "alert" in text and text.endswith(alert)), "")


def explain_alert(alert: str, own: Sequence[OwnCertificate], now: float) -> str:
    """Return what an alert of the peer says about the certificates of this end."""
    problems = problems_of(own, now)
    if problems:
        return f"the peer refuses this end's certificate: {'; '.join(problems)}"
    leaf = f"{own[0]} (until {format_time(own[0].not_after)})" if own else "this end's certificate"
    return f"the peer refuses {leaf}: {_ALERTS[alert]}"


def explain_error(error: SSL.Error) -> str:
    """Return an error of OpenSSL that concerns no certificate as text."""
    return f"TLS failed: {_text_of(error)}"


def _text_of(error: BaseException) -> str:
    """Return the last parts of the triples of an error."""
    match getattr(error, "args", ()):
        case (list() as parts,) if isinstance(error, SSL.Error):
            return "; ".join(str(part[-1]) for part in parts)
    return ""

"""Exchange of a joining host with a server, over HTTPS: first the authority is verified, then the token is sent.

The first connection verifies nothing and sends nothing secret: it reads the authority's certificate, whose fingerprint
must be that of the token, and the server's clock. Every later connection trusts this authority alone and checks the
server's name, and only there the token is sent.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import TypeVar

import msgspec
from cryptography import x509

from compass.model.exit_codes import ExitCode, exit_of
from compass.model.names import InvalidName, parse_server
from compass.model.replies import Certified, Refusal
from compass.model.requests import Join
from compass.model.rows import AuthorityInfo
from compass.model.text import escape_line
from compass.pki.authority import AuthorityError, attributes_of
from compass.pki.join_token import JoinToken
from compass.pki.signing import fingerprint

CONNECT_SECONDS = 10.0
"""Time limit for each step with a server; a person waits for it."""
ANSWER_OCTETS_MAX = 256 * 1024
"""Longest answer that is read: two certificates have some 2 kB."""
CLOCK_DIFFERENCE_SECONDS_MAX = 300.0
"""Greatest difference between the clocks of host and server: beyond that certificates begin or end at a wrong time for
one of them, and logs cannot be compared."""
TEXT_MAX = 500
"""Characters of a server's text that are shown."""
PATH = "/v1/join"
NEW_TOKEN = "ask an administrator for another token ('opengnsadmin host invite NAME')"

T = TypeVar("T", AuthorityInfo, Certified)


class JoinFailed(Exception):
    """Joining that failed: one sentence that says what to do, and the exit status."""

    def __init__(self, status: ExitCode, message: str, *, was_sent: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.was_sent = was_sent
        """The token was sent, so that it may be used up."""


def endpoints_of(token: JoinToken, server: str) -> list[tuple[str, int]]:
    """Return the HTTPS endpoints to try: `server`, `NAME` or `NAME:PORT`, or else those of the token."""
    try:
        if not server:
            return [(parse_server(text)[0], token.https_port) for text in token.servers]
        name, port = parse_server(server)
        has_port = server.endswith(f":{port}") and not server.endswith("]")
        return [(name, port if has_port else token.https_port)]
    except InvalidName as problem:
        raise JoinFailed(ExitCode.USAGE, f"{problem}; write SERVER as NAME or NAME:PORT") from None


def exchange(
    token: JoinToken, endpoints: list[tuple[str, int]], request: bytes, now: float
) -> tuple[Certified, tuple[str, int]]:
    """Return the certificate from the first server that can be reached, and that server. Raises JoinFailed."""
    unreachable: list[JoinFailed] = []
    for name, port in endpoints:
        try:
            return _exchange_with(token, name, port, request, now), (name, port)
        except JoinFailed as problem:
            if problem.status is not ExitCode.UNAVAILABLE:
                raise
            unreachable.append(problem)
    advice = "check its name, its port and the network, and run the command again; the token was not used"
    if any(problem.was_sent for problem in unreachable):
        advice = f"run the command again; if the token was used meanwhile, {NEW_TOKEN}"
    raise JoinFailed(ExitCode.UNAVAILABLE, f"{'; '.join(map(str, unreachable))}: {advice}")


def _exchange_with(token: JoinToken, name: str, port: int, request: bytes, now: float) -> Certified:
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    info = _call(unverified, name, port, None, AuthorityInfo)
    _check(token, info, f"{name}:{port}", now)
    trusted = ssl.create_default_context(cadata=info.authority)
    certified = _call(trusted, name, port, Join(token.secret, request), Certified)
    if certified.authority != info.authority:
        raise JoinFailed(ExitCode.MISUNDERSTOOD, f"{name}:{port} changed its authority meanwhile: {NEW_TOKEN}")
    return certified


def _check(token: JoinToken, info: AuthorityInfo, where: str, now: float) -> None:
    """Check what a server says before anything is sent to it. Raises JoinFailed."""
    try:
        shown = fingerprint(info.authority.encode())
    except AuthorityError:
        raise JoinFailed(ExitCode.MISUNDERSTOOD, f"{where} shows no authority: is it an OpenGNS server?") from None
    if shown != token.authority:
        raise JoinFailed(
            ExitCode.NOT_ALLOWED,
            f"the authority of {where} has the fingerprint {shown[:16]}..., the token expects {token.authority[:16]}..."
            f": this is another installation, or a machine between that only looks like it, and nothing was sent; "
            f"check SERVER, or {NEW_TOKEN}",
        )
    if info.store != token.store:
        raise JoinFailed(
            ExitCode.NOT_ALLOWED,
            f"the token is for the store {token.store[:8]}..., and {where} serves {info.store[:8]}...: "
            f"use a server of that store, or {NEW_TOKEN}",
        )
    ahead = now - info.time
    if abs(ahead) > CLOCK_DIFFERENCE_SECONDS_MAX:
        raise JoinFailed(
            ExitCode.FAILED,
            f"the clock of this host is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of {where}: "
            "set it ('timedatectl set-ntp true'), then run the command again; the token was not used",
        )


def _call(context: ssl.SSLContext, name: str, port: int, asked: Join | None, kind: type[T]) -> T:
    """Send one request. Returns its answer, raises JoinFailed."""
    connection = http.client.HTTPSConnection(name, port, timeout=CONNECT_SECONDS, context=context)
    where = f"{name}:{port}"
    try:
        connection.connect()
        if asked is None:
            connection.request("GET", PATH)
        else:
            _check_role(connection.sock, where)
            body = msgspec.to_builtins(asked)
            del body["type"]
            connection.request("POST", PATH, msgspec.json.encode(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        status, data = answer.status, answer.read(ANSWER_OCTETS_MAX)
    except ssl.SSLCertVerificationError as problem:
        text = f"the certificate of {where} is refused ({problem.verify_message}): reach the server by a name that its "
        raise JoinFailed(ExitCode.NOT_ALLOWED, f"{text}certificate has; nothing was sent to it") from None
    except (OSError, http.client.HTTPException, socket.gaierror) as problem:
        why = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        text = f"{where} cannot be reached ({why})"
        if asked is not None:
            raise JoinFailed(ExitCode.FAILED, f"{text} any more; the token may be used up: {NEW_TOKEN}") from None
        raise JoinFailed(ExitCode.UNAVAILABLE, text) from None
    finally:
        connection.close()
    return _answer(status, data, kind, where, was_sent=asked is not None)


def _check_role(secured: ssl.SSLSocket, where: str) -> None:
    """Check that the peer is a server: a host of this installation must not get the token. Raises JoinFailed."""
    shown = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
    units = attributes_of(shown.subject, x509.NameOID.ORGANIZATIONAL_UNIT_NAME)
    if units != ["server"]:
        text = f"the certificate of {where} is not one of a server: check SERVER; nothing was sent to it"
        raise JoinFailed(ExitCode.NOT_ALLOWED, text)


def _answer(status: int, data: bytes, kind: type[T], where: str, *, was_sent: bool) -> T:
    try:
        if status == http.client.OK:
            return msgspec.json.decode(data, type=kind)
        refusal = msgspec.json.decode(data, type=Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        text = f"{where} is no server of a version in which hosts can join (HTTP status {status}): check its address"
        raise JoinFailed(ExitCode.MISUNDERSTOOD, text) from None
    again = f"; try again in {refusal.retry_after_seconds:.0f} s" if refusal.retry_after_seconds else ""
    text = f"{where} refuses: {escape_line(refusal.message, TEXT_MAX)}{again}"
    raise JoinFailed(exit_of(refusal.code), text, was_sent=was_sent)

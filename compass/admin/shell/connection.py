"""Blocking session with a name server, for programs that send a few requests and end.

`AdminSession.connect` tries the servers in order and opens a session with the first usable one; `ask` sends one request
and waits for its reply. Both ends authenticate by TLS 1.3; OpenSSL checks the server's name. A refusal is a value that
`ask` returns; a session that cannot be opened, or breaks, raises `ConnectionFailed`, which says what to do next.

In TLS 1.3 the client's handshake ends before the server has verified the client's certificate. So the refusal of a
certificate arrives with the first read, and `_read` reports its alert as a failure to connect.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

import msgspec

from compass.model.exit_codes import ExitCode
from compass.model.names import format_endpoint
from compass.model.replies import Refusal, Reply
from compass.model.requests import Request
from compass.pki.diagnosis import refused_certificate
from compass.wire.client_connection import ClientConnection, RequestTooLong
from compass.wire.events import Event, ReplyReceived, SessionEnded, SessionOpened
from compass.wire.messages import Welcome

READ_SIZE = 64 * 1024
"""Octets read from the socket at once: a few TLS records, so that a large reply needs few reads."""

Kind = Literal["files", "unavailable", "untrusted", "protocol"]
"""Kinds of failure. files: this program's key or certificates are unusable. unavailable: no server answers now.
untrusted: one end does not accept the other's certificate. protocol: the peer does not use this version of OpenGNSP."""
_SEVERITY: tuple[Kind, ...] = ("unavailable", "protocol", "untrusted")
"""Kinds in the order of severity. If several servers fail, the most severe one, which a person must repair, counts."""

EXIT_OF_KIND: dict[Kind, ExitCode] = {
    "files": ExitCode.FAILED,
    "unavailable": ExitCode.UNAVAILABLE,
    "untrusted": ExitCode.NOT_ALLOWED,
    "protocol": ExitCode.MISUNDERSTOOD,
}
"""Exit status of `opengnsadmin` for each kind."""

_HOSTNAME_MISMATCH, _ADDRESS_MISMATCH = 62, 64
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's X509_V_ERR_* numbers (x509_vfy.h), which Python passes on as `verify_code`."""

_OF_ONE_CERTIFICATE = frozenset({_NOT_YET_VALID, _EXPIRED})
EXAMINE_SECONDS = 3.0
"""Time limit for the second connection that finds out which certificate was refused."""

_SERVER_EXPIRED = "its certificate has expired; have a new one issued ('opengnsadmin tls server NAME')"
_OUR_CERTIFICATE = {
    "UNKNOWN_CA": "its authority is not trusted by the server; use one issued by the server's authority",
    "CERTIFICATE_EXPIRED": "it has expired; have a new one issued ('opengnsadmin tls admin NAME')",
    "CERTIFICATE_REQUIRED": "the server requires one and none was sent",
    "BAD_CERTIFICATE": "the server cannot accept it; check it with 'opengnsadmin tls show FILE'",
    "CERTIFICATE_UNKNOWN": "the server cannot accept it; check it with 'opengnsadmin tls show FILE'",
    "CERTIFICATE_REVOKED": "it has been revoked; have a new one issued",
    "UNSUPPORTED_CERTIFICATE": "its kind or purpose is not accepted from clients",
    "ACCESS_DENIED": "its holder may not connect here",
}
"""TLS alerts (RFC 8446 section 6.2) as in OpenSSL's reason names, and their meaning for our certificate."""


class ConnectionFailed(Exception):
    """A session that cannot be opened or that broke; the text says why and what to do next."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Server(msgspec.Struct, frozen=True):
    """Address of a server: a DNS name or an IP address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_endpoint(self.host, self.port)


class IdentityFiles(msgspec.Struct, frozen=True):
    """PEM files of this program's certificate, and the authority whose servers are trusted."""

    certificate: Path
    key: Path
    authority: Path
    server_name: str = ""
    """Name that the server must prove; empty: the host name of the server's address."""


def context_of(identity: IdentityFiles) -> ssl.SSLContext:
    """Return the TLS context of a client. Raises ConnectionFailed (files) with all problems of the files.

    OpenSSL asks for a key's passphrase on the terminal.
    """
    files = {"certificate": identity.certificate, "key": identity.key, "authority's certificate": identity.authority}
    problems = [problem for what, path in files.items() if (problem := _unreadable(path, what))]
    if problems:
        raise ConnectionFailed("files", "; ".join(problems))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(identity.authority)
    except ssl.SSLError:
        raise ConnectionFailed("files", f"{identity.authority} holds no certificate in PEM form") from None
    try:
        context.load_cert_chain(identity.certificate, identity.key)
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in (error.reason or ""):
            mismatch = f"{identity.key} is not the key of the certificate in {identity.certificate}"
            raise ConnectionFailed("files", mismatch) from None
        raise ConnectionFailed(
            "files",
            f"{identity.certificate} and {identity.key} are not a certificate and its key in PEM form",
        ) from None
    return context


def connect_tcp(server: Server, timeout_seconds: float) -> socket.socket:
    """Open a TCP connection. Raises ConnectionFailed."""
    try:
        return socket.create_connection((server.host, server.port), timeout_seconds)
    except socket.gaierror as error:
        why = f"the name {server.host!r} cannot be resolved ({error.strerror}); check the spelling and DNS"
    except UnicodeError:
        why = f"{server.host!r} is not a host name"
    except ConnectionRefusedError:
        why = "nothing listens there; is opengnssd running on this port?"
    except TimeoutError:
        why = f"no answer within {timeout_seconds:g} s; is the host up, and does a firewall let this port through?"
    except OSError as error:
        why = f"{error.strerror or error}; check the network"
    raise ConnectionFailed("unavailable", f"cannot connect to {server}: {why}")


def start_tls(
    plain: socket.socket, context: ssl.SSLContext, server: Server, server_name: str, authority: Path | None = None
) -> ssl.SSLSocket:
    """Start TLS on a connection of `connect_tcp` and verify `server_name`. Raises ConnectionFailed.

    With the file of the trusted `authority`, the text about a refused certificate says which one of the chain it is.
    """
    kind: Kind = "unavailable"
    try:
        return context.wrap_socket(plain, server_hostname=server_name)
    except ssl.SSLCertVerificationError as error:
        kind, why = "untrusted", _not_verified(error, server_name)
        if error.verify_code in _OF_ONE_CERTIFICATE and authority is not None:
            why = _examine(server, authority) or why
    except ssl.SSLEOFError:
        why = "the server closed the connection during the TLS handshake; its log may say why"
    except ssl.SSLError as error:
        kind = "protocol"
        why = f"no TLS 1.3 there ({error.reason or error}); is this the OpenGNSP port, 4863 by default?"
    except TimeoutError:
        why = "no answer to the TLS handshake; is this the OpenGNSP port, 4863 by default?"
    except ValueError:
        kind, why = "untrusted", f"{server_name!r} is not a name that a server can prove; check --server-name"
    except OSError as error:
        why = f"the connection broke during the TLS handshake: {error.strerror or error}"
    plain.close()
    raise ConnectionFailed(kind, f"{server}: {why}")


def _examine(server: Server, authority: Path) -> str:
    """Return which certificate of the server's chain is above its own, refused, and why; empty: its own one is."""
    try:
        with socket.create_connection((server.host, server.port), EXAMINE_SECONDS) as plain:
            why = refused_certificate(plain, authority, EXAMINE_SECONDS)
    except OSError:
        return ""
    return why if ", above the certificate" in why else ""


class AdminSession:
    """Session with one server, used as a context manager by one thread."""

    def __init__(self, secured: ssl.SSLSocket, server: Server, software: str, timeout_seconds: float) -> None:
        """Open a session with the server at the end of `secured`, within the timeout. Raises ConnectionFailed."""
        self.server = server
        self._socket = secured
        self._end_reason = ""
        self._connection = ClientConnection(time.monotonic(), software)
        self._open_until: float | None = time.monotonic() + timeout_seconds
        shown = secured.getpeercert() or {}
        self._expires_at = ssl.cert_time_to_seconds(str(shown["notAfter"])) if "notAfter" in shown else float("inf")
        try:
            self.welcome = self._greet()
        except BaseException:
            self.close()
            raise
        self._open_until = None

    @classmethod
    def connect(
        cls,
        servers: Sequence[Server],
        identity: IdentityFiles,
        timeout_seconds: float,
        software: str = "compass client",
    ) -> AdminSession:
        """Open a session with the first usable one of `servers`; the timeout applies to each step with each server.

        Raises ConnectionFailed; with several servers its text has the problem of each.
        """
        if not servers:
            raise ValueError("no server to connect to")
        context = context_of(identity)
        problems: list[ConnectionFailed] = []
        for server in servers:
            try:
                plain = connect_tcp(server, timeout_seconds)
                secured = start_tls(plain, context, server, identity.server_name or server.host, identity.authority)
                return cls(secured, server, software, timeout_seconds)
            except ConnectionFailed as problem:
                problems.append(problem)
        if len(problems) == 1:
            raise problems[0]
        most_severe = max((problem.kind for problem in problems), key=_SEVERITY.index)
        details = "".join(f"\n  {problem}" for problem in problems)
        raise ConnectionFailed(most_severe, f"none of the {len(problems)} servers can be used:{details}")

    def ask(self, request: Request) -> Reply:
        """Return the reply to `request`, which may be a refusal.

        Raises ConnectionFailed if the session ends before the reply; whether a change was committed is then unknown.
        """
        if self._end_reason:
            raise ConnectionFailed("unavailable", self._end_reason)
        if time.time() >= self._expires_at:
            self._fail("untrusted", _SERVER_EXPIRED)
        try:
            number = self._connection.ask(request, time.monotonic())
        except RequestTooLong as problem:
            return Refusal("too-large", f"{problem}; send less at once")
        self._write()
        reply: Reply | None = None
        while reply is None:
            # Process all events of one read: a goodbye may follow the reply.
            for event in self._read():
                if isinstance(event, ReplyReceived) and event.number == number:
                    reply = event.reply
                elif isinstance(event, SessionEnded):
                    self._end_reason = f"{self.server} ended the session: {event.reason}"
                    if reply is None:
                        raise self._ended(event)
        return reply

    def close(self) -> None:
        """Close the session without waiting for the server."""
        self._end_reason = "the session is closed"
        self._socket.settimeout(0)
        try:
            self._socket.unwrap()
        except (OSError, ValueError):
            pass
        finally:
            self._socket.close()

    def __enter__(self) -> AdminSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _greet(self) -> Welcome:
        self._write()
        while True:
            for event in self._read():
                if isinstance(event, SessionOpened) and isinstance(event.peer, Welcome):
                    return event.peer
                if isinstance(event, SessionEnded):
                    raise self._ended(event)

    def _ended(self, event: SessionEnded) -> ConnectionFailed:
        if event.violation:
            return ConnectionFailed(
                "protocol", f"{self.server}: {event.reason}; is it an opengnssd, and of which version?"
            )
        again = event.retry_after_seconds
        hint = f"; try again in {again:g} s" if again else ""
        return ConnectionFailed("unavailable", f"{self.server} ended the session: {event.reason}{hint}")

    def _write(self) -> None:
        data = self._connection.bytes_to_send()
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(data)
        except OSError as error:
            # The last message of the server explains more than the broken pipe.
            if not isinstance(error, TimeoutError):
                self._read()
            self._raise_broken(error)

    def _read(self) -> list[Event]:
        """Return the events of the next bytes; none if a read ended before the deadline. Raises ConnectionFailed."""
        try:
            self._socket.settimeout(self._left())
            data = self._socket.recv(READ_SIZE)
        except TimeoutError:
            now = time.monotonic()
            if self._open_until is not None and now >= self._open_until:
                self._fail("unavailable", "connected, but the server sent no greeting; is this the OpenGNSP port?")
            return self._connection.expire(now)
        except OSError as error:
            self._raise_broken(error)
        if not data:
            self._fail("unavailable", "the server closed the connection; its log may say why")
        return self._connection.receive(data, time.monotonic())

    def _left(self) -> float:
        """Return the seconds left for this read or write; never 0, which would mean not to block."""
        ends = [end for end in (self._connection.deadline(), self._open_until) if end is not None]
        return max(min(ends) - time.monotonic(), 0.001)

    def _raise_broken(self, error: OSError) -> NoReturn:
        if isinstance(error, TimeoutError):
            self._fail("unavailable", "the server does not read what is sent to it")
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            for alert, meaning in _OUR_CERTIFICATE.items():
                if (error.reason or "").endswith(alert):
                    self._fail("untrusted", f"the server refuses our certificate: {meaning}")
            self._fail("protocol", f"the server ended TLS: {error.reason}")
        self._fail("unavailable", f"the connection broke: {error.strerror or error}")

    def _fail(self, kind: Kind, why: str) -> NoReturn:
        self._end_reason = why
        raise ConnectionFailed(kind, f"{self.server}: {why}")


def _unreadable(path: Path, what: str) -> str:
    try:
        path.read_bytes()
    except OSError as error:
        return f"the {what} {path} cannot be read: {error.strerror}"
    return ""


def _not_verified(error: ssl.SSLCertVerificationError, server_name: str) -> str:
    code = error.verify_code
    if code in (_HOSTNAME_MISMATCH, _ADDRESS_MISMATCH):
        return (
            f"its certificate is not for {server_name!r}; connect to a name in its certificate, "
            "or set that name with --server-name"
        )
    if code in _UNKNOWN_AUTHORITY:
        return "its certificate was issued by an untrusted authority; does --authority name the right one?"
    if code == _EXPIRED:
        return _SERVER_EXPIRED
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet; check this machine's clock"
    return f"its certificate is not accepted: {error.verify_message}"

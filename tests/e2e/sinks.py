"""Real receivers of alerts on this machine: an SMTP server, an HTTP server, a syslog daemon."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import http.server
import json
import socket
import ssl
import threading
import time
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

SECRET = b"correct horse battery staple"


class MailSink:
    """An SMTP server. `answers`: what it says to the next RCPT commands in place of taking them."""

    def __init__(self, address: str, port: int, *answers: str, tls: ssl.SSLContext | None = None) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.answers = list(answers)
        self.asked = 0
        self.logins: list[tuple[bytes, bytes]] = []
        self._controller = Controller(
            self,
            hostname=address,
            port=port,
            tls_context=tls,
            require_starttls=tls is not None,
            auth_required=tls is not None,
            authenticator=self._login if tls else None,
        )
        self._controller.start()

    def close(self) -> None:
        """Stop listening."""
        self._controller.stop()

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        self.asked += 1
        if self.answers:
            return self.answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.SMTP)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.recipients += envelope.rcpt_tos
        return "250 taken"

    def _login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        # Not handled: the server itself is to answer.
        return AuthResult(success=data.password == b"secret-of-the-relay", handled=False)


class HttpSink:
    """An HTTP server that keeps what is posted. `answers`: its next statuses; 0: it says nothing for a while."""

    def __init__(self, address: str, port: int, *answers: int, tls: ssl.SSLContext | None = None) -> None:
        sink = self
        self.answers = list(answers)
        self.seen: list[dict[str, Any]] = []
        """Whatever was posted, also what was not taken."""
        self.taken: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.hold = threading.Event()

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = sink.answers.pop(0) if sink.answers else 204
                sink.bodies.append(body)
                sink.headers.append(dict(self.headers))
                sink.seen.append(json.loads(body))
                if not status:
                    sink.hold.wait(30.0)
                    return
                if status == 204:
                    sink.taken.append(sink.seen[-1])
                self.send_response(status)
                if status in (301, 302):
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((address, port), Answer)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()


class LogSink:
    """A syslog daemon: datagrams of a Unix socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.settimeout(20.0)

    def line(self) -> bytes:
        return self._socket.recv(65536)

    def close(self) -> None:
        self._socket.close()


def is_genuine(secret: bytes, headers: dict[str, str], body: bytes, tolerance_seconds: float = 300.0) -> bool:
    """Return whether a message is genuine, checked as docs/reference/alerts.md describes."""
    id, sent = headers["Compass-Message"], headers["Compass-Time"]
    signed = id.encode() + b"." + sent.encode() + b"." + body
    expected = "v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()
    fresh = abs(time.time() - int(sent)) < tolerance_seconds
    return fresh and hmac.compare_digest(expected, headers["Compass-Signature"])

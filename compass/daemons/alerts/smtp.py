"""Mail channel: one message to one recipient through a relay, over TLS unless the relay is on this machine."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import default
from email.utils import format_datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import connectionDone
from twisted.mail.smtp import ESMTPClientError, ESMTPSender, ESMTPSenderFactory, SMTPClientError
from twisted.python.failure import Failure

from compass.daemons.alerts.outbound_tls import client_tls, secret_now
from compass.daemons.config.alerts import Security
from compass.model.text import escape_line
from compass.server.alerts.notifier import DeliveryFailed
from compass.server.alerts.outbox import Message
from compass.server.alerts.render import render_subject, render_text

CONNECT_SECONDS = 10.0
"""Time limit for connecting to the relay, which is near."""
ANSWER_SECONDS = 50.0
"""Time limit for each answer of the relay; the whole attempt has a minute."""
ANSWER_TEXT_MAX = 200
"""Characters of a relay's answer that are kept, for the log and for tables."""
_POLICY = default.clone(cte_type="7bit")
"""Policy of lines that end as Twisted expects, which writes CRLF; no relay needs to support 8BITMIME."""
_LOGIN_CODES = frozenset({530, 534, 535, 538, 454})
"""Status codes of a failed login (RFC 4954): the message is good, and is delivered once the password is corrected."""


class Relay:
    """Relay that accepts mail, with the login and the sender."""

    def __init__(
        self,
        reactor: Any,
        address: tuple[str, int],
        security: Security,
        authority: str,
        login: tuple[str, str],
        sender: str,
    ) -> None:
        """`login`: user and file of the password; empty: no login."""
        self._reactor = reactor
        self._address = address
        self._security = security
        self._authority = authority
        self._user, self._password_file = login
        self._sender = sender

    async def deliver(self, mail: bytes, recipient: str) -> None:
        """Deliver one mail in a session of its own. Raises DeliveryFailed."""
        host, port = self._address
        password = secret_now(self._password_file) if self._user else None
        over: Deferred[Any] = Deferred(lambda _: factory.abandon())
        factory = _Session(
            self._user.encode() or None,
            password,
            self._sender,
            recipient,
            io.BytesIO(mail),
            over,
            retries=0,
            timeout=ANSWER_SECONDS,
            contextFactory=client_tls(host, self._authority) if self._security == "starttls" else None,
            requireAuthentication=bool(self._user),
            requireTransportSecurity=self._security == "starttls",
        )
        endpoint: Any = HostnameEndpoint(self._reactor, host, port, CONNECT_SECONDS)
        if self._security == "tls":
            endpoint = wrapClientTLS(client_tls(host, self._authority), endpoint)
        try:
            await endpoint.connect(factory)
        except (ConnectError, DNSLookupError) as error:
            raise DeliveryFailed(f"{host} cannot be reached: {error}") from None
        try:
            await over
        except SMTPClientError as error:
            raise _undelivered(host, error) from None


class _Sender(ESMTPSender):
    """Protocol that reports the loss of its connection to its factory, which an endpoint does not do."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        factory: Any = self.factory
        factory.clientConnectionLost(None, reason)

    def sendError(self, error: SMTPClientError) -> None:  # noqa: N802
        """Ignore errors after the attempt was cancelled in the middle of the text."""
        factory: Any = self.factory
        if not factory.sendFinished:
            super().sendError(error)


class _Session(ESMTPSenderFactory):
    protocol = _Sender
    noisy = False

    def abandon(self) -> None:
        """Abort the connection of a cancelled attempt."""
        self.sendFinished = True
        if self.currentProtocol is not None:
            self.currentProtocol.transport.abortConnection()


def _undelivered(host: str, error: SMTPClientError) -> DeliveryFailed:
    """Return a failure with the relay's answer only: the error's own text is a log of the session, with passwords."""
    addresses: Any = error.addresses or ()
    code, answer = error.code, error.resp
    if addresses:
        # The relay refused the only recipient.
        _, code, answer = addresses[0]
    shown = answer.decode("utf-8", "replace")
    text = escape_line(" ".join(shown.split()), ANSWER_TEXT_MAX)
    if code < 0:
        # No answer, or none that could be parsed: the relay may have accepted the mail.
        return DeliveryFailed(f"{host}: {text}", perhaps=True)
    # Unlike an error of delivery, an error of the extensions (TLS, login) does not concern the message.
    final = 500 <= code < 600 and code not in _LOGIN_CODES and not isinstance(error, ESMTPClientError)
    return DeliveryFailed(f"{host} answers {code} {text}", final=final)


def mail_channel(relay: Relay, sender: str, recipient: str, server: str) -> Callable[[Message], Deferred[None]]:
    """Return the delivery to one recipient, because other mailboxes may be greylisted, full or removed."""

    def deliver(message: Message) -> Deferred[None]:
        return Deferred.fromCoroutine(relay.deliver(mail_of(message, sender, recipient, server), recipient))

    return deliver


def mail_of(message: Message, sender: str, recipient: str, server: str) -> bytes:
    """Return the mail. A repeated message has the same Message-ID; the end of an incident replies to its beginning."""
    mail = EmailMessage(policy=_POLICY)
    domain = sender.rpartition("@")[2]
    mail["From"], mail["To"] = sender, recipient
    mail["Subject"] = f"[{server}] {render_subject(message)}"
    mail["Date"] = format_datetime(datetime.fromtimestamp(message.time, UTC))
    mail["Message-ID"] = f"<{message.id}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    if message.answers:
        mail["In-Reply-To"] = mail["References"] = f"<{message.answers}@{domain}>"
    mail.set_content(render_text(message, server, _when))
    return mail.as_bytes()


def _when(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

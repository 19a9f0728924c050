"""Channels to administrators with real receivers: verified TLS, signatures, refusals, silence, secrets."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator

from compass.daemons.alerts.channels import alert_channels
from compass.daemons.alerts.command import command_channel
from compass.daemons.alerts.smtp import mail_of
from compass.daemons.alerts.syslog import OCTETS_MAX, syslog_line
from compass.daemons.alerts.webhook import signature_of
from compass.daemons.config.alerts import AlertSettings
from compass.model.rows import Alert
from compass.pki.authority import Credentials, create_authority, issue, write_credentials
from compass.server.alerts.notifier import DeliveryFailed
from compass.server.alerts.outbox import IncidentUpdate, Message
from compass.server.alerts.render import render_json, render_subject, render_text
from tests.daemons.net.test_listen import _reaping
from tests.e2e.sinks import SECRET, HttpSink, LogSink, MailSink, is_genuine
from tests.support.installation import NOW, free_port
from tests.support.reactor_thread import ReactorThread

ALERT = Alert(
    "failure store.disk 192.0.2.1:1", "failure", 1790000002.5, "store.disk at 192.0.2.1:1 is down: it said\r\nBcc: x"
)
OPENED = Message("0" * 32, "opened", 1790000003.0, (IncidentUpdate("opened", ALERT, 7, 1790000002.5),), {"opened": 1})
HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def thread() -> Iterator[ReactorThread]:
    """Run a reactor in a thread, also for Twisted's TLS endpoints and mail sender, which use the global reactor."""
    thread = ReactorThread()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twisted.protocols.tls._get_default_clock", lambda: thread.reactor)
        turns = Cooperator(scheduler=lambda turn: thread.reactor.callLater(0.0, turn))
        patch.setattr("twisted.internet._producer_helpers.cooperate", turns.cooperate)
        yield thread
    thread.stop()


@pytest.fixture(scope="module")
def authority() -> Credentials:
    return create_authority("receivers", NOW)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Receivers:
    """Certificates of receivers, and channels to them."""

    def __init__(self, thread: ReactorThread, authority: Credentials, directory: Path, stack: ExitStack) -> None:
        self._thread, self._authority, self.directory, self.stack = thread, authority, directory, stack
        self.trusted = directory / "authority.crt"
        self.trusted.write_bytes(authority.certificate_pem)
        self.secret = directory / "secret"
        self.secret.write_bytes(SECRET)
        self.password = directory / "password"
        self.password.write_bytes(b"secret-of-the-relay\n")

    def tls(self, *names: str) -> ssl.SSLContext:
        """Return the TLS context of a receiver with these names."""
        files = write_credentials(self.directory, names[0], issue(self._authority, "server", names[0], names[1:], NOW))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        return context

    def hook(self, *answers: int, tls: ssl.SSLContext | None = None) -> HttpSink:
        sink = HttpSink(HERE, 0, *answers, tls=tls)
        self.stack.callback(sink.close)
        return sink

    def mail(self, *answers: str, tls: ssl.SSLContext | None = None) -> tuple[MailSink, int]:
        port = free_port()
        sink = MailSink(HERE, port, *answers, tls=tls)
        self.stack.callback(sink.close)
        return sink, port

    def deliver(
        self, message: Message = OPENED, timeout_seconds: float = 20.0, **settings: Any
    ) -> DeliveryFailed | None:
        """Try a delivery once. Returns its failure."""
        [way] = alert_channels(self._thread.reactor, (), (AlertSettings(**settings),), "gns1")

        def attempt() -> Deferred[None]:
            return way.deliver(message).addTimeout(timeout_seconds, self._thread.reactor)

        try:
            self._thread.call(attempt)
        except DeliveryFailed as problem:
            assert SECRET.decode() not in str(problem) and "secret-of" not in str(problem)
            return problem
        return None

    def posts(self, port: int, scheme: str = "http", **settings: Any) -> DeliveryFailed | None:
        url = f"{scheme}://{HERE}:{port}/hooks/T0K3N"
        return self.deliver(way="webhook", url=url, secret_file=str(self.secret), **settings)

    def mails(self, port: int, **settings: Any) -> DeliveryFailed | None:
        people: dict[str, Any] = {"to": ("ops@example.org",), "sender": "gns@example.org"}
        return self.deliver(way="mail", relay=f"{HERE}:{port}", **people, **settings)

    def mails_as(self, port: int, **settings: Any) -> DeliveryFailed | None:
        login = {"user": "gns", "password_file": str(self.password), "authority": str(self.trusted)}
        return self.mails(port, security="starttls", **{**login, **settings})


@pytest.fixture
def receivers(thread: ReactorThread, authority: Credentials, tmp_path: Path, stack: ExitStack) -> Receivers:
    return Receivers(thread, authority, tmp_path, stack)


def test_a_webhook_is_signed_and_a_forgery_is_noticed(receivers: Receivers) -> None:
    """A changed secret, body, time or id is detected, and so is an old message."""
    sink = receivers.hook()
    assert receivers.posts(sink.port) is None
    [headers], [body] = sink.headers, sink.bodies
    assert sink.taken == [render_json(OPENED, "gns1")] and headers["Content-Type"] == "application/json"
    assert headers["Compass-Message"] == OPENED.id and is_genuine(SECRET, headers, body)
    assert not is_genuine(b"another secret, 16 octets", headers, body)
    assert not is_genuine(SECRET, headers, body.replace(b"opened", b"closed"))
    assert not is_genuine(SECRET, headers | {"Compass-Message": "1" * 32}, body)
    later = headers | {"Compass-Time": str(int(headers["Compass-Time"]) + 1)}
    assert not is_genuine(SECRET, later, body)
    assert not is_genuine(SECRET, headers, body, tolerance_seconds=-1.0)


def test_the_signature_is_the_one_in_the_documents() -> None:
    """Other programs compute the same: printf 'id.1790000003.{}' | openssl dgst -sha256 -hmac secret."""
    expected = "v1=c96b645a678eaa838a0d3413c583438effddb9eea048424c981af92dd99d99d0"
    assert signature_of(b"secret", "id", "1790000003", b"{}") == expected


def test_a_secret_is_replaced_without_a_restart(receivers: Receivers) -> None:
    """The secret is read for each message; without its file the message waits."""
    sink = receivers.hook()
    receivers.secret.write_bytes(b"the next secret, longer")
    assert receivers.posts(sink.port) is None
    assert is_genuine(b"the next secret, longer", sink.headers[0], sink.bodies[0])
    receivers.secret.unlink()
    problem = receivers.posts(sink.port)
    assert problem is not None and not problem.final and "cannot be read" in str(problem)


@pytest.mark.parametrize(
    ("status", "final", "perhaps"),
    [
        *((status, None, None) for status in (200, 201, 204)),
        *((status, False, False) for status in (301, 401, 404, 429)),
        *((status, True, False) for status in (400, 413, 422)),
        *((status, False, True) for status in (500, 503)),
    ],
)
def test_what_an_answer_means(receivers: Receivers, status: int, final: bool | None, perhaps: bool | None) -> None:
    """2xx accepts the message. Only a status about the message itself rejects it for good; all others lead to a
    retry. No redirect is followed: the signature was made for one receiver."""
    sink = receivers.hook(status)
    problem = receivers.posts(sink.port)
    assert (problem and (problem.final, problem.perhaps)) == (None if final is None else (final, perhaps))
    assert len(sink.seen) == 1
    if problem:
        assert f"{HERE}:{sink.port} answers {status}" in str(problem) and "T0K3N" not in str(problem)


def test_a_webhook_over_tls_shows_a_certificate_of_a_known_authority_and_the_right_name(receivers: Receivers) -> None:
    """Otherwise nothing is sent, and the message waits for a correction."""
    good = receivers.hook(tls=receivers.tls("receiver.example", HERE))
    assert receivers.posts(good.port, "https", authority=str(receivers.trusted)) is None
    unknown = receivers.posts(good.port, "https")
    assert unknown is not None and "certificate verify failed" in str(unknown) and not unknown.final
    other = receivers.hook(tls=receivers.tls("other.example"))
    wrong = receivers.posts(other.port, "https", authority=str(receivers.trusted))
    assert wrong is not None and not wrong.final and "did not answer" in str(wrong)
    assert len(good.seen) == 1 and other.seen == []


def test_a_receiver_that_hangs_is_left(receivers: Receivers) -> None:
    """The connection of a cancelled attempt is closed."""
    from twisted.internet.defer import TimeoutError

    sink = receivers.hook(0)
    with pytest.raises(TimeoutError):
        url = f"http://{HERE}:{sink.port}/"
        receivers.deliver(OPENED, 0.3, way="webhook", url=url, secret_file=str(receivers.secret))


@pytest.mark.parametrize("way", ["webhook", "mail"])
def test_nobody_listens(receivers: Receivers, way: str) -> None:
    """A refused connection means that the message was certainly not accepted."""
    port = free_port()
    problem = receivers.posts(port) if way == "webhook" else receivers.mails(port)
    assert problem is not None and not (problem.final or problem.perhaps) and "cannot be reached" in str(problem)


def test_mail_goes_over_starttls_with_a_login(receivers: Receivers) -> None:
    """The relay must show a certificate of the configured authority."""
    sink, port = receivers.mail(tls=receivers.tls("relay.example", HERE))
    assert receivers.mails_as(port) is None
    assert sink.logins == [(b"gns", b"secret-of-the-relay")] and sink.recipients == ["ops@example.org"]
    unknown = receivers.mails_as(port, authority="")
    assert unknown is not None and not unknown.final
    other, port = receivers.mail(tls=receivers.tls("other.example"))
    wrong = receivers.mails_as(port)
    assert wrong is not None and not wrong.final and other.logins == []


def test_a_relay_that_offers_no_tls_gets_no_password(receivers: Receivers) -> None:
    """An attacker on the path may have removed the offer of TLS."""
    sink, port = receivers.mail()
    problem = receivers.mails_as(port)
    assert problem is not None and not problem.final and sink.asked == 0


def test_a_wrong_password_is_told_and_the_mail_waits(receivers: Receivers) -> None:
    """After the password is corrected, the waiting mail is sent."""
    receivers.password.write_bytes(b"not the secret-of-the-relay")
    _, port = receivers.mail(tls=receivers.tls("relay.example", HERE))
    problem = receivers.mails_as(port)
    assert problem is not None and not problem.final


@pytest.mark.parametrize(
    ("answer", "final"), [("450 greylisted", False), ("452 mailbox full", False), ("550 gone", True)]
)
def test_what_a_relay_says_of_a_recipient(receivers: Receivers, answer: str, final: bool) -> None:
    """4xx leads to a retry, 5xx rejects the mail."""
    _, port = receivers.mail(answer)
    problem = receivers.mails(port)
    assert problem is not None and (problem.final, problem.perhaps) == (final, False)
    assert str(problem) == f"{HERE} answers {answer}"


def test_a_relay_that_hangs_up_or_says_nothing(receivers: Receivers, stack: ExitStack) -> None:
    """The relay may have the mail; the retry has the same Message-ID."""
    listening = stack.enter_context(socket.create_server((HERE, 0)))

    def hang_up() -> None:
        accepted, _ = listening.accept()
        accepted.sendall(b"220 here\r\n")
        accepted.recv(100)
        accepted.close()

    threading.Thread(target=hang_up, daemon=True).start()
    problem = receivers.mails(listening.getsockname()[1])
    assert problem is not None and problem.perhaps and not problem.final


def test_a_mail_is_plain_and_nothing_gets_into_its_headers() -> None:
    """A quoted report is one line; the end of an incident refers to its beginning."""
    text = mail_of(OPENED, "gns@example.org", "ops@example.org", "gns1").decode("ascii")
    head, _, body = text.partition("\n\n")
    assert "\nBcc" not in text and "Message-ID: <" + "0" * 32 + "@example.org>" in head
    assert "Auto-Submitted: auto-generated" in head and "In-Reply-To" not in head
    assert "incident   failure store.disk 192.0.2.1:1" in body and "began      2026-09-21" in body
    over = Message(
        "1" * 32, "resolved", 1.0, (IncidentUpdate("resolved", ALERT, 8, 9.0, 9.0),), {"resolved": 1}, "0" * 32
    )
    assert f"In-Reply-To: <{'0' * 32}@example.org>" in mail_of(over, "gns@example.org", "o@example.org", "s").decode()


def test_a_digest_names_some_and_counts_all() -> None:
    """The digest does so as text and as JSON."""
    news = OPENED.news
    digest = Message("2" * 32, "digest", 5.0, news, {"opened": 9_000, "resolved": 30})
    assert render_subject(digest) == "9,030 incidents: 9,000 began, 30 are over"
    body = render_text(digest, "gns1", lambda time: f"at {time:.0f}")
    assert "at 1790000002  ALERT: store.disk" in body and "and 9,029 more." in body
    assert render_json(digest, "gns1")["counts"] == {"opened": 9_000, "resolved": 30}


def test_a_line_of_syslog_is_that_of_rfc_5424() -> None:
    """The line has facility and severity, time, escaped structured data, and UTF-8 with its mark."""
    odd = IncidentUpdate("opened", Alert('a"b]c\\d\n', "failure", 1.0, "größer \u0007"), 1, 1.0)
    line = syslog_line(Message("3" * 32, "opened", 1790000003.25, (odd,), {"opened": 1}), "daemon", "gns1", 42)
    assert line == (
        b"<25>1 2026-09-21T14:13:23.250Z gns1 opengnssd 42 opened "
        b'[opengns@32473 message="' + b"3" * 32 + b'" event="opened" incident="a\\"b\\]c\\\\d\\\\u000a"] '
        b"\xef\xbb\xbf" + "ALERT: größer \\u0007".encode()
    )
    long = IncidentUpdate("opened", Alert("x" * 900, "failure", 1.0, "ö" * 3000), 1, 1.0)
    cut = syslog_line(Message("3" * 32, "opened", 1.0, (long,), {}), "local7", "gns1", 42)
    assert cut.startswith(b"<185>1 ") and len(cut) <= OCTETS_MAX
    cut.decode()


def test_syslog_goes_to_the_daemon_of_this_machine(receivers: Receivers, tmp_path: Path, stack: ExitStack) -> None:
    """Unix sockets, datagrams and streams with a length prefix work; a missing daemon leads to a retry."""
    path = tmp_path / "log"
    absent = receivers.deliver(way="syslog", target=f"unix:{path}")
    assert absent is not None and not absent.final and "No such file" in str(absent)
    sink = LogSink(str(path))
    stack.callback(sink.close)
    assert receivers.deliver(way="syslog", target=f"unix:{path}") is None
    assert re.match(rb"<25>1 \S+ gns1 opengnssd \d+ opened \[", sink.line())
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind((HERE, 0))
    assert receivers.deliver(way="syslog", target=f"udp:{HERE}:{udp.getsockname()[1]}", facility="local0") is None
    assert udp.recv(9999).startswith(b"<129>1 ")
    tcp = stack.enter_context(socket.create_server((HERE, 0)))
    target = f"tcp:{HERE}:{tcp.getsockname()[1]}"
    assert receivers.deliver(way="syslog", target=target) is None
    accepted, _ = tcp.accept()
    size, _, line = accepted.makefile("rb").read().partition(b" ")
    assert int(size) == len(line) and line.startswith(b"<25>1 ")


def test_syslog_over_tls_checks_whom_it_talks_to(receivers: Receivers, stack: ExitStack) -> None:
    """RFC 5425: the receiver's certificate is verified."""
    tcp = stack.enter_context(socket.create_server((HERE, 0)))
    context = receivers.tls("logs.example", HERE)
    got: list[bytes] = []

    def take() -> None:
        for _ in range(2):
            accepted, _ = tcp.accept()
            try:
                with context.wrap_socket(accepted, server_side=True) as secured:
                    got.append(secured.recv(9999))
                    while secured.recv(9999):
                        pass
            except OSError:
                got.append(b"")

    threading.Thread(target=take, daemon=True).start()
    target = f"tls:{HERE}:{tcp.getsockname()[1]}"
    assert receivers.deliver(way="syslog", target=target, authority=str(receivers.trusted)) is None
    unknown = receivers.deliver(way="syslog", target=target)
    assert unknown is not None and not unknown.final
    assert b" opengnssd " in got[0]


@pytest.mark.parametrize(("status", "final"), [(1, True), (75, False)])
def test_a_command_says_by_its_status_whether_it_wants_to_be_run_again(
    thread: ReactorThread, status: int, final: bool
) -> None:
    """75 is the temporary failure of sysexits.h; any other status is logged."""
    deliver: Callable[[Message], Deferred[None]] = command_channel(
        thread.reactor, ("sh", "-c", f"exit {status}"), "gns1"
    )
    with pytest.raises(DeliveryFailed) as told:
        thread.call(_reaping, thread.reactor, lambda _: deliver(OPENED))
    assert told.value.final is final

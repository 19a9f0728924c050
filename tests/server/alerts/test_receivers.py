"""Alerts over an hour of virtual time at real receivers: an HTTP server and an SMTP server, on real sockets.

The server, its store and its clock are the simulation's; each attempt goes out through the channel that a section
[[server.alert]] makes, and is over before virtual time goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import Envelope, Session
from twisted.internet.defer import Deferred, fail, succeed

from compass.daemons.alerts.channels import alert_channels
from compass.daemons.config.alerts import AlertSettings
from compass.model.requests import Incident, Ways
from compass.model.rules.draft import Principal
from compass.server.alerts.notifier import DeliveryFailed
from compass.server.alerts.outbox import DIGEST_NEWS_MAX, PAUSE_SECONDS_MAX, PER_MINUTE, Message
from tests.e2e.sinks import SECRET, HttpSink, MailSink, is_genuine
from tests.server.conftest import Uss
from tests.support.installation import free_port
from tests.support.reactor_thread import ReactorThread

HERE = "127.0.0.1"
HOUR = 3600.0
GREYLISTED_SECONDS = 300.0
"""Postgrey's own default."""
BODY_OCTETS_MAX = 16_384
"""More than a message about ten thousand incidents has."""


class Greylisting(MailSink):
    """An SMTP server that takes nothing for a stranger before five minutes are over."""

    def __init__(self, address: str, port: int, now: Callable[[], float]) -> None:
        super().__init__(address, port)
        self._now = now
        self._known: dict[str, float] = {}

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        if self._now() - self._known.setdefault(address, self._now()) < GREYLISTED_SECONDS:
            self.asked += 1
            return "450 4.2.0 Recipient address rejected: Greylisted"
        return await super().handle_RCPT(server, session, envelope, address, options)


class Outside:
    """A simulated server whose one channel leads to a real socket."""

    def __init__(self, world: Uss, thread: ReactorThread, directory: Path, stack: ExitStack) -> None:
        self.world, self.stack = world, stack
        self.port = free_port()
        self.attempts = 0
        self._thread = thread
        self._secret = directory / "secret"
        self._secret.write_bytes(SECRET)
        world.server()
        world.admin()
        [teller] = world.servers["gns1"].nameserver.components.alerts._channels
        teller._outbox._per_minute = PER_MINUTE

    def by(self, **settings: Any) -> None:
        """Send messages through this channel from now on."""
        [way] = alert_channels(self._thread.reactor, (), (AlertSettings(**settings),), "gns1")

        def receiving(message: Message) -> Deferred[None]:
            self.attempts += 1
            try:
                self._thread.call(way.deliver, message)
            except DeliveryFailed as problem:
                return fail(problem)
            return succeed(None)

        self.world.receiving = receiving

    def by_webhook(self) -> None:
        self.by(way="webhook", url=f"http://{HERE}:{self.port}/hook", secret_file=str(self._secret))

    def by_mail(self) -> None:
        self.by(way="mail", to=("ops@example.org",), sender="gns@example.org", relay=f"{HERE}:{self.port}")

    def hook(self) -> HttpSink:
        sink = HttpSink(HERE, self.port)
        self.stack.callback(sink.close)
        return sink

    def mail(self, sink: MailSink) -> None:
        self.stack.callback(sink.close)

    def incidents(self, *names: str, over: bool = False) -> None:
        """Begin incidents, or end them, all at once."""
        commits, asker = self.world.servers["gns1"].nameserver.commits, Principal("server", "gns1", "")
        text = "" if over else "it is down"
        for done in [commits.submit(Incident(f"failure {name}", text), asker) for name in names]:
            self.world.wait(done)
        self.world.run(0.001)

    def pending(self) -> int:
        [way] = self.world.admin().ask(Ways()).ways
        return int(way.pending)


@pytest.fixture(scope="module")
def thread() -> Iterator[ReactorThread]:
    thread = ReactorThread()
    yield thread
    thread.stop()


@pytest.fixture
def outside(world: Uss, thread: ReactorThread, tmp_path: Path) -> Iterator[Outside]:
    with ExitStack() as stack:
        yield Outside(world, thread, tmp_path, stack)


def test_a_webhook_that_is_down_for_an_hour(outside: Outside) -> None:
    """Bad input: "A webhook that is down for an hour".

    It is asked a few times, and when it is back it gets one message for each incident: for what is over by then one
    that says so, for what is still open one now and one at its end. Then nothing any more.
    """
    outside.by_webhook()
    outside.incidents("a")
    outside.incidents("b")
    outside.world.run(HOUR / 2)
    outside.incidents("a", over=True)
    outside.world.run(HOUR / 2)
    assert 12 <= outside.attempts <= 40 and outside.pending() == 2
    sink = outside.hook()
    outside.world.run(PAUSE_SECONDS_MAX)
    assert [(item["event"], item["id"]) for item in sink.taken] == [("passed", "failure a"), ("opened", "failure b")]
    outside.incidents("b", over=True)
    outside.world.run(HOUR)
    assert [(item["event"], item["id"]) for item in sink.taken[2:]] == [("resolved", "failure b")]
    assert sink.seen == sink.taken and len({item["message"] for item in sink.seen}) == 3
    assert all(is_genuine(SECRET, headers, body) for headers, body in zip(sink.headers, sink.bodies, strict=True))


def test_a_mail_server_that_greylists(outside: Outside) -> None:
    """Bad input: "a mail server that greylists".

    One mail for the beginning arrives some minutes after the server would take it, one for the end at once.
    """
    began = outside.world.now()
    sink = Greylisting(HERE, outside.port, outside.world.now)
    outside.mail(sink)
    outside.by_mail()
    outside.incidents("a")
    outside.world.run(GREYLISTED_SECONDS - 1.0)
    assert sink.mails == [] and 5 <= sink.asked <= 12 and outside.pending() == 1
    outside.world.until(lambda: bool(sink.mails), PAUSE_SECONDS_MAX + 1.0)
    assert outside.world.now() - began >= GREYLISTED_SECONDS
    outside.incidents("a", over=True)
    outside.world.run(HOUR)
    assert [mail["Subject"] for mail in sink.mails] == ["[gns1] ALERT: it is down", "[gns1] over: it is down"]
    assert sink.mails[1]["In-Reply-To"] == sink.mails[0]["Message-ID"] != sink.mails[1]["Message-ID"]
    assert sink.recipients == ["ops@example.org"] * 2 and outside.pending() == 0


@pytest.mark.parametrize("down", [False, True])
def test_ten_thousand_alerts_at_once(outside: Outside, down: bool) -> None:
    """Bad input: "ten thousand alerts at once".

    Whether the receiver is there or comes later: few messages, none of them long, and each incident is counted once
    when it begins and once when it is over.
    """
    names = [f"{number}" for number in range(10_000)]
    outside.by_webhook()
    sink = None if down else outside.hook()
    for over, event in ((False, "opened"), (True, "resolved")):
        outside.incidents(*names, over=over)
        outside.world.run(60.0)
        sink = sink or outside.hook()
        already = len(sink.taken) if over else 0
        outside.world.run(PAUSE_SECONDS_MAX)
        counts: Counter[str] = Counter()
        for item in sink.taken:
            counts.update(item.get("counts") or {item["event"]: 1})
        assert counts[event] == len(names) and outside.pending() == 0
        assert len(sink.taken) - already <= PER_MINUTE + 2
    assert counts == {"opened": len(names), "resolved": len(names)}
    assert sink is not None
    assert max(len(item.get("incidents", ())) for item in sink.taken) == DIGEST_NEWS_MAX
    assert max(map(len, sink.bodies)) <= BODY_OCTETS_MAX

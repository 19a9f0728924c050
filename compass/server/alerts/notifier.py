"""Notification of administrators: each incident once through every configured channel, and in the log.

Which incident is open is a row of the catalogue, and that it began or ended is a change in the log. `Outbox` decides
what is sent and when; what is here keeps its time, sends, and records the progress of each channel. Of several servers
one sends through a channel (`ClusterView.notifier_of`); when it stops, another continues from the recorded progress.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from compass.model.catalogue.catalogue import Catalogue
from compass.model.cluster import ClusterView
from compass.model.interfaces import Environment, StoreUnavailable
from compass.model.limits import ALERT_TEST_SECONDS
from compass.model.replies import Refusal, WayList, WayStatus, WaysTried, WayTried
from compass.model.requests import TryWays
from compass.model.rows import Alert, Change
from compass.server.alerts.outbox import PER_MINUTE, Message, Outbox
from compass.server.alerts.render import render_subject
from compass.server.cluster.membership import ClusterAccess
from compass.server.commit.replica import Replica
from compass.system.timers import Timers

ATTEMPT_SECONDS = 60.0
"""Time of one attempt: a mail server may check an unknown sender for half a minute."""
TAKE_OVER_SECONDS = 3.0
"""Before this server sends in another one's place: that one learns of it within a beat, and records what it sent."""
RECALL_AGAIN_SECONDS = 5.0
"""Pause when the store does not answer what has been sent; nothing is sent meanwhile."""
PAGE = 5_000
"""Changes read at once of those that have not been sent: 2 MB."""
NOTE_EVERY_SECONDS = 60.0
"""Between records of the progress although nothing was sent, so that little is read at the next start."""
NOTE_REVISIONS = 1_000
"""Growth of the log in changes below which such a record is left out."""


class DeliveryFailed(Exception):
    """Why a message did not arrive: one sentence without any secret.

    `final`: the receiver rejects it for good. `perhaps`: it may have arrived, but the receiver has not confirmed it.
    """

    def __init__(self, why: str, *, final: bool = False, perhaps: bool = False) -> None:
        super().__init__(why)
        self.final = final
        self.perhaps = perhaps


class Channel(msgspec.Struct, frozen=True):
    """A configured receiver of messages to administrators."""

    name: str
    kind: str
    """`mail`, `webhook`, `syslog`, `command`."""
    deliver: Callable[[Message], Deferred[None]]
    """Makes one attempt. Fails with DeliveryFailed; ends soon when it is cancelled."""
    kinds: tuple[str, ...] = ()
    """Kinds of incidents that are sent; none: all."""
    per_minute: int = PER_MINUTE


class NotifierDependencies(msgspec.Struct, frozen=True):
    """Parts of the server that a notifier uses."""

    environment: Environment
    store: str
    """The store's id."""
    access: ClusterAccess
    replica: Replica
    cluster: ClusterView


class ChannelNotifier:
    """Sends through one channel while this server owns it."""

    log = Logger()

    def __init__(self, around: NotifierDependencies, channel: Channel) -> None:
        self.channel = channel
        self.is_owner = False
        """True if this server sends through the channel."""
        self._around = around
        self._now = around.environment.now
        self._clock = around.environment.clock
        self._outbox = Outbox(around.store, around.environment, channel.per_minute)
        self._meanwhile: list[Change] | None = []
        """Changes since ownership began; None once it is known what was sent before."""
        self._recorded = 0
        """Revision through which everything is recorded as sent."""
        self._is_running = False
        self._sending: set[Deferred[Any]] = set()
        self._timers = Timers(self._clock)

    def ownership_changed(self) -> None:
        """Begin or end sending, as the servers over the store divide the channels now."""
        cluster = self._around.cluster
        is_owner = cluster.notifier_of(self.channel.name) == cluster.id
        if is_owner == self.is_owner:
            return
        self.is_owner = is_owner
        self._outbox.forget()
        self._meanwhile = []
        if is_owner:
            self._timers.start("recall", 0.0 if cluster.is_alone else TAKE_OVER_SECONDS, self._recall)
        else:
            self._timers.cancel_all()

    def stop(self) -> None:
        """End sending. A message under way may arrive: the next owner repeats it, with the same id."""
        self.is_owner = False
        self._timers.cancel_all()
        for sending in list(self._sending):
            sending.cancel()

    def committed(self, change: Change, alert: Alert) -> None:
        """Put the beginning or end of an incident, at any server, into the outbox."""
        if not self.is_owner or not self._concerns(alert):
            return
        if self._meanwhile is not None:
            self._meanwhile.append(change)
            return
        self._outbox.committed(change)
        self._send_pending()

    def status(self) -> WayStatus:
        """Return the channel's state as this server knows it."""
        state = self._outbox.state()
        return WayStatus(
            self.channel.name,
            self.channel.kind,
            self.is_owner,
            state.pending,
            state.attempts,
            state.told_at,
            state.failed_at,
            state.problem,
        )

    async def send_test(self) -> WayTried:
        """Send a test message at once, before all that is pending. Returns the outcome."""
        message = Message(secrets.token_hex(16), "test", self._now())
        try:
            await self._deliver(message, ALERT_TEST_SECONDS)
        except DeliveryFailed as problem:
            return WayTried(self.channel.name, self.channel.kind, str(problem))
        return WayTried(self.channel.name, self.channel.kind)

    def _concerns(self, alert: Alert) -> bool:
        return not self.channel.kinds or alert.kind in self.channel.kinds

    # Progress.

    def _recall(self) -> None:
        Deferred.fromCoroutine(self._find_unsent()).addErrback(self._recall_failed)

    def _recall_failed(self, failure: Failure) -> None:
        if not failure.check(StoreUnavailable):
            self.log.failure("the progress of {channel} is not known", failure, channel=self.channel.name)
        self._timers.start("recall", RECALL_AGAIN_SECONDS, self._recall)

    async def _find_unsent(self) -> None:
        """Read the progress and the incidents since, put them into the outbox, and begin sending."""
        access = self._around.access
        recorded: int | None = await access.run(access.store.alert_progress, self.channel.name)
        changes: list[Change] = []
        floor, after = 0, recorded
        while after is not None:
            page, floor = await access.run(access.store.incidents_after, after, PAGE)
            changes += page
            after = page[-1].revision if len(page) == PAGE else None
        if not self.is_owner or self._meanwhile is None:
            return
        meanwhile, self._meanwhile = self._meanwhile, None
        if recorded is None or recorded + 1 < floor:
            self._restart_from_open(recorded)
        else:
            self._recorded = recorded
            for change in (*changes, *meanwhile):
                if isinstance(change.row, Alert) and self._concerns(change.row):
                    self._outbox.committed(change)
        self._record(1)
        self._timers.start("record", NOTE_EVERY_SECONDS, self._record_later)
        self._send_pending()

    def _restart_from_open(self, recorded: int | None) -> None:
        """Put only what is open now into the outbox: what was sent is not known, or no longer in the log."""
        if recorded is not None:
            text = "the update log does not reach back to revision {recorded}: {channel} sends only what is still open"
            self.log.warn(text, recorded=recorded, channel=self.channel.name)
        catalogue = self._around.replica.catalogue
        for alert in sorted(catalogue.alerts.values(), key=lambda alert: alert.opened_at):
            if self._concerns(alert):
                self._outbox.is_open(alert, catalogue.revision)

    def _record_later(self) -> None:
        self._record(NOTE_REVISIONS)
        self._timers.start("record", NOTE_EVERY_SECONDS, self._record_later)

    def _record(self, least: int) -> None:
        """Record the progress if it has grown by at least this many revisions."""
        through = self._outbox.delivered_through(self._around.replica.catalogue.revision)
        if through < self._recorded + least:
            return
        self._recorded = through
        access = self._around.access
        recorded = access.run(access.store.record_alert_progress, self.channel.name, through)
        # If the store is unavailable the next message records it; a server that stops before sends something twice.
        recorded.addErrback(lambda failure: failure.trap(StoreUnavailable) and None)

    # Sending.

    def _send_pending(self) -> None:
        if self.is_owner and not self._is_running and self._meanwhile is None:
            self._is_running = True
            Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        while self.is_owner and (message := self._outbox.next(self._clock.seconds(), self._now())):
            try:
                await self._deliver(message, ATTEMPT_SECONDS)
            except DeliveryFailed as problem:
                if self.is_owner:
                    self._not_delivered(message, problem)
            else:
                self._delivered(message)
        self._is_running = False
        at = self._outbox.deadline(self._clock.seconds())
        if self.is_owner and at is not None:
            self._timers.start("next", max(at - self._clock.seconds(), 0.0), self._send_pending)

    def _delivered(self, message: Message) -> None:
        attempts = self._outbox.state().attempts
        self._outbox.delivered(self._clock.seconds(), self._now())
        name = self.channel.name
        if message.event == "digest":
            self.log.info("{channel}: sent in one message: {text}", channel=name, text=render_subject(message))
        if attempts:
            self.log.info("{channel} works again, after {n} failed attempts", channel=name, n=attempts)
        if self.is_owner:
            self._record(1)

    def _not_delivered(self, message: Message, problem: DeliveryFailed) -> None:
        now, time, why = self._clock.seconds(), self._now(), str(problem)
        name = self.channel.name
        if problem.final:
            self._outbox.rejected(now, time, why)
            text = "{channel}: message dropped, the receiver rejected it: {what} ({why})"
            self.log.error(text, channel=name, what=render_subject(message), why=why)
            self._record(1)
            return
        pause = self._outbox.retry_later(now, time, why, perhaps=problem.perhaps)
        pending = self._outbox.state().pending
        text = "{channel} failed: {why}; next attempt in {pause:.0f} s, {n} incident{s} pending"
        self.log.warn(text, channel=name, why=why, pause=pause, n=pending, s="s"[: pending != 1])

    async def _deliver(self, message: Message, seconds: float) -> None:
        """Make one attempt. Raises DeliveryFailed for every kind of failure."""
        delivered: Deferred[None] = maybeDeferred(self.channel.deliver, message)
        self._sending.add(delivered)
        clock: Any = self._clock
        delivered.addTimeout(seconds, clock)
        try:
            await delivered
        except DeliveryFailed:
            raise
        except TimeoutError:
            raise DeliveryFailed(f"no answer within {seconds:g} s", perhaps=True) from None
        except CancelledError:
            raise DeliveryFailed("this server stops", perhaps=True) from None
        except OSError as error:
            raise DeliveryFailed(error.strerror or str(error)) from None
        except Exception as error:
            self.log.failure("{channel}: a defect prevented a message", channel=self.channel.name)
            raise DeliveryFailed(f"defect: {type(error).__name__}", final=True) from None
        finally:
            self._sending.discard(delivered)


class AlertNotifier:
    """All channels, in the order of the configuration."""

    log = Logger()

    def __init__(self, around: NotifierDependencies, channels: tuple[Channel, ...]) -> None:
        self._channels = tuple(ChannelNotifier(around, channel) for channel in channels)
        self._is_testing = False

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """Process the beginning or end of an incident. The server that committed it logs it."""
        alert = change.row
        if not isinstance(alert, Alert):
            return
        if own and change.removed:
            self.log.info("alert over: {text}", text=alert.text)
        elif own:
            self.log.warn("alert: {text}", text=alert.text)
        for notifier in self._channels:
            notifier.committed(change, alert)

    def ownership_changed(self) -> None:
        """Begin or end sending: this server has learned which others run, or these have changed."""
        for notifier in self._channels:
            notifier.ownership_changed()

    def stop(self) -> None:
        """End sending."""
        for notifier in self._channels:
            notifier.stop()

    def status(self) -> WayList:
        """Return the state of every channel."""
        return WayList(tuple(notifier.status() for notifier in self._channels))

    async def send_test(self, request: TryWays) -> WaysTried | Refusal:
        """Send a test message through all channels, or those of one name: each recipient of mail is a channel."""
        name = request.name
        chosen = [one for one in self._channels if name in ("", one.channel.name, one.channel.name.partition(" ")[0])]
        if not chosen:
            return Refusal("unknown-way", self._unknown(name))
        if self._is_testing:
            return Refusal("busy", "a test of the channels is running already", retry_after_seconds=ALERT_TEST_SECONDS)
        self._is_testing = True
        try:
            tests = [Deferred.fromCoroutine(notifier.send_test()) for notifier in chosen]
            return WaysTried(tuple(await gatherResults(tests)))
        finally:
            self._is_testing = False

    def _unknown(self, name: str) -> str:
        there = ", ".join(notifier.channel.name for notifier in self._channels)
        if there:
            return f"no channel is called {name!r}; there are: {there}"
        text = "no channel is configured; write a section [[server.alert]] into the server's file"
        return f"{text}, see docs/reference/alerts.md"

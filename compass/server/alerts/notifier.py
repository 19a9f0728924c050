"""Tell the administrators: once per incident by every configured way, and in the log.

Which incident is open is a row of the catalogue, and that it began or ended is a change in the log. `Outbox` decides
what is told and when; what is here keeps its time, sends, and writes down how far each way is. Of several servers one
tells by a way (`Neighbourhood.teller`); when it dies another one goes on after what was written down.
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
from compass.model.cluster import ClusterStore
from compass.model.interfaces import Clock, StoreUnavailable, Timer
from compass.model.replies import Refusal, WayList, WayStatus, WaysTried, WayTried
from compass.model.requests import TryWays
from compass.model.rows import Alert, Change
from compass.server.alerts.outbox import PER_MINUTE, Message, Outbox
from compass.server.alerts.render import render_subject
from compass.server.commit.store_access import RunInDatabase

ATTEMPT_SECONDS = 60.0
"""Then an attempt counts as failed: a mail server may think about a stranger for half a minute."""
TRY_SECONDS = 20.0
"""The same when an administrator waits for the outcome: the reply has 30 s (opengnsp.md, "Timers")."""
TAKE_OVER_SECONDS = 3.0
"""Before this server tells in another one's place: that one hears of it within a beat, and writes down what it told."""
RECALL_AGAIN_SECONDS = 5.0
"""Pause when the store does not say what has been told; nothing is told meanwhile."""
PAGE = 5_000
"""Changes read at once of what has not been told: 2 MB."""
NOTE_EVERY_SECONDS = 60.0
"""How often it is written down how far all is told although nothing was, so that little is read at the next start."""
NOTE_REVISIONS = 1_000
"""Only when the log has grown by so many changes."""


class DeliveryFailed(Exception):
    """Why a message did not arrive: one sentence without any secret.

    `final`: it never will. `perhaps`: it may have arrived, though nobody said so.
    """

    def __init__(self, why: str, *, final: bool = False, perhaps: bool = False) -> None:
        super().__init__(why)
        self.final = final
        self.perhaps = perhaps


class Channel(msgspec.Struct, frozen=True):
    """One way to administrators."""

    name: str
    kind: str
    """`mail`, `webhook`, `syslog`, `command`."""
    deliver: Callable[[Message], Deferred[None]]
    """One attempt. Fails with Undelivered; ends soon when it is cancelled."""
    kinds: tuple[str, ...] = ()
    """Of the incidents to be told; none: all."""
    per_minute: int = PER_MINUTE


class NotifierDependencies(msgspec.Struct, frozen=True):
    """What a teller needs to know and to use."""

    clock: Clock
    now: Callable[[], float]
    random: Callable[[], float]
    store: str
    """Its id."""
    roster: ClusterStore
    beside: RunInDatabase
    catalogue: Callable[[], Catalogue]
    is_ours: Callable[[str], bool]
    """Whether this server tells by the way of that name."""
    is_alone: Callable[[], bool]
    """Whether no other server lives."""


class ChannelNotifier:
    """Tells by one way."""

    log = Logger()

    def __init__(self, around: NotifierDependencies, way: Channel) -> None:
        self.way = way
        self.keeps = False
        """This server tells by it."""
        self._around = around
        self._outbox = Outbox(around.store, around.random, way.per_minute)
        self._meanwhile: list[Change] | None = []
        """What happens until it is known what has been told; None: that is known."""
        self._noted = 0
        self._running = False
        self._sending: set[Deferred[Any]] = set()
        self._timers: dict[str, Timer] = {}

    def regroup(self) -> None:
        """Other servers came or went: begin or end telling."""
        keeps = self._around.is_ours(self.way.name)
        if keeps == self.keeps:
            return
        self.keeps = keeps
        self._outbox.forget()
        self._meanwhile = []
        if keeps:
            self._later("recall", 0.0 if self._around.is_alone() else TAKE_OVER_SECONDS, self._recall)
        else:
            self._cancel()

    def stop(self) -> None:
        """Tell no more. What is under way may have been told: whoever tells next says it again, with the same id."""
        self.keeps = False
        self._cancel()
        for sending in list(self._sending):
            sending.cancel()

    def committed(self, change: Change, alert: Alert) -> None:
        """An incident has begun or ended, at whichever server."""
        if not self.keeps or not self._concerns(alert):
            return
        if self._meanwhile is not None:
            self._meanwhile.append(change)
            return
        self._outbox.committed(change)
        self._go()

    def status(self) -> WayStatus:
        """How it does, as far as this server knows."""
        standing = self._outbox.standing()
        return WayStatus(
            self.way.name,
            self.way.kind,
            self.keeps,
            standing.pending,
            standing.attempts,
            standing.told_at,
            standing.failed_at,
            standing.problem,
        )

    async def attempt(self) -> WayTried:
        """Send a message to try it, at once, whatever is waiting."""
        message = Message(secrets.token_hex(16), "test", self._around.now())
        try:
            await self._deliver(message, TRY_SECONDS)
        except DeliveryFailed as problem:
            return WayTried(self.way.name, self.way.kind, str(problem))
        return WayTried(self.way.name, self.way.kind)

    def _concerns(self, alert: Alert) -> bool:
        return not self.way.kinds or alert.kind in self.way.kinds

    # What has not been told.

    def _recall(self) -> None:
        Deferred.fromCoroutine(self._find_untold()).addErrback(self._recall_failed)

    def _recall_failed(self, failure: Failure) -> None:
        if not failure.check(StoreUnavailable):
            self.log.failure("what was told by {way} is not known", failure, way=self.way.name)
        self._later("recall", RECALL_AGAIN_SECONDS, self._recall)

    async def _find_untold(self) -> None:
        roster, beside, name = self._around.roster, self._around.beside, self.way.name
        told: int | None = await beside(roster.alert_progress, name)
        changes: list[Change] = []
        floor, after = 0, told
        while after is not None:
            page, floor = await beside(roster.incidents_after, after, PAGE)
            changes += page
            after = page[-1].revision if len(page) == PAGE else None
        if not self.keeps or self._meanwhile is None:
            return
        meanwhile, self._meanwhile = self._meanwhile, None
        catalogue = self._around.catalogue()
        if told is None or told + 1 < floor:
            if told is not None:
                text = "the update log does not reach back to revision {told}: by {way} only what is still open is told"
                self.log.warn(text, told=told, way=name)
            for alert in sorted(catalogue.alerts.values(), key=lambda alert: alert.opened_at):
                if self._concerns(alert):
                    self._outbox.is_open(alert, catalogue.revision)
        else:
            self._noted = told
            for change in (*changes, *meanwhile):
                if isinstance(change.row, Alert) and self._concerns(change.row):
                    self._outbox.committed(change)
        self._note(1)
        self._later("note", NOTE_EVERY_SECONDS, self._note_later)
        self._go()

    def _note_later(self) -> None:
        self._note(NOTE_REVISIONS)
        self._later("note", NOTE_EVERY_SECONDS, self._note_later)

    def _note(self, least: int) -> None:
        """Write down how far all has been told, when that is so many revisions further."""
        told = self._outbox.delivered_through(self._around.catalogue().revision)
        if told < self._noted + least:
            return
        self._noted = told
        noted = self._around.beside(self._around.roster.record_alert_progress, self.way.name, told)
        # A store that is away is told with the next message; until then something would be told twice.
        noted.addErrback(lambda failure: failure.trap(StoreUnavailable) and None)

    # Sending.

    def _go(self) -> None:
        if self.keeps and not self._running and self._meanwhile is None:
            self._running = True
            Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        clock = self._around.clock
        while self.keeps and (message := self._outbox.next(clock.seconds(), self._around.now())):
            try:
                await self._deliver(message, ATTEMPT_SECONDS)
            except DeliveryFailed as problem:
                if self.keeps:
                    self._undelivered(message, problem)
            else:
                self._arrived(message)
        self._running = False
        at = self._outbox.deadline(clock.seconds())
        if self.keeps and at is not None:
            self._later("next", max(at - clock.seconds(), 0.0), self._go)

    def _arrived(self, message: Message) -> None:
        attempts = self._outbox.standing().attempts
        self._outbox.delivered(self._around.clock.seconds(), self._around.now())
        if message.event == "digest":
            self.log.info("told in one message by {way}: {text}", way=self.way.name, text=render_subject(message))
        if attempts:
            self.log.info("{way} works again, after {n} attempts in vain", way=self.way.name, n=attempts)
        if self.keeps:
            self._note(1)

    def _undelivered(self, message: Message, problem: DeliveryFailed) -> None:
        now, time, why = self._around.clock.seconds(), self._around.now(), str(problem)
        name = self.way.name
        if problem.final:
            self._outbox.rejected(now, time, why)
            self.log.error(
                "{way} failed, and this is told no more: {what} ({why})",
                way=name,
                what=render_subject(message),
                why=why,
            )
            self._note(1)
            return
        pause = self._outbox.retry_later(now, time, why, perhaps=problem.perhaps)
        pending = self._outbox.standing().pending
        text = "{way} failed: {why}; again in {pause:.0f} s, {n} incident{s} to be told"
        self.log.warn(text, way=name, why=why, pause=pause, n=pending, s="s"[: pending != 1])

    async def _deliver(self, message: Message, seconds: float) -> None:
        """One attempt. Raises Undelivered whatever is wrong."""
        delivered: Deferred[None] = maybeDeferred(self.way.deliver, message)
        self._sending.add(delivered)
        clock: Any = self._around.clock
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
            self.log.failure("a message by {way} met a defect", way=self.way.name)
            raise DeliveryFailed(f"defect: {type(error).__name__}", final=True) from None
        finally:
            self._sending.discard(delivered)

    def _later(self, what: str, seconds: float, call: Callable[[], None]) -> None:
        known = self._timers.get(what)
        if known is not None and known.active():
            known.cancel()
        self._timers[what] = self._around.clock.callLater(seconds, call)

    def _cancel(self) -> None:
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()


class AlertNotifier:
    """All ways."""

    log = Logger()

    def __init__(self, around: NotifierDependencies, ways: tuple[Channel, ...]) -> None:
        self._tellers = tuple(ChannelNotifier(around, way) for way in ways)
        self._trying = False

    def committed(self, change: Change, *, own: bool) -> None:
        """An incident has begun or ended. The server that committed it logs it."""
        alert = change.row
        if not isinstance(alert, Alert):
            return
        if own and change.removed:
            self.log.info("alert over: {text}", text=alert.text)
        elif own:
            self.log.warn("alert: {text}", text=alert.text)
        for teller in self._tellers:
            teller.committed(change, alert)

    def regroup(self) -> None:
        """See who tells, now that this server knows the others, or these have changed."""
        for teller in self._tellers:
            teller.regroup()

    def stop(self) -> None:
        """Tell no more."""
        for teller in self._tellers:
            teller.stop()

    def ways(self) -> WayList:
        """How they do, in the order of the configuration."""
        return WayList(tuple(teller.status() for teller in self._tellers))

    def _unknown(self, name: str) -> str:
        there = ", ".join(teller.way.name for teller in self._tellers)
        if there:
            return f"no way is called {name!r}; there are: {there}"
        return (
            "no way is configured; write a section [[server.alert]] (docs/reference/alerts.md) into the server's file"
        )

    async def attempt(self, request: TryWays) -> WaysTried | Refusal:
        """Send a message to try the ways, or those of one name: a mail's recipients are ways of the same name."""
        name = request.name
        chosen = [one for one in self._tellers if name in ("", one.way.name, one.way.name.partition(" ")[0])]
        if not chosen:
            return Refusal("unknown-way", self._unknown(name))
        if self._trying:
            return Refusal("busy", "the ways are being tried already", retry_after_seconds=TRY_SECONDS)
        self._trying = True
        try:
            tried = [Deferred.fromCoroutine(teller.attempt()) for teller in chosen]
            return WaysTried(tuple(await gatherResults(tried)))
        finally:
            self._trying = False

"""Registering and deregistering for local programs, and keeping servers informed of it.

A program's request goes into the journal, then to a server; while no server can be asked, it is pending. Each session
begins by delivering what is due and by registering again what is registered, with its epoch: no listener flaps because
a server or this daemon restarted. `states` decides what follows from what; the registrar carries it out.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger, LogLevel

from compass.agent.registration import actions, states
from compass.agent.registration.entries import Entries, RegistrarDependencies
from compass.agent.registration.host_address import HostAddress
from compass.agent.registration.journal import (
    Instance,
    JournalWriteFailed,
    Registration,
    deregister_request,
    doubt_request,
    outcome_of,
    parse_key,
    register_request,
)
from compass.agent.registration.own_checks import OwnChecks
from compass.agent.registration.process_watch import CannotWatch, NoSuchProcess
from compass.agent.registration.recovery import not_held_again, resume
from compass.agent.registration.sharing import NamedProcesses, SharedRegistrations
from compass.agent.replica.sync import ReplicaSync
from compass.agent.upstream.answer_soon import answer_soon
from compass.agent.upstream.refusals import TRANSIENT, is_gone, refusal_of
from compass.agent.upstream.upstream import Upstream
from compass.model.backoff import Backoff
from compass.model.host_api import LocalDeregister, LocalDrain, LocalLoad, LocalRegister, Outcome
from compass.model.names import InvalidName
from compass.model.replies import Deregistered, Refusal, Registered, Reply
from compass.model.requests import Drain
from compass.model.rows import ListenerKey
from compass.system.timers import Timers

HOLD_GRACE_SECONDS = 30.0
"""After the daemon's own restart: time within which a program that held its registration open must come back."""

Answer = Outcome | Refusal


class Registrar:
    """Owner of this host's registrations."""

    _log = Logger()

    def __init__(
        self,
        parts: RegistrarDependencies,
        checks: OwnChecks,
        server: Upstream,
        subscriptions: ReplicaSync,
        address: HostAddress,
    ) -> None:
        self._parts = parts
        self._address = address
        self._checks = checks
        checks.on_change(self._check_changed)
        self._journal = checks.journal
        self._sharing = SharedRegistrations(checks.journal, parts.process_watch)
        self._entries = Entries(parts, checks, address, self._sharing)
        self._server = server
        self._subscriptions = subscriptions
        self._timers = Timers(parts.clock)
        self._backoff = Backoff(parts.random)
        self._watches = NamedProcesses(parts.process_watch, parts.clock, self._process_ended)
        self._held: dict[Instance, Instance] = {}
        """Instance as its open connection knows it -> instance now; they differ after a renewal."""
        self._asked: set[Instance] = set()
        """Instances that a server has answered for, or is being asked for, on this session."""
        self.verifying: list[ListenerKey] = []
        """Listeners for which a server is asked to register an instance that the journal does not hold yet."""
        self._late: set[Instance] = set()
        """Instances whose program has got `pending` although a server was asked and has not answered yet."""
        self.on_registered: Callable[[Registration], None] | None = None
        """Function that gets each entry that a server has registered."""
        self._has_session = False

    # Lifecycle --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Watch the processes of the journal again; those that ended meanwhile died."""
        for entry in self._journal.all():
            match resume(entry, self._journal.machine, self._watches.watch):
                case states.ProcessEnded(_, reason):
                    self._process_ended(entry, reason)
                case states.Resumed() as event:
                    self._step(entry.key, event)
            if (now := self._journal.get(entry.key)) is not None and now.state != "leaving":
                self._sharing.watch(now)
        self._checks.start()
        self._timers.start("grace", HOLD_GRACE_SECONDS, self._grace_over)
        self.address_changed("", self._address.current)

    def stop(self) -> None:
        """Stop watching. Nothing is deregistered: the services keep running and stay registered."""
        self._has_session = False
        self._held.clear()
        self._timers.cancel_all()
        self._sharing.stop()
        self._checks.stop()
        self._watches.stop()

    def session_settled(self) -> None:
        """Deliver on a new session what is due, and register again what is registered."""
        self._address.look()
        self._has_session = True
        self._deliver_due()

    def session_ended(self) -> None:
        """Forget what was asked on the session: its answers say nothing about the next one."""
        self._has_session = False
        self._asked.clear()

    def register_again(self, key: ListenerKey) -> None:
        """Register what the journal holds as it is: another host may have replaced it, or that one is over."""
        self._step(key, states.Due())

    # Requests of programs ---------------------------------------------------------------------------------

    def register(self, request: LocalRegister, user: int, proven_first: bool) -> Deferred[Answer]:
        """Function 2.1 for a local program of a user: committed, pending, or refused with nothing left behind.

        Once a server has accepted it, the host watches on its behalf: before that the service may not exist. With
        `proven_first` nothing is written to disk before.
        """
        try:
            key = parse_key(request.service, request.address or self._address.current, request.port)
            if self._journal.is_blocked:
                return succeed(Refusal("store-unavailable", self._journal.problem))
            old = self._journal.get(key)
            if old is None and (full := self._journal.full_for(user)) is not None:
                return succeed(full)
            if request.check is not None and (problem := self._checks.refusal(request.check, key[1])):
                return succeed(Refusal("bad-value", f"check: {problem}"))
            is_held = old is not None and old.instance in self._held.values()
            entry = self._entries.entry_of(request, key, old, user, is_held=is_held)
            after, following = states.step(old, states.RegisterRequested(entry, proven_first))
            if after is entry:
                self._watches.watch(entry)
                self._journal.put(entry)
                self._sharing.watch(entry)
        except InvalidName as problem:
            return succeed(Refusal(problem.code, str(problem)))
        except NoSuchProcess as problem:
            return succeed(Refusal("bad-value", f"{problem}; register with the pid of the process that serves"))
        except CannotWatch as problem:
            return succeed(Refusal("busy", str(problem), retry_after_seconds=1.0))
        except JournalWriteFailed as problem:
            self._watches.unwatch(key)
            if old is not None:
                self._watches.watch_again(old)
            return succeed(Refusal("store-unavailable", str(problem)))
        return self._soon(key, self._carry_out(key, after, following))

    def deregister(self, request: LocalDeregister) -> Deferred[Answer]:
        """Function 2.2 for a local program. An older instance's is refused and leaves the newer one alone (P6)."""
        key = self._entries.key_of(request)
        if isinstance(key, Refusal):
            return succeed(key)
        epoch = self._entries.epoch_of(request, key)
        if (kept := self._sharing.without(key, epoch, request)) is not None:
            self._watches.watch_again(kept)
            return succeed(outcome_of(kept, "up" if kept.state == "registered" else "pending"))
        return self._soon(key, self._step(key, states.DeregisterRequested(key, epoch, request.credential)))

    def report_load(self, request: LocalLoad) -> Deferred[Answer]:
        """Register a listener of this host again as it is, with another load."""
        key = self._entries.key_of(request)
        if isinstance(key, Refusal):
            return succeed(key)
        if not 0 <= request.load <= 1:
            return succeed(Refusal("bad-value", f"load {request.load:g} is no share: from 0 (idle) to 1 (full)"))
        return self._soon(key, self._step(key, states.LoadRequested(key, request.load, request.credential)))

    def _check_changed(self, entry: Registration, check: str, failing: str) -> None:
        self._step(entry.key, states.CheckChanged(entry.epoch, check, failing))

    def drain(self, request: LocalDrain) -> Deferred[Answer]:
        """Stop sending new users to a listener, or send them again; fails if no server can be asked."""
        key = self._entries.key_of(request)
        if isinstance(key, Refusal):
            return succeed(key)

        def answered(reply: Reply) -> Answer:
            if isinstance(reply, Refusal):
                return reply
            return Outcome("draining" if request.draining else "up", *key)

        return self._server.ask(Drain(*key, request.draining, request.credential)).addCallback(answered)

    def address_changed(self, old: str, new: str) -> None:
        """Move every entry whose program named no address to the host's address."""
        for entry, moved in self._entries.moves():
            self._watches.unwatch(entry.key)
            self._watches.watch_again(moved)
            self._sharing.moved(entry, moved)
            self._checks.follow(entry.key, None)
            self._checks.follow(moved.key, moved)
            self._held = {known: moved.instance if now == entry.instance else now for known, now in self._held.items()}
            self._asked.discard(entry.instance)
        if self._has_session:
            self._deliver_due()

    def _soon(self, key: ListenerKey, answer: Deferred[Answer]) -> Deferred[Answer]:
        """Answer `pending` in time if the journal has the request, whatever the server does."""
        entry = self._journal.get(key)
        if answer.called or entry is None or entry.instance not in self._asked:
            return answer

        def late() -> Answer:
            self._late.add(entry.instance)
            return outcome_of(entry, "pending")

        return answer_soon(self._parts.clock, answer, late)

    def connection_closed(self, outcome: Outcome) -> None:
        """End a registration whose connection is closed."""
        key = (outcome.service, outcome.address, outcome.port)
        if (held := self._held.pop((key, outcome.epoch), None)) is not None:
            self._step(held[0], states.ConnectionClosed(held[1], "the connection that held it was closed"))

    # Steps and actions ------------------------------------------------------------------------------------

    def _step(self, key: ListenerKey, event: states.Event) -> Deferred[Answer]:
        """Take one step of a registration. Returns the answer for the program; it never fires if there is none."""
        before = self._journal.get(key)
        after, following = states.step(before, event)
        if after is None and before is not None:
            self._journal.drop(before)
        elif after is not None and after is not before:
            self._journal.note(after)
        return self._carry_out(key, after, following)

    def _carry_out(
        self, key: ListenerKey, entry: Registration | None, following: tuple[actions.Action, ...]
    ) -> Deferred[Answer]:
        answer: Deferred[Answer] = Deferred()
        self._checks.follow(key, entry)
        for action in following:
            match action:
                case actions.Register(attempt):
                    answer = self._register(attempt)
                case actions.Verify(new):
                    self.verifying.append(new.key)
                    answer = self._server.ask(register_request(new)).addCallback(self._verified, new)
                case actions.Deregister(leaving):
                    self._asked.add(leaving.instance)
                    answer = self._server.ask(deregister_request(leaving)).addCallback(self._left, leaving)
                case actions.Doubt(doubted):
                    self._asked.add(doubted.instance)
                    answer = self._server.ask(doubt_request(doubted)).addCallback(self._judged, doubted)
                case actions.DeregisterUnknown(unknown):
                    answer = self._server.ask(deregister_request(unknown)).addCallback(self._unknown_left, unknown)
                case actions.Renew(attempt, known):
                    newer = self._journal.next_epoch(self._parts.now(), known)
                    answer = self._step(key, states.Renewed(attempt, newer))
                case actions.Refuse(refusal):
                    answer = succeed(refusal)
                case actions.RetryLater(epoch, seconds):
                    self._asked.discard((key, epoch))
                    if "retry" not in self._timers:
                        self._timers.start("retry", self._backoff.next(seconds), self._retry)
                case actions.DoubtLater():
                    pause = states.UNVERIFIED_AGAIN_SECONDS * (1 + self._parts.random())
                    self._timers.start_if_idle("doubt", pause, self._doubt_again)
                case actions.Log(level, text):
                    self._log.emit(LogLevel.lookupByName(level), "{text}", text=text)
                case _:
                    self._attend(key, entry, action)
        return answer

    def _attend(self, key: ListenerKey, entry: Registration | None, action: actions.Action) -> None:
        """Carry out an action on the process or the connections of an entry."""
        match action:
            case actions.Watch() if entry is not None:
                self._watches.watch_again(entry)
            case actions.Unwatch():
                self._watches.unwatch(key)
            case actions.Hold() if entry is not None:
                self._held[entry.instance] = entry.instance
            case actions.Rebind(epoch) if entry is not None:
                for connection in [known for known, now in self._held.items() if now == (key, epoch)]:
                    self._held[connection] = entry.instance
            case actions.Release(epoch):
                self._held = {known: now for known, now in self._held.items() if now != (key, epoch)}

    def _register(self, attempt: actions.Attempt) -> Deferred[Answer]:
        self._asked.add(attempt.entry.instance)
        return self._server.ask(register_request(attempt.entry)).addCallback(self._registered, attempt)

    def _registered(self, reply: Reply, attempt: actions.Attempt) -> Answer | Deferred[Answer]:
        entry = attempt.entry
        if entry.instance in self._late:
            self._late.discard(entry.instance)
            attempt = msgspec.structs.replace(attempt, is_late=True)
        if isinstance(reply, Registered):
            self._backoff.reset()
            self._step(entry.key, states.Registered(entry.epoch, reply.warning))
            self._watch_for(entry.service)
            self._subscriptions.trouble_changed()
            if self.on_registered is not None:
                self.on_registered(entry)
            return outcome_of(entry, reply.state, reply.revision)
        refusal = refusal_of(reply)
        if refusal.code in TRANSIENT:
            return self._pending(entry, refusal)
        return self._step(entry.key, states.RegisterRefused(attempt, refusal))

    def _verified(self, reply: Reply, entry: Registration) -> Answer:
        self.verifying.remove(entry.key)
        if not isinstance(reply, Registered):
            return refusal_of(reply)
        self._asked.add(entry.instance)
        self._step(entry.key, states.CredentialAccepted(entry))
        self._watch_for(entry.service)
        return outcome_of(entry, reply.state, reply.revision)

    def _watch_for(self, service: str) -> None:
        """Watch on behalf of a service that was registered."""
        refusal = self._subscriptions.add(service)
        if refusal is not None:
            self._log.warn("{service} gets no changes: {why}", service=service, why=refusal.message)
        self._subscriptions.watch_added()

    def _left(self, reply: Reply, entry: Registration) -> Answer:
        self._late.discard(entry.instance)
        if isinstance(reply, Deregistered):
            self._backoff.reset()
            self._step(entry.key, states.Deregistered(entry.epoch))
            self._subscriptions.trouble_changed()
            return outcome_of(entry, reply.state, reply.revision)
        refusal = refusal_of(reply)
        if refusal.code in TRANSIENT:
            return self._pending(entry, refusal)
        self._step(entry.key, states.DeregisterRefused(entry.epoch, refusal))
        if is_gone(refusal):
            return outcome_of(entry, "offline")
        self._subscriptions.compare()
        return refusal

    def _judged(self, reply: Reply, entry: Registration) -> Answer:
        """Record what a server found of an unverified instance."""
        if isinstance(reply, Deregistered):
            self._step(entry.key, states.Judged(entry.epoch, reply.state))
            return outcome_of(entry, reply.state, reply.revision)
        refusal = refusal_of(reply)
        if refusal.code in TRANSIENT:
            return self._pending(entry, refusal)
        self._step(entry.key, states.Judged(entry.epoch, refusal.code))
        return refusal

    def _unknown_left(self, reply: Reply, unknown: Registration) -> Answer:
        if not isinstance(reply, Deregistered):
            return refusal_of(reply)
        self._step(unknown.key, states.DeregisterAccepted(unknown.epoch))
        return outcome_of(unknown, reply.state, reply.revision)

    def _pending(self, entry: Registration, refusal: Refusal) -> Outcome:
        self._step(entry.key, states.RefusedForNow(entry.epoch, refusal.retry_after_seconds))
        return msgspec.structs.replace(outcome_of(entry, "pending"), why=refusal.message)

    def _deliver_due(self) -> None:
        for entry in self._journal.all():
            if not self._has_session:
                return
            if entry.instance not in self._asked:
                self._step(entry.key, states.Due())

    def _retry(self) -> None:
        if self._has_session:
            self._deliver_due()
        else:
            self._server.expected()  # In the mode `short` the session begins with what is due.

    def _doubt_again(self) -> None:
        self._asked -= {entry.instance for entry in self._journal.all() if entry.unverified}
        self._retry()

    def _process_ended(self, entry: Registration, reason: str = "") -> None:
        if (kept := self._sharing.leave(entry.key, entry.pid)) is not None:
            self._watches.watch_again(kept)
        else:
            self._step(entry.key, states.ProcessEnded(entry.epoch, reason or f"process {entry.pid} ended"))

    def _grace_over(self) -> None:
        for entry in self._journal.all():
            if entry.hold and entry.instance not in self._held.values():
                self._step(entry.key, not_held_again(entry, self._journal.machine))

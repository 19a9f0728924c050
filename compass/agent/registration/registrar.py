"""Registering and deregistering on behalf of local programs, and keeping it so.

A wish goes into the book, then to a server; while none can be asked it is pending, and every new session begins by
delivering what is due and re-establishing what is registered, with the epoch it had: so no listener flaps because a
server or this daemon restarted. The end of a process or of a holding connection is a wish as well.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from compass.agent.registration.journal import REGISTRATIONS_MAX, JournalWriteFailed, Registration, RegistrationJournal
from compass.agent.registration.process_watch import CannotWatch, NoSuchProcess
from compass.model.backoff import Backoff
from compass.model.host_api import LocalDeregister, LocalDrain, LocalLoad, LocalRegister, Outcome
from compass.model.interfaces import Clock, Timer
from compass.model.names import InvalidName, format_endpoint, parse_address, parse_port, parse_service_id
from compass.model.replies import Deregistered, Refusal, Registered, Reply
from compass.model.requests import Deregister, Drain, Register, Request
from compass.model.rows import ListenerKey

HOLD_GRACE_SECONDS = 30.0
"""After the daemon's own restart: how long a program that held its registration open has to come back."""
TRANSIENT = frozenset({"unreachable", "not-ready", "busy", "store-unavailable"})
"""Refusals that say nothing about the request: it stays in the book and is asked again."""
_HOPELESS = frozenset({"bad-credential", "forbidden"})
"""Refusals that asking again on the next session would only repeat, with a line in the security log each time."""
_GONE = frozenset({"unknown-listener", "unknown-service", "unknown-category"})
"""Answers to a deregistration that say there is nothing left to deregister."""


class Watcher(Protocol):
    """Watcher of processes; see `process_watch.ProcessWatch`."""

    def start_of(self, pid: int) -> str:
        """Names the process for good, together with its pid. Raises NoSuchProcess."""

    def watch(self, pid: int, started: str, ended: Callable[[], None]) -> Callable[[], None]:
        """Call `ended` once; the result stops watching. Raises NoSuchProcess, CannotWatch."""


class Registrar:
    """Registrar of local instances. `ask` sends a request to a server, `reach` starts a session unless there is one or
    one is being made; `want` subscribes the host on behalf of a service."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        now: Callable[[], float],
        book: RegistrationJournal,
        ask: Callable[[Request], Deferred[Reply]],
        want: Callable[[str], Refusal | None],
        watcher: Watcher,
        default_address: str,
        pauses: Backoff,
        reach: Callable[[], object],
        zone: str = "",
    ) -> None:
        self._clock = clock
        self._now = now
        self._book = book
        self._ask = ask
        self._want = want
        self._watcher = watcher
        self._default_address = default_address
        self._pauses = pauses
        self._reach = reach
        self._zone = zone
        self._watches: dict[ListenerKey, Callable[[], None]] = {}
        self._held: dict[tuple[ListenerKey, int], tuple[ListenerKey, int]] = {}
        """Instance as its open connection knows it -> instance now; they differ when it had to take a newer epoch."""
        self._settled: set[tuple[ListenerKey, int]] = set()
        """Instances that a server has answered for, or is being asked for, on this session."""
        self._session = False
        self._grace: Timer | None = None
        self._retry: Timer | None = None

    # The daemon's life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Watch the processes of the book again; those that ended meanwhile died."""
        for entry in self._book.all():
            if entry.standing == "leaving":
                continue
            try:
                self._watch_process(entry)
            except NoSuchProcess:
                self._ended(entry, "its process ended while this daemon was not running")
            except CannotWatch as problem:
                self._log.warn("{problem}; its end will not be noticed", problem=str(problem))
        self._grace = self._clock.callLater(HOLD_GRACE_SECONDS, self._grace_over)

    def stop(self) -> None:
        """Stop watching. Nothing is deregistered: the services go on, and so does their registration."""
        self._session = False
        self._held.clear()
        for call in (self._grace, self._retry):
            if call is not None and call.active():
                call.cancel()
        for key in list(self._watches):
            self._unattend(key)

    def session_settled(self) -> None:
        """A new session: deliver what is due and re-establish what is registered."""
        self._session = True
        self._deliver_all()

    def session_lost(self) -> None:
        """Forget answers of the session that ended: they say nothing about the next one."""
        self._session = False
        self._settled.clear()

    # What programs ask for --------------------------------------------------------------------------------

    def register(self, request: LocalRegister) -> Deferred[Outcome | Refusal]:
        """Function 2.1 for a local program: committed, pending, or refused with nothing left behind."""
        try:
            key = _key(request.service, request.address or self._default_address, request.port)
            old = self._book.get(key)
            if old is None and len(self._book) >= REGISTRATIONS_MAX:
                return succeed(
                    Refusal("too-large", f"{REGISTRATIONS_MAX} instances on this host, the most there can be")
                )
            entry = self._entry(request, key, old)
            refusal = self._want(entry.service)
            if refusal is not None:
                return succeed(refusal)
            if _replaces_foreign_instance(entry, old):
                return self._replace_verified(entry)
            self._watch_process(entry)
            self._book.put(entry)
        except InvalidName as problem:
            return succeed(Refusal(problem.code, str(problem)))
        except NoSuchProcess as problem:
            return succeed(Refusal("bad-value", f"{problem}; register with the pid of the process that serves"))
        except CannotWatch as problem:
            return succeed(Refusal("busy", str(problem), retry_after_seconds=1.0))
        except JournalWriteFailed as problem:
            self._unattend(key)
            if old is not None:
                self._attend_again(old)
            return succeed(Refusal("store-unavailable", f"{problem}; the daemon's directory must be writable"))
        if entry.hold:
            self._hold(entry)
        return self._establish(entry, old, first=True)

    def deregister(self, request: LocalDeregister) -> Deferred[Outcome | Refusal]:
        """Function 2.2 for a local program. An older instance's is refused and leaves the newer one alone (P6)."""
        try:
            key = _key(request.service, request.address or self._default_address, request.port)
        except InvalidName as problem:
            return succeed(Refusal(problem.code, str(problem)))
        entry = self._book.get(key)
        if entry is not None and request.epoch and request.epoch < entry.epoch:
            text = f"{_named(key)} belongs to a newer instance, which stays registered"
            return succeed(Refusal("stale-epoch", text, epoch=entry.epoch))
        if entry is None and not request.epoch:
            text = f"{_named(key)} was not registered on this host; name the epoch of the instance that is to go"
            return succeed(Refusal("unknown-listener", text))
        if entry is None or not hmac.compare_digest(entry.credential.encode(), request.credential.encode()):
            epoch = request.epoch or (entry.epoch if entry is not None else 0)
            stranger = Registration(*key, epoch=epoch, credential=request.credential, standing="leaving")
            return self._ask(_deregistration(stranger)).addCallback(self._stranger_left, stranger)
        entry = msgspec.structs.replace(entry, standing="leaving", epoch=max(entry.epoch, request.epoch))
        self._unattend(key)
        self._book.note(entry)
        return self._deliver(entry)

    def report_load(self, request: LocalLoad) -> Deferred[Outcome | Refusal]:
        """Report the load of a listener that is registered here: it is registered again with another load."""
        try:
            key = _key(request.service, request.address or self._default_address, request.port)
        except InvalidName as problem:
            return succeed(Refusal(problem.code, str(problem)))
        if not 0 <= request.load <= 1:
            return succeed(Refusal("bad-value", f"load {request.load:g} is no share: from 0 (idle) to 1 (full)"))
        old = self._book.get(key)
        if old is None or old.standing not in ("pending", "registered"):
            return succeed(Refusal("unknown-listener", f"{_named(key)} is not registered on this host; register it"))
        if not hmac.compare_digest(old.credential.encode(), request.credential.encode()):
            text = f"report the load of {_named(key)}: this is not the credential that it was registered with"
            return succeed(Refusal("bad-credential", text))
        entry = msgspec.structs.replace(old, load=request.load)
        self._book.note(entry)
        return self._establish(entry, old, first=False)

    def drain(self, request: LocalDrain) -> Deferred[Outcome | Refusal]:
        """A listener takes no new users, or takes them again: a server says so to all, or it is not done."""
        try:
            key = _key(request.service, request.address or self._default_address, request.port)
        except InvalidName as problem:
            return succeed(Refusal(problem.code, str(problem)))

        def answered(reply: Reply) -> Outcome | Refusal:
            if isinstance(reply, Refusal):
                return reply
            return Outcome("draining" if request.draining else "up", *key)

        return self._ask(Drain(*key, request.draining, request.credential)).addCallback(answered)

    def connection_closed(self, outcome: Outcome) -> None:
        """The connection that held a registration is closed."""
        key = (outcome.service, outcome.address, outcome.port)
        held = self._held.pop((key, outcome.epoch), None)
        entry = self._book.get(key)
        if entry is not None and (entry.key, entry.epoch) == held and entry.standing != "leaving":
            self._ended(entry, "the connection that held it was closed")

    def _entry(self, request: LocalRegister, key: ListenerKey, old: Registration | None) -> Registration:
        """The book's entry: of the same instance when the program asks again, else of a new one."""
        started = self._watcher.start_of(request.pid) if request.pid else ""
        same = (
            old is not None
            and old.standing in ("pending", "registered")
            and hmac.compare_digest(old.credential.encode(), request.credential.encode())
            and (old.pid, old.started, old.hold) == (request.pid, started, request.hold)
            and (request.pid or request.hold)
            and not self._is_held(old)
        )
        return Registration(
            *key,
            epoch=old.epoch
            if same and old is not None
            else self._book.next_epoch(self._now(), old.epoch if old else 0),
            credential=request.credential,
            standing="pending",
            weight=request.weight,
            metadata=request.metadata,
            pid=request.pid,
            started=started,
            hold=request.hold,
            zone=request.zone or self._zone,
            load=request.load,
            degradation=request.degradation,
        )

    def _replace_verified(self, entry: Registration) -> Deferred[Outcome | Refusal]:
        """Replace an instance that has another credential: only a server can decide, so it is asked before the journal
        changes."""

        def answered(reply: Reply) -> Outcome | Refusal:
            if not isinstance(reply, Registered):
                return _refusal(reply)
            self._attend_again(entry)
            self._book.note(msgspec.structs.replace(entry, standing="registered"))
            if entry.hold:
                self._hold(entry)
            self._settled.add((entry.key, entry.epoch))
            return _outcome(entry, reply)

        return self._ask(_registration(entry)).addCallback(answered)

    # Requests to the server -------------------------------------------------------------------------------

    def _establish(
        self, entry: Registration, old: Registration | None, *, first: bool, renewed: bool = False
    ) -> Deferred[Outcome | Refusal]:
        """Ask a server for a registration in the book. `first`: a program waits for the answer, and `old` is what
        comes back when it is no. `renewed`: the entry has taken a newer epoch already."""
        self._settled.add((entry.key, entry.epoch))
        return self._ask(_registration(entry)).addCallback(self._established, entry, old, first, renewed)

    def _established(
        self, reply: Reply, entry: Registration, old: Registration | None, first: bool, renewed: bool
    ) -> Outcome | Refusal | Deferred[Outcome | Refusal]:
        current = self._is_current(entry)
        if isinstance(reply, Registered):
            self._pauses.reset()
            if current and entry.standing != "registered":
                self._book.note(msgspec.structs.replace(entry, standing="registered", problem="", code=""))
            return _outcome(entry, reply)
        refusal = _refusal(reply)
        if refusal.code in TRANSIENT:
            self._unsettle(entry, refusal)
            return _pending(entry)
        if not current:
            return refusal
        behind = refusal.code == "stale-epoch" or (first and refusal.code == "deregistered")
        if behind and entry.standing == "pending" and not renewed:
            return self._establish(self._renewed(entry, refusal.epoch), old, first=first, renewed=True)
        self._give_up(entry, refusal, old, first)
        return refusal

    def _renewed(self, entry: Registration, known: int) -> Registration:
        """A living process whose epoch is behind, because of a clock set back for instance, as a newer instance."""
        newer = msgspec.structs.replace(entry, epoch=self._book.next_epoch(self._now(), known))
        for connection, held in list(self._held.items()):
            if held == (entry.key, entry.epoch):
                self._held[connection] = (newer.key, newer.epoch)
        self._book.note(newer)
        self._attend_again(newer)
        return newer

    def _give_up(self, entry: Registration, refusal: Refusal, old: Registration | None, first: bool) -> None:
        """A server said no for good."""
        if not self._is_current(entry):
            return
        self._unattend(entry.key)
        self._let_go(entry)
        if first and old is not None:
            self._book.note(old)
            self._attend_again(old)
        elif first or refusal.code in ("stale-epoch", "deregistered"):
            self._book.drop(entry)
        else:
            self._attend_again(entry)
            refused = msgspec.structs.replace(entry, standing="refused", problem=refusal.message, code=refusal.code)
            self._book.note(refused)
        if not first:
            self._log.warn("{name} is not registered any more: {why}", name=_named(entry.key), why=refusal.message)

    def _deliver(self, entry: Registration) -> Deferred[Outcome | Refusal]:
        """Send a server the deregistration of an instance."""
        self._settled.add((entry.key, entry.epoch))
        return self._ask(_deregistration(entry)).addCallback(self._left, entry)

    def _left(self, reply: Reply, entry: Registration) -> Outcome | Refusal:
        if isinstance(reply, Deregistered):
            self._pauses.reset()
            self._book.drop(entry)
            return Outcome(reply.state, *entry.key, epoch=entry.epoch, revision=reply.revision)
        refusal = _refusal(reply)
        if refusal.code in TRANSIENT:
            self._unsettle(entry, refusal)
            return _pending(entry)
        self._book.drop(entry)
        if refusal.code in _GONE:
            return Outcome("offline", *entry.key, epoch=entry.epoch)
        self._log.warn("{name} could not be deregistered: {why}", name=_named(entry.key), why=refusal.message)
        return refusal

    def _stranger_left(self, reply: Reply, stranger: Registration) -> Outcome | Refusal:
        """A deregistration of what this book has not, or has with another credential; the server has judged it."""
        if not isinstance(reply, Deregistered):
            return _refusal(reply)
        held = self._book.get(stranger.key)
        if held is not None and held.epoch <= stranger.epoch:
            self._unattend(held.key)
            self._book.drop(held)
        return Outcome(reply.state, *stranger.key, epoch=stranger.epoch, revision=reply.revision)

    def _deliver_all(self) -> None:
        for entry in self._book.all():
            if not self._session:
                return
            if (entry.key, entry.epoch) in self._settled or entry.code in _HOPELESS:
                continue
            if entry.standing == "leaving":
                self._deliver(entry)
            else:
                self._establish(entry, None, first=False)

    def _unsettle(self, entry: Registration, refusal: Refusal) -> None:
        """Mark it as due again: on the next session, or after a pause."""
        self._settled.discard((entry.key, entry.epoch))
        if self._retry is None or not self._retry.active():
            self._retry = self._clock.callLater(self._pauses.next(refusal.retry_after_seconds), self._again)

    def _again(self) -> None:
        if self._session:
            self._deliver_all()
        else:
            # A host that keeps no session makes one for what is due, and begins it with that.
            self._reach()

    # Processes and connections ----------------------------------------------------------------------------

    def _watch_process(self, entry: Registration) -> None:
        """Watch the entry's process in place of the one watched before. Raises NoSuchProcess, CannotWatch."""
        stop = None
        if entry.pid:
            stop = self._watcher.watch(entry.pid, entry.started, lambda: self._process_ended(entry))
        self._unattend(entry.key)
        if stop is not None:
            self._watches[entry.key] = stop

    def _attend_again(self, entry: Registration) -> None:
        """The same for an entry that stays in the book in any case."""
        try:
            self._watch_process(entry)
        except NoSuchProcess:
            self._clock.callLater(0, self._process_ended, entry)
        except CannotWatch as problem:
            self._log.warn("{problem}; its end will not be noticed", problem=str(problem))

    def _unattend(self, key: ListenerKey) -> None:
        stop = self._watches.pop(key, None)
        if stop is not None:
            stop()

    def _process_ended(self, entry: Registration) -> None:
        held = self._book.get(entry.key)
        if held is not None and held.epoch == entry.epoch and held.standing != "leaving":
            self._ended(held, f"process {entry.pid} ended")

    def _ended(self, entry: Registration, why: str) -> None:
        self._log.info("{name} died: {why}", name=_named(entry.key), why=why)
        self._unattend(entry.key)
        self._let_go(entry)
        dead = msgspec.structs.replace(entry, standing="leaving", died=True, problem="", code="")
        self._book.note(dead)
        self._deliver(dead)

    def _grace_over(self) -> None:
        for entry in self._book.all():
            if entry.hold and entry.standing != "leaving" and not self._is_held(entry):
                self._ended(entry, "the program that held it did not come back")

    def _hold(self, entry: Registration) -> None:
        self._held[entry.key, entry.epoch] = (entry.key, entry.epoch)

    def _is_held(self, entry: Registration) -> bool:
        return (entry.key, entry.epoch) in self._held.values()

    def _let_go(self, entry: Registration) -> None:
        self._held = {asked: now for asked, now in self._held.items() if now != (entry.key, entry.epoch)}

    def _is_current(self, entry: Registration) -> bool:
        """Return whether the journal still wants the same, now that the reply has arrived."""
        held = self._book.get(entry.key)
        return held is not None and held.epoch == entry.epoch and held.standing != "leaving"


def _key(service: str, address: str, port: int) -> ListenerKey:
    return parse_service_id(service), parse_address(address), parse_port(port)


def _named(key: ListenerKey) -> str:
    return f"{key[0]} at {format_endpoint(key[1], key[2])}"


def _replaces_foreign_instance(entry: Registration, old: Registration | None) -> bool:
    """Return whether it would replace a living instance that another credential registered."""
    if old is None or old.standing not in ("pending", "registered"):
        return False
    return not hmac.compare_digest(entry.credential.encode(), old.credential.encode())


def _registration(entry: Registration) -> Register:
    return Register(
        entry.service,
        entry.credential,
        entry.address,
        entry.port,
        entry.epoch,
        entry.weight,
        entry.metadata,
        entry.zone,
        entry.load,
        entry.degradation,
    )


def _deregistration(entry: Registration) -> Deregister:
    return Deregister(entry.service, entry.credential, entry.address, entry.port, entry.epoch, entry.died)


def _outcome(entry: Registration, reply: Registered) -> Outcome:
    return Outcome(reply.state, *entry.key, epoch=entry.epoch, revision=reply.revision)


def _pending(entry: Registration) -> Outcome:
    return Outcome("pending", *entry.key, epoch=entry.epoch)


def _refusal(reply: Reply) -> Refusal:
    """Return the refusal for a reply of another type."""
    return reply if isinstance(reply, Refusal) else Refusal("out-of-turn", f"the server answered with {reply}")

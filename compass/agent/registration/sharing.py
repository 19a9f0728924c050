"""Processes of registrations: the one that the journal names, and further ones that share a registration, such as the
workers of one server. The last one to leave ends the registration.

When the named process ends or leaves, one of the others takes its place, and no server hears of it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.logger import Logger

from compass.agent.registration.journal import Process, Registration, RegistrationJournal, format_key
from compass.agent.registration.process_watch import CannotWatch, NoSuchProcess, Unrecognisable, Watcher
from compass.model.host_api import LocalDeregister, LocalRegister
from compass.model.interfaces import Clock
from compass.model.rows import ListenerKey

SHARERS_MAX = 1024
"""Processes that share one registration: more than the workers of any server; each costs a descriptor."""


class NamedProcesses:
    """Watches of the processes that the journal names, one for each listener."""

    _log = Logger()

    def __init__(self, process_watch: Watcher, clock: Clock, ended: Callable[[Registration], None]) -> None:
        self._process_watch = process_watch
        self._clock = clock
        self._ended = ended
        self._stops: dict[ListenerKey, Callable[[], None]] = {}

    def watch(self, entry: Registration) -> None:
        """Watch the entry's process in place of the one watched before. Raises NoSuchProcess, CannotWatch,
        Unrecognisable."""
        stop = None
        if entry.pid:
            stop = self._process_watch.watch(entry.pid, entry.started, lambda: self._ended(entry))
        self.unwatch(entry.key)
        if stop is not None:
            self._stops[entry.key] = stop

    def watch_again(self, entry: Registration) -> None:
        """Watch the process of an entry that stays in the journal in any case."""
        try:
            self.watch(entry)
        except NoSuchProcess:
            self._clock.callLater(0, self._ended, entry)
        except (CannotWatch, Unrecognisable) as problem:
            self._log.warn("{problem}; its end will not be noticed", problem=str(problem))

    def unwatch(self, key: ListenerKey) -> None:
        """Stop watching the process of a listener, if it is watched."""
        if (stop := self._stops.pop(key, None)) is not None:
            stop()

    def stop(self) -> None:
        """Stop watching."""
        for key in list(self._stops):
            self.unwatch(key)


class SharedRegistrations:
    """The further processes of registrations."""

    _log = Logger()

    def __init__(self, journal: RegistrationJournal, process_watch: Watcher) -> None:
        self._journal = journal
        self._process_watch = process_watch
        self._watches: dict[tuple[ListenerKey, Process], Callable[[], None]] = {}

    def processes_of(self, old: Registration | None, request: LocalRegister, own: Process) -> tuple[Process, ...]:
        """Return the processes of an entry that a process registers, the named one first: those of the living instance
        and this one, if both share it."""
        # What is known of the processes of an unverified entry is true elsewhere.
        if old is None or not old.lives or old.unverified or not old.has_credential(request.credential):
            return (own,)
        living = tuple(process for process in old.processes if process != own and self._lives(process))
        if own in old.processes:
            return tuple(process for process in old.processes if process == own or process in living)
        if not living or not own.pid:
            return (own,)
        if old.shared and request.shared and len(living) <= SHARERS_MAX:
            return (*living, own)
        self._log.warn(
            "{name}: process {new} takes the place of process {old}, which still runs; workers of one server register "
            "with shared=true, or 'opengnsc run' registers all of them as one",
            name=format_key(old.key),
            new=own.pid,
            old=living[0].pid,
        )
        return (own,)

    def watch(self, entry: Registration) -> None:
        """Watch the further processes of an entry. Those of an unverified one are known elsewhere only."""
        for process in entry.others if not entry.unverified else ():
            place = entry.key, process
            if place in self._watches:
                continue

            def ended(process: Process = process) -> None:
                self._watches.pop((entry.key, process), None)
                self.leave(entry.key, process.pid)

            try:
                self._watches[place] = self._process_watch.watch(process.pid, process.started, ended)
            except NoSuchProcess:
                self.leave(entry.key, process.pid)
            except (CannotWatch, Unrecognisable) as problem:
                self._log.warn("{problem}; its end will not be noticed", problem=str(problem))

    def moved(self, old: Registration, new: Registration) -> None:
        """Watch the further processes of an entry at its new address."""
        for process in old.others:
            self._unwatch(old.key, process)
        self.watch(new)

    def leave(self, key: ListenerKey, pid: int) -> Registration | None:
        """Let a process leave. Returns the entry that the others keep; None: there are none, and the entry ends."""
        entry = self._journal.get(key)
        if entry is None or entry.state == "leaving":
            return None
        left = [process for process in entry.processes if process.pid != pid]
        if not left or len(left) == len(entry.processes):
            return entry if left and entry.shared else None
        for process in entry.processes:
            if process.pid == pid:
                self._unwatch(key, process)
        first, *others = left
        # The named process is watched by the registrar.
        self._unwatch(key, first)
        kept = msgspec.structs.replace(entry, pid=first.pid, started=first.started, others=tuple(others))
        self._journal.note(kept)
        return kept

    def without(self, key: ListenerKey, epoch: int, request: LocalDeregister) -> Registration | None:
        """Let the process of a deregistration leave. Returns the entry that others keep, as `leave`."""
        entry = self._journal.get(key)
        if entry is None or not request.pid or epoch not in (0, entry.epoch):
            return None
        return self.leave(key, request.pid) if entry.has_credential(request.credential) else None

    def stop(self) -> None:
        """Stop watching."""
        for stop in self._watches.values():
            stop()
        self._watches.clear()

    def _unwatch(self, key: ListenerKey, process: Process) -> None:
        if (stop := self._watches.pop((key, process), None)) is not None:
            stop()

    def _lives(self, process: Process) -> bool:
        try:
            return process.pid > 0 and self._process_watch.start_of(process.pid) == process.started
        except NoSuchProcess:
            return False
        except CannotWatch:
            return True

"""Registrations that several processes share, such as the workers of one server: the last one to leave ends it.

The journal names one process of a registration and the others that share it. When that process ends or leaves, one of
the others takes its place, and no server hears of it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.logger import Logger

from compass.agent.registration.journal import Process, Registration, RegistrationJournal, format_key
from compass.agent.registration.process_watch import CannotWatch, NoSuchProcess, Watcher
from compass.model.host_api import LocalDeregister
from compass.model.rows import ListenerKey

SHARERS_MAX = 1024
"""Processes that share one registration: more than the workers of any server; each costs a descriptor."""


class SharedRegistrations:
    """The further processes of registrations."""

    _log = Logger()

    def __init__(self, journal: RegistrationJournal, process_watch: Watcher) -> None:
        self._journal = journal
        self._process_watch = process_watch
        self._watches: dict[tuple[ListenerKey, Process], Callable[[], None]] = {}

    def joined(self, old: Registration | None, new: Registration) -> Registration:
        """Return the entry of a process that registers: that of the living instance, if both share it."""
        if old is None or not old.lives or not old.pid or not new.pid or not old.has_credential(new.credential):
            return new
        own = Process(new.pid, new.started)
        if own in old.processes:
            return msgspec.structs.replace(new, epoch=old.epoch, pid=old.pid, started=old.started, others=old.others)
        if not self._lives(old.pid, old.started):
            return new
        if old.shared and new.shared and len(old.others) < SHARERS_MAX:
            others = (*old.others, own)
            return msgspec.structs.replace(new, epoch=old.epoch, pid=old.pid, started=old.started, others=others)
        self._log.warn(
            "{name}: process {new} takes the place of process {old}, which still runs; workers of one server register "
            "with shared=true, or 'opengnsc run' registers all of them as one",
            name=format_key(new.key),
            new=new.pid,
            old=old.pid,
        )
        return new

    def watch(self, entry: Registration) -> None:
        """Watch the further processes of an entry."""
        for process in entry.others:
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
            except CannotWatch as problem:
                self._log.warn("{problem}; its end will not be noticed", problem=str(problem))

    def leave(self, key: ListenerKey, pid: int) -> Registration | None:
        """Let a process leave. Returns the entry that the others keep; None: there are none, and the entry ends."""
        entry = self._journal.get(key)
        if entry is None or not entry.lives or not entry.others:
            return None
        left = [process for process in entry.processes if process.pid != pid]
        if not left or len(left) == len(entry.processes):
            return entry if left else None
        for process in entry.processes:
            if process.pid == pid and (stop := self._watches.pop((key, process), None)) is not None:
                stop()
        first, *others = left
        # The named process is watched by the registrar.
        if (stop := self._watches.pop((key, first), None)) is not None:
            stop()
        kept = msgspec.structs.replace(entry, pid=first.pid, started=first.started, others=tuple(others))
        self._journal.note(kept)
        return kept

    def without(self, key: ListenerKey, request: LocalDeregister) -> Registration | None:
        """Let the process of a deregistration leave. Returns the entry that others keep, as `leave`."""
        entry = self._journal.get(key)
        if entry is None or not request.pid or request.epoch not in (0, entry.epoch):
            return None
        return self.leave(key, request.pid) if entry.has_credential(request.credential) else None

    def stop(self) -> None:
        """Stop watching."""
        for stop in self._watches.values():
            stop()
        self._watches.clear()

    def _lives(self, pid: int, started: str) -> bool:
        try:
            return self._process_watch.start_of(pid) == started
        except NoSuchProcess:
            return False

"""Entries of the journal as programs ask for them: their keys, their epochs, and what follows the host's address."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.logger import Logger

from compass.agent.registration.host_address import HostAddress
from compass.agent.registration.journal import FORMER_MAX, Process, Registration, format_key, parse_key
from compass.agent.registration.own_checks import OwnChecks
from compass.agent.registration.process_watch import Watcher
from compass.agent.registration.sharing import SharedRegistrations
from compass.agent.upstream.connector import UpstreamDependencies
from compass.model.host_api import LocalDeregister, LocalDrain, LocalLoad, LocalRegister
from compass.model.names import InvalidName
from compass.model.replies import Refusal
from compass.model.rows import ListenerKey


class RegistrarDependencies(UpstreamDependencies, frozen=True, kw_only=True):
    """Dependencies of a registrar and of the upstream that it uses."""

    now: Callable[[], float]
    """Wall clock, for epochs."""
    random: Callable[[], float]
    """Source of random numbers from 0 to 1."""
    process_watch: Watcher
    default_address: str
    """Address of a listener whose program names none; replaced by what `find_address` returns."""
    find_address: Callable[[], str] | None = None
    """Function that finds the address of this host now; None: `default_address` stays."""
    zone: str = ""


class Entries:
    """Maker of entries."""

    _log = Logger()

    def __init__(
        self, parts: RegistrarDependencies, checks: OwnChecks, address: HostAddress, sharing: SharedRegistrations
    ) -> None:
        self._parts = parts
        self._sharing = sharing
        self._checks = checks
        self._journal = checks.journal
        self._address = address

    def key_of(self, request: LocalDeregister | LocalLoad | LocalDrain) -> ListenerKey | Refusal:
        """Return the key of a listener, also if the request names an address that it had before its host moved."""
        try:
            key = parse_key(request.service, request.address or self._address.current, request.port)
        except InvalidName as problem:
            return Refusal(problem.code, str(problem))
        epoch = request.epoch if isinstance(request, LocalDeregister) else 0
        moved = self._journal.by_former(*key, epoch) if request.address else None
        return moved.key if moved is not None else key

    def epoch_of(self, request: LocalDeregister, key: ListenerKey) -> int:
        """Return the epoch that a program means: an instance has got a new one when its host moved."""
        moved = self._journal.get(key) if request.address not in ("", key[1]) else None
        return moved.epoch if moved is not None and request.epoch else request.epoch

    def entry_of(
        self, request: LocalRegister, key: ListenerKey, old: Registration | None, user: int, *, is_held: bool
    ) -> Registration:
        """Return the journal's entry: of the same instance if the program asks again, else of a new one."""
        started = self._parts.process_watch.start_of(request.pid) if request.pid else ""
        processes = self._sharing.processes_of(old, request, Process(request.pid, started))
        is_same = (
            old is not None
            and old.lives
            and old.has_credential(request.credential)
            and old.hold == request.hold
            and processes[0] in old.processes
            and (request.pid or request.hold)
            and not is_held
        )
        epoch = old.epoch if is_same and old is not None else self._journal.succeed(old, self._parts.now())
        check = self._checks.text_for(key, request.check)
        return Registration(
            *key,
            epoch=epoch,
            credential=request.credential,
            state="pending",
            weight=request.weight,
            metadata=request.metadata,
            pid=processes[0].pid,
            started=processes[0].started,
            hold=request.hold,
            zone=request.zone or self._parts.zone,
            load=request.load,
            degradation=request.degradation,
            user=user,
            shared=request.shared,
            others=processes[1:],
            machine=self._journal.machine,
            own_check=request.check,
            check=check,
            failing=old.failing if is_same and old is not None and old.check == check else "",
            by_default=not request.address,
            former=old.former if is_same and old is not None else (),
        )

    def moves(self) -> list[tuple[Registration, Registration]]:
        """Move the entries that follow the host's address. Returns each with what it has become."""
        address = self._address.current
        # An unverified entry stays where servers probe it: to leave its address would end an instance that may live.
        following = [
            one for one in self._journal.all() if one.by_default and one.state != "leaving" and not one.unverified
        ]
        return [(one, self._move(one, address)) for one in following if one.address != address]

    def _move(self, entry: Registration, address: str) -> Registration:
        former = ((entry.address, entry.epoch), *entry.former)[:FORMER_MAX]
        epoch = self._journal.next_epoch(self._parts.now())
        moved = msgspec.structs.replace(
            entry, address=address, epoch=epoch, former=former, state="pending", problem="", code=""
        )
        there = self._journal.get(moved.key)
        if there is not None and there.lives:
            # The program has registered at the new address by itself.
            moved = there
        self._journal.move(moved, msgspec.structs.replace(entry, state="leaving"))
        self._log.info("{entry} follows its host to {address}", entry=format_key(entry.key), address=address)
        return moved

"""Journal of registrations: what this host's services asked for, on disk before a server is asked.

An entry stays until it is carried out: a registration as long as its instance lives, a deregistration until a server
has it. So no request of a service is lost by servers that are down or by the daemon's restart.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from twisted.logger import Logger

from compass.model.host_api import Integer, Outcome, OwnCheck
from compass.model.limits import EPOCH_AHEAD_SECONDS_MAX, EPOCH_MAX, EPOCHS_PER_SECOND, PORT_MAX
from compass.model.names import format_endpoint, parse_address, parse_port, parse_service_id
from compass.model.replies import Refusal
from compass.model.requests import Deregister, Register
from compass.model.rows import IDLE, ListenerKey
from compass.model.rows import State as ListenerState
from compass.system.files import replace_file, set_aside
from compass.system.machine import UNKNOWN_MACHINE, Machine
from compass.system.peer_credentials import UNKNOWN_USER

FILE_NAME = "registrations.json"
FORMER_MAX = 8
"""Former addresses of an entry that moves with its host: a laptop between some networks. A program that registered
earlier than that deregisters without naming an address."""
REGISTRATIONS_MAX = 4096
"""Instances on one host; the file is rewritten with each change, and this many are about 1 MB."""
PENDING_PER_USER_MAX = 256
"""Instances of one user that no server has accepted yet: one for each service of a host. So no user fills the journal
while no server can be asked."""

VERSION = 1
"""Version of the file's format; a file of another version is not read."""

Epoch = Annotated[int, Meta(ge=0, le=EPOCH_MAX)]
State = Literal["pending", "registered", "leaving", "refused"]
"""pending: no server has answered yet. leaving: the deregistration is not delivered yet. refused: a server refused to
register the instance again; the entry is kept to be shown."""
Instance = tuple[ListenerKey, int]
"""Listener and epoch: names one instance of a service."""


class Process(msgspec.Struct, frozen=True, array_like=True):
    """Process that shares a registration."""

    pid: Integer
    started: str


class Registration(msgspec.Struct, frozen=True, omit_defaults=True):
    """Registration: one instance of a service on this host."""

    service: str
    address: str
    port: Annotated[int, Meta(ge=1, le=PORT_MAX)]
    epoch: Epoch
    credential: str
    state: State = msgspec.field(name="standing")
    weight: Integer = 1
    metadata: dict[str, str] = {}
    pid: Integer = 0
    started: str = ""
    """Start of the process as `process_watch.start_of` returns it; with the pid it identifies one process."""
    hold: bool = False
    """The registration ends with the connection on which the program asked for it."""
    died: bool = False
    """True with `leaving` if the process or its connection ended, without a request to deregister."""
    problem: str = ""
    """Message of the server, with `refused`."""
    code: str = ""
    """Code of the refusal, with `refused`."""
    zone: str = ""
    load: float = IDLE
    degradation: float = IDLE
    user: Integer = UNKNOWN_USER
    """User whose program asked for it."""
    shared: bool = False
    """Further processes may share it."""
    others: tuple[Process, ...] = ()
    """Further processes that share it."""
    machine: Machine = UNKNOWN_MACHINE
    """Machine on which it was asked for; its process number means nothing on any other."""
    unverified: str = ""
    """Reason for which this daemon cannot say whether the instance lives. Servers probe it, and decide."""
    own_check: OwnCheck | None = None
    """Check that the program asked for."""
    check: str = ""
    """Description of the check, from the program or the configuration; empty: none."""
    failing: str = ""
    """Problem that the check found; empty: it passes."""
    by_default: bool = False
    """The program named no address: the entry has that of the host, and follows it."""
    former: tuple[tuple[str, int], ...] = ()
    """Addresses and epochs by which the program may still know the instance, the newest first, at most FORMER_MAX."""

    @property
    def key(self) -> ListenerKey:
        """Key in the journal; a new instance at the same address and port replaces the old one."""
        return (self.service, self.address, self.port)

    @property
    def instance(self) -> Instance:
        """Identity of this instance."""
        return ((self.service, self.address, self.port), self.epoch)

    @property
    def processes(self) -> tuple[Process, ...]:
        """Processes that share it, the named one first."""
        return (Process(self.pid, self.started), *self.others)

    @property
    def lives(self) -> bool:
        """Return whether the instance is registered or about to be."""
        return self.state in ("pending", "registered")

    @property
    def is_settled(self) -> bool:
        """Return whether a server has answered the last request that may change what it has recorded: an unverified
        instance is only asked about."""
        return self.state in ("registered", "refused") or (self.state == "pending" and bool(self.unverified))

    def has_credential(self, credential: str) -> bool:
        """Compare credentials in constant time."""
        return hmac.compare_digest(self.credential.encode(), credential.encode())


def parse_key(service: str, address: str, port: int) -> ListenerKey:
    """Raises InvalidName."""
    return parse_service_id(service), parse_address(address), parse_port(port)


def format_key(key: ListenerKey) -> str:
    """Format a listener for log lines and refusals."""
    return f"{key[0]} at {format_endpoint(key[1], key[2])}"


def register_request(entry: Registration) -> Register:
    """Return the request that registers the instance."""
    return msgspec.convert(entry, Register, from_attributes=True)


def deregister_request(entry: Registration) -> Deregister:
    """Return the request that deregisters the instance."""
    return Deregister(entry.service, entry.credential, entry.address, entry.port, entry.epoch, entry.died)


def doubt_request(entry: Registration) -> Deregister:
    """Return the request that has servers probe an instance of which this host knows nothing certain."""
    return msgspec.structs.replace(deregister_request(entry), died=True, unverified=True)


def outcome_of(entry: Registration, state: ListenerState | Literal["pending"], revision: int = 0) -> Outcome:
    """Return the answer for the program that asked."""
    return Outcome(state, entry.service, entry.address, entry.port, entry.epoch, revision)


class _Book(msgspec.Struct, frozen=True):
    version: int
    last_epoch: Epoch
    registrations: tuple[Registration, ...]


def _unpacked(data: bytes) -> _Book:
    """Decode a file. Raises ValueError or RecursionError if this program has not written it."""
    book = msgspec.json.decode(data, type=_Book)
    if book.version != VERSION:
        raise ValueError(f"its version is {book.version}, this program reads {VERSION}")
    for entry in book.registrations:
        if (parse_service_id(entry.service), parse_address(entry.address)) != (entry.service, entry.address):
            raise ValueError(f"{entry.service} at {entry.address} is not spelled as this program does")
    return book


class JournalWriteFailed(Exception):
    """Failed write: the request would not survive a restart, so it is refused."""


class RegistrationJournal:
    """Entries by listener. Every change is on disk when the method returns."""

    _log = Logger()

    def __init__(self, directory: Path, machine: Machine = UNKNOWN_MACHINE) -> None:
        self._path = directory / FILE_NAME
        self.machine = machine
        """This machine, recorded with each entry."""
        self._entries: dict[ListenerKey, Registration] = {}
        self.last_epoch = 0
        self.problem = ""
        """Problem with the file that an earlier run left; empty: there is none."""
        self.is_blocked = False
        """True if it is unknown which services of this host are registered."""
        self.write_problem = ""
        """Reason why the last write failed; empty: it did not."""

    def load(self) -> None:
        """Read what an earlier run left. A damaged file is set aside; one that cannot be read stays as it is, and
        nothing is written until a later run can read it."""
        try:
            book = _unpacked(self._path.read_bytes())
        except FileNotFoundError:
            return
        except OSError as error:
            why = f"cannot read {self._path}: {error.strerror}"
            self._block(f"{why}; let the user of opengnscd own the file and start opengnscd again")
            return
        except (ValueError, RecursionError) as error:
            # msgspec's own errors are ValueErrors, and so is what it raises for text that is no UTF-8.
            unusable = f"was unusable ({error})"
            if (aside := self._set_aside(unusable)) is not None:
                self._report(f"{self._path} {unusable} and is {aside.name} now; services have to register again")
            return
        self.last_epoch = book.last_epoch
        self._entries = {entry.key: entry for entry in book.registrations if self._is_own(entry)}
        foreign = [entry for entry in book.registrations if not self._is_own(entry)]
        if foreign:
            self._set_foreign_aside(foreign[0].machine.host, len(foreign))

    def _is_own(self, entry: Registration) -> bool:
        """Return whether this host made an entry. Older versions did not record which host did."""
        return entry.machine.host in ("", self.machine.host)

    def _set_foreign_aside(self, host: str, count: int) -> None:
        """Leave the entries of another host alone: that host lives perhaps, and this one knows nothing of it."""
        written = f"was written by host {host}"
        if (aside := self._set_aside(written, "foreign")) is not None:
            self._report(
                f"{self._path} {written}: its {count} registrations are not this host's, and are neither registered "
                f"nor deregistered here; it is kept as {aside}. Each host needs a state directory of its own; if this "
                f"host was {host} before, start its services again"
            )
            self._note(self._entries)

    def _set_aside(self, why: str, kind: str = "corrupt") -> Path | None:
        """Rename the file. Returns its new place; None: it cannot be renamed, and nothing is written in this run."""
        try:
            return set_aside(self._path, kind)
        except OSError as problem:
            self._block(f"{self._path} {why} and cannot be renamed: {problem.strerror}; move it away")
            return None

    def _report(self, problem: str) -> None:
        self.problem = problem
        self._log.error("{problem}", problem=problem)

    def _block(self, problem: str) -> None:
        """Write nothing in this run: the file may be all that is known of services that run."""
        self.problem = problem
        self.is_blocked = True
        self._log.error("{problem}; until then nothing can be registered", problem=problem)

    def __len__(self) -> int:
        return len(self._entries)

    def all(self) -> tuple[Registration, ...]:
        """Return every entry, the oldest first."""
        return tuple(self._entries.values())

    def get(self, key: ListenerKey) -> Registration | None:
        return self._entries.get(key)

    def full_for(self, user: int) -> Refusal | None:
        """Return the refusal of one more entry for a user, if there are too many."""
        if len(self._entries) >= REGISTRATIONS_MAX:
            return Refusal("too-large", f"{REGISTRATIONS_MAX} instances on this host, the most there can be")
        if len(self._entries) < PENDING_PER_USER_MAX:
            return None
        pending = sum(entry.state == "pending" and entry.user == user for entry in self._entries.values())
        if pending < PENDING_PER_USER_MAX:
            return None
        text = f"{PENDING_PER_USER_MAX} registrations of this user wait for a server, the most there can be"
        return Refusal("busy", text, retry_after_seconds=1.0)

    def services(self) -> frozenset[str]:
        """Return the services that have an instance here which a server has accepted."""
        accepted = ("registered", "refused")
        return frozenset(entry.service for entry in self._entries.values() if entry.state in accepted)

    def next_epoch(self, now: float, above: int = 0) -> int:
        """Return a larger epoch than any before: the wall clock in microseconds, unless that went backwards.

        Epochs of a clock that was too far ahead do not count: servers refuse those and their successors.
        `above`: the known epoch of the one listener. It moves no other's epoch: a party that has the credential of one
        service can give it the largest epoch there is, and must not thereby use up those of the whole host.
        """
        last = self.last_epoch if self._is_valid(self.last_epoch, now) else 0
        self.last_epoch = max(last + 1, int(now * EPOCHS_PER_SECOND))
        return min(max(self.last_epoch, above + 1), EPOCH_MAX)

    def succeed(self, entry: Registration | None, now: float) -> int:
        """Return the epoch of the instance after that of an entry, if there is one."""
        return self.next_epoch(now, entry.epoch if entry is not None and self._is_valid(entry.epoch, now) else 0)

    @staticmethod
    def _is_valid(epoch: int, now: float) -> bool:
        return epoch <= (now + EPOCH_AHEAD_SECONDS_MAX) * EPOCHS_PER_SECOND

    def put(self, entry: Registration) -> None:
        """Set an entry. Raises JournalWriteFailed, and then the journal is unchanged."""
        self._write({**self._entries, entry.key: entry})

    def move(self, moved: Registration, leaving: Registration) -> None:
        """Set the entry of an instance at its new address, and its deregistration at the old one, in one write."""
        self._note({**self._entries, leaving.key: leaving, moved.key: moved})

    def by_former(self, service: str, address: str, port: int, epoch: int) -> Registration | None:
        """Return the entry of an instance that had this address earlier, by its epoch then; epoch 0: by any."""
        for entry in self._entries.values():
            is_same = (entry.service, entry.port) == (service, port) and entry.state != "leaving"
            if is_same and any(known[0] == address and epoch in (0, known[1]) for known in entry.former):
                return entry
        return None

    def note(self, entry: Registration) -> None:
        """Set an entry, in memory at least: it records what has happened, even if the disk cannot be written."""
        self._note({**self._entries, entry.key: entry})

    def write_again(self) -> None:
        """Write the file if the last attempt failed: what was noted since is in memory only."""
        if self.write_problem:
            self._note(self._entries)

    def drop(self, entry: Registration) -> None:
        """Remove an entry, if it is still this instance's."""
        held = self._entries.get(entry.key)
        if held is not None and held.epoch == entry.epoch:
            self._note({key: other for key, other in self._entries.items() if key != entry.key})

    def _note(self, entries: dict[ListenerKey, Registration]) -> None:
        try:
            self._write(entries)
        except JournalWriteFailed as problem:
            self._log.warn("{problem}; going on from memory", problem=str(problem))
            self._entries = entries

    def _write(self, entries: dict[ListenerKey, Registration]) -> None:
        if self.is_blocked:
            raise JournalWriteFailed(self.problem)
        book = _Book(VERSION, self.last_epoch, tuple(entries.values()))
        try:
            replace_file(self._path, msgspec.json.encode(book), 0o600)
        except OSError as error:
            self.write_problem = f"cannot write {self._path}: {error.strerror or error}; new registrations are refused"
            raise JournalWriteFailed(
                f"cannot write {self._path}: {error}; the daemon's directory must be writable"
            ) from error
        self.write_problem = ""
        self._entries = entries

"""Events of a history: observations and answers with their time and observer, as a flat list of small values.

A history is recorded on virtual time (tests/simulation/recording.py) or on real runs, as JSON lines (reading.py); the
checker (checker.py) does not know which. `at` is seconds on one clock that all recorders share and that never jumps.
A real run leaves out what it cannot see; the checker judges by what is there.
"""

from __future__ import annotations

from typing import TypeAlias, Union

import msgspec

from compass.model.replies import CategoryView
from compass.model.rows import Change, Listener, Row, State


class _Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="event", rename="kebab"):
    at: float
    who: str
    """The machine that saw it: a server's, a host's or a client's name; `store` for the store itself."""


class Started(_Event, frozen=True, tag="started"):
    """A server or host daemon runs."""


class Stopped(_Event, frozen=True, tag="stopped"):
    """End of a process. `how`: stop, kill or power."""

    how: str = "stop"


class Disturbed(_Event, frozen=True, tag="disturbed"):
    """Beginning of a disturbance of `who` (or of its lines), during which no bound in time is promised for it."""

    what: str = ""


class Calmed(_Event, frozen=True, tag="calmed"):
    """Nothing is wrong with it any more."""


class Committed(_Event, frozen=True, tag="committed"):
    """A server's transaction came to its end with this change in it."""

    change: Change


class Logged(_Event, frozen=True, tag="logged"):
    """An entry of the update log, as read from `who` at the end of the run, in the order of the answer."""

    change: Change


class Table(_Event, frozen=True, tag="table"):
    """Everything that the store's tables or a server hold, at a revision."""

    revision: int
    rows: tuple[Row, ...]


class Instance(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Listener as a host or a server sees it."""

    address: str
    port: int
    epoch: int
    state: State

    @property
    def usable(self) -> bool:
        """Given to new users."""
        return self.state in ("up", "slow")


class Answered(_Event, frozen=True, tag="answered"):
    """A client of a server, or a program of a host, got the answer to a request."""

    request: str
    outcome: str
    """The reply's name on the wire, the refusal's code, or a local program's `pending`."""
    revision: int = 0
    changed: bool = True
    service: str = ""
    address: str = ""
    port: int = 0
    epoch: int = 0
    """Epoch of a registration or deregistration; 0: unknown."""
    state: str = ""


class Opened(_Event, frozen=True, tag="opened"):
    """A session between `who` and a server. `session` numbers the sessions of one run."""

    session: int
    server: str = ""


class Ended(_Event, frozen=True, tag="ended"):
    """That session is over."""

    session: int


class Watched(_Event, frozen=True, tag="watched"):
    """A watch was answered: notices after `start` follow, about the interest of these services."""

    session: int
    services: tuple[str, ...]
    start: int
    """The snapshot's revision, or what the host held when there is none."""
    snapshot: bool = False
    suspicions: bool = False
    """The host has said that it takes suspicions."""


class Suspected(_Event, frozen=True, tag="suspected"):
    """A suspicion came: evidence that the log does not have. `seconds` 0: it was withdrawn."""

    session: int
    service: str
    address: str
    port: int
    epoch: int
    seconds: float


class Unsettled(_Event, frozen=True, tag="unsettled"):
    """Number of suspicions of the server `who` that its log had not settled at the end."""

    count: int


class Received(_Event, frozen=True, tag="received"):
    """A notice, or with topic "" a bookmark."""

    session: int
    revision: int
    topic: str = ""
    previous: int = 0


class Applied(_Event, frozen=True, tag="applied"):
    """Result of a notice at a host: applied, duplicate or gap."""

    revision: int
    outcome: str


class View(_Event, frozen=True, tag="view"):
    """Answer about a service that programs of `who` get from now on."""

    service: str
    revision: int
    """Revision of the view: that of the topic, or, seen from outside, that of the answer."""
    listeners: tuple[Instance, ...]
    because: str = ""
    """notice, snapshot, disk, or the own evidence: `reported`."""
    held: bool = True
    """False: nothing is known of this service any more, which is not the same as empty."""


class Looked(_Event, frozen=True, tag="looked"):
    """A program asked its host for a service: the refusal's code, or where the listeners come from (`choose`)."""

    service: str
    answer: str
    revision: int
    """The topic's revision on that host; 0 when it is not held."""
    held: int = 0
    """The revision up to which that host holds everything."""
    listed: str = ""
    """The code of the refusal that a pull of the dependencies of `asker` got, or `listed`."""
    asker: str = ""


class Lived(_Event, frozen=True, tag="lived"):
    """A process serves here; said at its start, and of the living ones again at the end (`last`)."""

    service: str
    address: str
    port: int
    epoch: int = 0
    last: bool = False


class Died(_Event, frozen=True, tag="died"):
    """Such a process was killed."""

    service: str
    address: str
    port: int
    epoch: int = 0


class Orphaned(_Event, frozen=True, tag="orphaned"):
    """A row is in use at the end, and no process of its host lives that serves it."""

    service: str
    address: str
    port: int
    epoch: int = 0


class Probed(_Event, frozen=True, tag="probed"):
    """`who` asked a listener whether it serves: "", or why not."""

    address: str
    port: int
    problem: str = ""


class Settled(_Event, frozen=True, tag="settled"):
    """After all faults were over and time enough passed: what the dependencies of a service are at `who`."""

    service: str
    answer: str
    """`listed`, or a refusal's code."""
    categories: tuple[CategoryView, ...] = ()


Event: TypeAlias = Union[  # noqa: UP007
    Started,
    Stopped,
    Disturbed,
    Calmed,
    Committed,
    Logged,
    Table,
    Answered,
    Opened,
    Ended,
    Watched,
    Received,
    Suspected,
    Unsettled,
    Applied,
    View,
    Looked,
    Lived,
    Died,
    Orphaned,
    Probed,
    Settled,
]
History: TypeAlias = list[Event]


class Violation(msgspec.Struct, frozen=True):
    """A broken promise: which, where and when, at which revision, and by what."""

    promise: str
    who: str
    at: float
    revision: int
    what: str

    def __str__(self) -> str:
        return f"{self.promise} at {self.who}, {self.at:.3f} s, revision {self.revision}: {self.what}"


def instance_of(row: Listener) -> Instance:
    """A listener's row as an event shows it."""
    return Instance(row.address, row.port, row.epoch, row.state)

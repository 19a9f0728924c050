"""Recovery of registrations that an earlier run of the daemon left in the journal.

What the journal says of processes is true for the machine, the boot and the PID namespace in which it was written.
There a process that cannot be found has died. Anywhere else nothing follows from it: the journal may be a copy, and the
daemon may have been started in a container without the host's processes.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from compass.agent.registration import states
from compass.agent.registration.journal import Registration
from compass.agent.registration.process_watch import (
    WHY_HIDDEN,
    CannotWatch,
    NoSuchProcess,
    Unrecognisable,
    is_recognisable,
)
from compass.system.machine import Machine

_log = Logger()


def resume(entry: Registration, here: Machine, watch: Callable[[Registration], None]) -> states.Event | None:
    """Watch the process of an entry again, by `watch`. Returns the event that follows, if there is one."""
    if entry.state == "leaving" or not entry.pid:
        return None
    unknown = _why_unknown(entry, here)
    if not unknown and not is_recognisable(entry.started):
        unknown = f"process {entry.pid} cannot be recognised: {WHY_HIDDEN}"
    if unknown:
        return states.Resumed(entry.epoch, unknown)
    try:
        watch(entry)
    except NoSuchProcess:
        return states.ProcessEnded(entry.epoch, "its process ended while this daemon was not running")
    except Unrecognisable as problem:
        return states.Resumed(entry.epoch, str(problem))
    except CannotWatch as problem:
        _log.warn("{problem}; its end will not be noticed", problem=str(problem))
        return None
    return states.Resumed(entry.epoch) if entry.unverified else None


def not_held_again(entry: Registration, here: Machine) -> states.Event:
    """Return the event of an entry whose program has not opened its connection again in time."""
    reason = "the program that held it did not come back"
    unknown = _why_unknown(entry, here)
    if unknown:
        return states.Resumed(entry.epoch, f"{unknown}, and {reason}")
    return states.ConnectionClosed(entry.epoch, reason)


def _why_unknown(entry: Registration, here: Machine) -> str:
    """Return why this daemon can know nothing of an entry's process or connection; empty if it can."""
    return "" if here.has_processes_of(entry.machine) else f"it was registered {here.difference(entry.machine)}"

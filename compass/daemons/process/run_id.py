"""Run ids: names of one run of a server, which a later run on the same machine can prove to be over.

An id is the place (boot and PID namespace), the process number, its start and a random number. A server that was killed
leaves its heartbeat in the store; the others wait some beats before they believe in its end. Its successor on the same
machine need not wait.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

_PLACE, _PID, _START, _RANDOM = 16, 8, 16, 8
"""Hexadecimal digits of each part."""
_START_FIELD = 19
"""Index of the start time among the fields of /proc/PID/stat after the command's name (proc(5), field 22)."""


def new_run_id() -> str:
    """Return an id for this process: 48 hexadecimal digits. Raises OSError without /proc."""
    pid = os.getpid()
    return f"{_place()}{pid:0{_PID}x}{_start_of(pid):0{_START}x}{secrets.token_hex(_RANDOM // 2)}"


def is_over(id: str) -> bool:
    """Return whether the run with this id is known to have ended: False also for a run elsewhere, and any other id."""
    if len(id) != _PLACE + _PID + _START + _RANDOM or not id.startswith(_place()):
        return False
    pid, start = int(id[_PLACE : _PLACE + _PID], 16), int(id[_PLACE + _PID : -_RANDOM], 16)
    try:
        os.kill(pid, 0)
        return _start_of(pid) != start
    except ProcessLookupError:
        return True
    except OSError:
        # A process of another user, or a /proc that hides it.
        return False


def _place() -> str:
    """Return a digest of this boot and PID namespace: process numbers mean nothing elsewhere."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:_PLACE]


def _start_of(pid: int) -> int:
    """Return the start of a process in clock ticks since the boot. Raises OSError; ProcessLookupError for a process
    that has ended, but whose parent has not waited for it yet."""
    # The command's name is in parentheses and may contain any character.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(f"process {pid} has ended")
    return int(fields[_START_FIELD])

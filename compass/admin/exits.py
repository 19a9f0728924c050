"""The exit statuses of `opengnsadmin`: what a script can tell outcomes apart by. `--help` shows this table."""

from __future__ import annotations

from enum import IntEnum

from compass.client.link import Kind
from compass.model.replies import Code


class Exit(IntEnum):
    """The status of the process."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    CONFLICT = 5
    BAD_INPUT = 6
    UNAVAILABLE = 7
    MISUNDERSTOOD = 8
    CHANGES = 10
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done",
    Exit.FAILED: "something on this machine: settings, a file, a check of doctor, a 'no' to a question",
    Exit.USAGE: "the command line is wrong; nothing was asked",
    Exit.NOT_FOUND: "there is no such object",
    Exit.NOT_ALLOWED: "a certificate, role or credential is not accepted",
    Exit.CONFLICT: "it exists, is in use, or a newer instance is there",
    Exit.BAD_INPUT: "a name, an address, a value or a topology that cannot be used",
    Exit.UNAVAILABLE: "no server answers or it is not ready: try again later",
    Exit.MISUNDERSTOOD: "the server speaks another protocol or version",
    Exit.CHANGES: "plan --detailed-exitcode: there are changes to apply",
    Exit.INTERRUPTED: "interrupted (Ctrl-C); 'log --follow' ends with 0 then",
}

EXIT_OF_CODE: dict[Code, Exit] = {
    "malformed": Exit.MISUNDERSTOOD,
    "unknown-message": Exit.MISUNDERSTOOD,
    "unsupported-version": Exit.MISUNDERSTOOD,
    "out-of-turn": Exit.MISUNDERSTOOD,
    "too-large": Exit.BAD_INPUT,
    "forbidden": Exit.NOT_ALLOWED,
    "bad-credential": Exit.NOT_ALLOWED,
    "bad-name": Exit.BAD_INPUT,
    "bad-address": Exit.BAD_INPUT,
    "bad-value": Exit.BAD_INPUT,
    "unknown-category": Exit.NOT_FOUND,
    "unknown-service": Exit.NOT_FOUND,
    "unknown-dependency": Exit.NOT_FOUND,
    "unknown-listener": Exit.NOT_FOUND,
    "unknown-credential": Exit.NOT_FOUND,
    "unknown-host": Exit.NOT_FOUND,
    "exists": Exit.CONFLICT,
    "in-use": Exit.CONFLICT,
    "stale-epoch": Exit.CONFLICT,
    "deregistered": Exit.CONFLICT,
    "invalid-topology": Exit.BAD_INPUT,
    "not-ready": Exit.UNAVAILABLE,
    "busy": Exit.UNAVAILABLE,
    "store-unavailable": Exit.UNAVAILABLE,
    "unreachable": Exit.UNAVAILABLE,
}
"""Every refusal's status."""

EXIT_OF_LINK: dict[Kind, Exit] = {
    "files": Exit.FAILED,
    "unavailable": Exit.UNAVAILABLE,
    "untrusted": Exit.NOT_ALLOWED,
    "protocol": Exit.MISUNDERSTOOD,
}
"""The status when no session can be had, or it breaks."""


def exit_table() -> str:
    """The statuses for a help text."""
    return "\n".join(f"  {status.value:>3}  {meaning}" for status, meaning in MEANINGS.items())

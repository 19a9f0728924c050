"""What the exit statuses mean in `opengnsadmin`; `--help` shows this table."""

from __future__ import annotations

from compass.admin.shell.connection import Kind
from compass.model.exit_codes import Exit

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

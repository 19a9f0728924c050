"""What the exit statuses mean in `opengnsadmin`; `--help` shows this table."""

from __future__ import annotations

from compass.admin.shell.connection import Kind
from compass.model.exit_codes import ExitCode

MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "something on this machine: settings, a file, a check of doctor, a 'no' to a question",
    ExitCode.USAGE: "the command line is wrong; nothing was asked",
    ExitCode.NOT_FOUND: "there is no such object",
    ExitCode.NOT_ALLOWED: "a certificate, role or credential is not accepted",
    ExitCode.CONFLICT: "it exists, is in use, or a newer instance is there",
    ExitCode.BAD_INPUT: "a name, an address, a value or a topology that cannot be used",
    ExitCode.UNAVAILABLE: "no server answers or it is not ready: try again later",
    ExitCode.MISUNDERSTOOD: "the server speaks another protocol or version",
    ExitCode.CHANGES: "plan --detailed-exitcode: there are changes to apply",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C); 'log --follow' ends with 0 then",
}

EXIT_OF_KIND: dict[Kind, ExitCode] = {
    "files": ExitCode.FAILED,
    "unavailable": ExitCode.UNAVAILABLE,
    "untrusted": ExitCode.NOT_ALLOWED,
    "protocol": ExitCode.MISUNDERSTOOD,
}
"""The status when no session can be had, or it breaks."""


def exit_table() -> str:
    """The statuses for a help text."""
    return "\n".join(f"  {status.value:>3}  {meaning}" for status, meaning in MEANINGS.items())

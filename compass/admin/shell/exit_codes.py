"""Exit statuses of `opengnsadmin` for sessions that fail."""

from __future__ import annotations

from compass.admin.shell.connection import Kind
from compass.model.exit_codes import ExitCode

EXIT_OF_KIND: dict[Kind, ExitCode] = {
    "files": ExitCode.FAILED,
    "unavailable": ExitCode.UNAVAILABLE,
    "untrusted": ExitCode.NOT_ALLOWED,
    "protocol": ExitCode.MISUNDERSTOOD,
}
"""Exit status for each kind of `ConnectionFailed`."""

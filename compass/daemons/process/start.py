"""Start of a daemon's process, as parent, worker or single process: log, core files, exit codes, reasons of failure."""

from __future__ import annotations

import os
import resource
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.logger import FilteringLogObserver, LogLevel, LogLevelFilterPredicate, globalLogBeginner
from twisted.python.failure import Failure

from compass.model.names import format_endpoint

EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: systemd and others know not to restart a daemon that cannot be configured."""
EXIT_START = 1
"""Exit status if the configuration is valid but serving is impossible: a port in use, a store that does not answer."""

CORE_OCTETS = 1
"""Limit of a core file (core(5)): nothing fits into one octet, and Linux takes just this limit as a ban on handing the
memory to a collecting program, which it otherwise does whatever the limit is."""


class CannotStart(Exception):
    """Reason for which a process of a daemon cannot serve."""


def forbid_core_files() -> None:
    """Prevent core files, which would hold keys and credentials. A lower hard limit is left as it is, for debugging."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    most = CORE_OCTETS if hard == resource.RLIM_INFINITY else min(CORE_OCTETS, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (most, hard))


def begin_log(verbose: bool, observer: Any, least: Any = LogLevel.info) -> None:
    """Start logging to `observer`: from level `least` on, or from debug on if `verbose`."""
    shown: Any = LogLevelFilterPredicate(defaultLogLevel=LogLevel.debug if verbose else least)
    if not verbose:
        # Twisted logs each factory and port at level info.
        shown.setLogLevelForNamespace("log_legacy", LogLevel.warn)
    filtered: Any = FilteringLogObserver(observer, [shown])
    globalLogBeginner.beginLoggingTo([filtered], redirectStandardIO=False)


def why_not(failure: Failure) -> str:
    """Return the reason of a failed start as one sentence."""
    error = failure.value
    if not isinstance(error, CannotListenError):
        return failure.getErrorMessage()
    where = format_endpoint(error.interface, error.port) if isinstance(error.port, int) else os.fsdecode(error.port)
    reason = getattr(error.socketError, "strerror", None) or error.socketError
    return f"cannot listen on {where}: {reason}"

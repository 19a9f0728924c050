"""Errors of the client library: one class for each reaction of a program.

ApiProblem
├── DaemonUnreachable   opengnscd does not answer on this host: start it
├── Unavailable         temporary: retry later
│   └── NotLoaded       the daemon has no data from a server yet (P5: nothing is known about registrations)
├── UnknownName         no such category or service, or no dependency of this host on it
├── NotAllowed          credential not accepted, or a right is missing
└── NobodyThere         connect and resolve: the name exists, but has no usable listener
    ├── NoneRegistered  no usable listener is registered, and no backup
    └── NoneAnswers     every usable listener was tried
"""

from __future__ import annotations


class ApiProblem(Exception):
    """Failure of a call. `code`: that of the refusal (opengnsp.md, "Refusals"), or one of this library:
    `unreachable` if the daemon does not answer, `malformed` for an invalid answer, `none-registered` and
    `none-answers`. The text says what to do next."""

    def __init__(self, code: str, message: str, *, retry_after_seconds: float = 0.0, epoch: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.epoch = epoch


class Unavailable(ApiProblem):
    """Temporary failure: the same call may succeed later."""


class NotLoaded(Unavailable):
    """The daemon runs, but has no data yet, because no server has been reached so far. This says nothing about what
    is registered."""


class DaemonUnreachable(ApiProblem):
    """The daemon does not answer at its address on this host."""


class UnknownName(ApiProblem):
    """Unknown category or service, no dependency of this host on it, or an invalid name."""


class NotAllowed(ApiProblem):
    """The credential is not accepted, or a right is missing."""


class NobodyThere(ApiProblem):
    """The name exists, but has no usable listener."""


class NoneRegistered(NobodyThere):
    """No usable listener is registered, and none of the backup."""

    def __init__(self, name: str) -> None:
        text = f"{name}: no usable listener is registered, and no backup; 'opengnsc query' shows the registered ones"
        super().__init__("none-registered", text)


class NoneAnswers(NobodyThere):
    """Every usable listener was tried. `tried`: the failure at each address:port."""

    def __init__(self, name: str, tried: dict[str, str]) -> None:
        failures = "; ".join(f"{endpoint}: {failure}" for endpoint, failure in tried.items())
        super().__init__("none-answers", f"{name}: all {len(tried)} listeners tried have failed ({failures})")
        self.tried = tried


UNCHANGED = frozenset({"unknown-listener", "deregistered", "stale-epoch"})
"""Codes of refused deregistrations and reports that mean that the listener is already out of use."""
_KINDS: dict[str, type[ApiProblem]] = {
    "not-ready": NotLoaded,
    "busy": Unavailable,
    "store-unavailable": Unavailable,
    "unreachable": Unavailable,
    "bad-name": UnknownName,
    "unknown-category": UnknownName,
    "unknown-service": UnknownName,
    "unknown-dependency": UnknownName,
    "forbidden": NotAllowed,
    "bad-credential": NotAllowed,
}
"""Exception class for each refusal code; any other code raises ApiProblem."""


def refused(code: str, message: str, *, retry_after_seconds: float = 0.0, epoch: int = 0) -> ApiProblem:
    """Return the exception for a refusal of the daemon."""
    return _KINDS.get(code, ApiProblem)(code, message, retry_after_seconds=retry_after_seconds, epoch=epoch)


def may_pass(problem: ApiProblem) -> bool:
    """Return whether the same call may succeed later."""
    return isinstance(problem, Unavailable | DaemonUnreachable)

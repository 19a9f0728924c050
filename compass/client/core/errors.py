"""Why a program's question has no answer: one class for each thing that a program may want to do about it.

ApiProblem
├── DaemonUnreachable   nobody answers on this host: opengnscd is to be started
├── Unavailable         the daemon cannot do it now; again later
│   └── NotLoaded       it has not heard from a server yet (P5: which says nothing about what there is)
├── UnknownName         no such category or service, or none that this host depends on
├── NotAllowed          the credential, or the right to ask, is not accepted
└── NobodyThere         connect and resolve: the name exists, but there is nobody to use
    ├── NoneRegistered  no listener that could be used, and no backup
    └── NoneAnswers     there are listeners, and each of them was tried
"""

from __future__ import annotations


class ApiProblem(Exception):
    """Why there is no answer. `code`: the refusal's (opengnsp.md, "Refusals"), or one of this library's own:
    `unreachable` when the daemon itself does not answer, `malformed` when it cannot be understood, `none-registered`
    and `none-answers`. The text says what to do next."""

    def __init__(self, code: str, message: str, *, retry_after_seconds: float = 0.0, epoch: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.epoch = epoch


class Unavailable(ApiProblem):
    """It cannot be done now; the same question may be answered later."""


class NotLoaded(Unavailable):
    """The daemon runs, but has no view yet: no server could be reached since it was set up. This is no statement
    about what is registered."""


class DaemonUnreachable(ApiProblem):
    """Nobody answers at the daemon's place on this host."""


class UnknownName(ApiProblem):
    """There is no such category or service, or no service of this host depends on it, or it is no name."""


class NotAllowed(ApiProblem):
    """The credential or the right to do this is not accepted."""


class NobodyThere(ApiProblem):
    """The name exists, but nobody can be used under it."""


class NoneRegistered(NobodyThere):
    """Nothing is registered that could be used, the backup included."""

    def __init__(self, name: str) -> None:
        text = f"{name}: nothing is registered that could be used, and no backup; 'opengnsc query' shows what there is"
        super().__init__("none-registered", text)


class NoneAnswers(NobodyThere):
    """Every listener that could be used was tried. `tried`: address:port, and what happened there."""

    def __init__(self, name: str, tried: dict[str, str]) -> None:
        told = "; ".join(f"{where}: {what}" for where, what in tried.items())
        super().__init__("none-answers", f"{name}: none of the {len(tried)} listeners tried can be used ({told})")
        self.tried = tried


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
"""What a refusal is for a program; one that has no row here is an ApiProblem with its code."""


def refused(code: str, message: str, *, retry_after_seconds: float = 0.0, epoch: int = 0) -> ApiProblem:
    """A refusal of the daemon, as what is raised for it."""
    return _KINDS.get(code, ApiProblem)(code, message, retry_after_seconds=retry_after_seconds, epoch=epoch)


def may_pass(problem: ApiProblem) -> bool:
    """Whether asking again later may help, without anybody changing the question."""
    return isinstance(problem, Unavailable | DaemonUnreachable)

"""The client library: what a program says to the name service, and asks of it, by the daemon of its host.

    from compass import client

    with client.register("chinaserver.openuss", port=80):   # until the block ends, or the process dies
        ...

    for peer in client.resolve("openuss").listeners:        # best first; from memory after the first time
        ...
    with client.connect("openuss") as session:              # goes on with another listener when one fails
        session.use(lambda stream: ask(stream, b"..."))

These functions belong to one `Client` for the whole program, which finds the daemon by OPENGNS_API or at its usual
places. A program makes its own `Client` to say more. There are three faces over one core, with the same names:

    compass.client.Client             blocking, for threads; what the functions here use
    compass.client.asyncio.Client     coroutines
    compass.client.twisted.Client     Deferreds, on the reactor that it is given

`compass.client.httpx` and `compass.client.requests` let those two open `gns://openuss/path`. docs/client.md tells all
of it with examples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from compass.client.blocking import Client, Registration, Session
from compass.client.credential import CredentialProblem
from compass.client.place import Place, PlaceProblem, place_of
from compass.client.problems import (
    ApiProblem,
    DaemonUnreachable,
    NobodyThere,
    NoneAnswers,
    NoneRegistered,
    NotAllowed,
    NotLoaded,
    Unavailable,
    UnknownName,
)
from compass.client.view import View, Views, view_of
from compass.model.local import LocalEvent, Outcome, Resolved
from compass.model.replies import Dependencies
from compass.model.rows import Change, Listener

P = ParamSpec("P")
T = TypeVar("T")

__all__ = [
    "ApiProblem",
    "Change",
    "Client",
    "CredentialProblem",
    "DaemonUnreachable",
    "Dependencies",
    "Listener",
    "LocalEvent",
    "NobodyThere",
    "NoneAnswers",
    "NoneRegistered",
    "NotAllowed",
    "NotLoaded",
    "Outcome",
    "Place",
    "PlaceProblem",
    "Registration",
    "Resolved",
    "Session",
    "Unavailable",
    "UnknownName",
    "View",
    "Views",
    "attempt",
    "connect",
    "default",
    "dependencies",
    "place_of",
    "register",
    "report",
    "resolve",
    "view_of",
    "watch",
]


@functools.cache
def default() -> Client:
    """The client of the functions here, made when the first of them is called."""
    return Client()


def _by_default(method: Callable[Concatenate[Client, P], T]) -> Callable[P, T]:
    """A method of `Client` as a function for the whole program."""

    @functools.wraps(method)
    def called(*arguments: P.args, **named: P.kwargs) -> T:
        return method(default(), *arguments, **named)

    return called


resolve = _by_default(Client.resolve)
dependencies = _by_default(Client.dependencies)
watch = _by_default(Client.watch)
register = _by_default(Client.register)
report = _by_default(Client.report)
connect = _by_default(Client.connect)
attempt = _by_default(Client.attempt)

"""Client library of the name service, through the daemon of the program's host.

    from compass import client

    with client.register("chinaserver.openuss", port=80):   # until the block ends, or the process dies
        ...

    for peer in client.resolve("openuss").listeners:        # best first; from memory after the first time
        ...
    with client.connect("openuss") as session:              # fails over to another listener
        session.use(lambda stream: ask(stream, b"..."))

These functions use one `Client` for the whole program, which finds the daemon by OPENGNS_API or at its default
addresses. A program creates its own `Client` for other settings. Three variants have the same names over one core:

    compass.client.Client             blocking, for threads; what the functions here use
    compass.client.asyncio.Client     coroutines
    compass.client.twisted.Client     Deferreds, on a given reactor

`compass.client.httpx` and `compass.client.requests` let these two libraries open `gns://openuss/path`.
docs/reference/client.md describes everything with examples.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compass.client.blocking import Client, Registration, Session
    from compass.client.core.credential import CredentialProblem
    from compass.client.core.endpoint import (
        ApiEndpoint,
        InvalidEndpoint,
        Place,
        PlaceProblem,
        parse_api_endpoint,
        place_of,
    )
    from compass.client.core.errors import (
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
    from compass.client.core.shared_view import SharedView
    from compass.client.core.view import View, Views, view_of
    from compass.client.default_client import (
        attempt,
        connect,
        default,
        dependencies,
        register,
        report,
        resolve,
        shared,
        watch,
    )
    from compass.model.host_api import LocalEvent, Outcome, Resolved
    from compass.model.replies import Dependencies
    from compass.model.rows import Change, Listener

__all__ = [
    "ApiEndpoint",
    "ApiProblem",
    "Change",
    "Client",
    "CredentialProblem",
    "DaemonUnreachable",
    "Dependencies",
    "InvalidEndpoint",
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
    "SharedView",
    "Unavailable",
    "UnknownName",
    "View",
    "Views",
    "attempt",
    "connect",
    "default",
    "dependencies",
    "parse_api_endpoint",
    "place_of",
    "register",
    "report",
    "resolve",
    "shared",
    "view_of",
    "watch",
]

_HOMES = {
    "compass.client.blocking": ("Client", "Registration", "Session"),
    "compass.client.core.credential": ("CredentialProblem",),
    "compass.client.core.endpoint": (
        *("ApiEndpoint", "InvalidEndpoint", "Place", "PlaceProblem", "parse_api_endpoint", "place_of"),
    ),
    "compass.client.core.errors": (
        *("ApiProblem", "DaemonUnreachable", "NobodyThere", "NoneAnswers", "NoneRegistered", "NotAllowed"),
        *("NotLoaded", "Unavailable", "UnknownName"),
    ),
    "compass.client.default_client": (
        *("attempt", "connect", "default", "dependencies", "register", "report", "resolve", "shared", "watch"),
    ),
    "compass.client.core.shared_view": ("SharedView",),
    "compass.client.core.view": ("View", "Views", "view_of"),
    "compass.model.host_api": ("LocalEvent", "Outcome", "Resolved"),
    "compass.model.replies": ("Dependencies",),
    "compass.model.rows": ("Change", "Listener"),
}
"""Names by module. Each is imported at its first use, because `opengnsc`, for one, needs few of them."""


if not TYPE_CHECKING:
    # Hidden from type checkers, for which every name would exist.
    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                return globals().setdefault(name, getattr(importlib.import_module(home), name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

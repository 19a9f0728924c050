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
    from compass.client.blocking import Client as Client
    from compass.client.blocking import Registration as Registration
    from compass.client.blocking import Session as Session
    from compass.client.core.credential import CredentialProblem as CredentialProblem
    from compass.client.core.endpoint import ApiEndpoint as ApiEndpoint
    from compass.client.core.endpoint import InvalidEndpoint as InvalidEndpoint
    from compass.client.core.endpoint import Place as Place
    from compass.client.core.endpoint import PlaceProblem as PlaceProblem
    from compass.client.core.endpoint import parse_api_endpoint as parse_api_endpoint
    from compass.client.core.endpoint import place_of as place_of
    from compass.client.core.errors import ApiProblem as ApiProblem
    from compass.client.core.errors import DaemonUnreachable as DaemonUnreachable
    from compass.client.core.errors import NobodyThere as NobodyThere
    from compass.client.core.errors import NoneAnswers as NoneAnswers
    from compass.client.core.errors import NoneRegistered as NoneRegistered
    from compass.client.core.errors import NotAllowed as NotAllowed
    from compass.client.core.errors import NotLoaded as NotLoaded
    from compass.client.core.errors import Unavailable as Unavailable
    from compass.client.core.errors import UnknownName as UnknownName
    from compass.client.core.shared_view import SharedView as SharedView
    from compass.client.core.view import View as View
    from compass.client.core.view import Views as Views
    from compass.client.core.view import view_of as view_of
    from compass.client.default_client import attempt as attempt
    from compass.client.default_client import connect as connect
    from compass.client.default_client import default as default
    from compass.client.default_client import dependencies as dependencies
    from compass.client.default_client import register as register
    from compass.client.default_client import report as report
    from compass.client.default_client import resolve as resolve
    from compass.client.default_client import shared as shared
    from compass.client.default_client import watch as watch
    from compass.model.host_api import LocalEvent as LocalEvent
    from compass.model.host_api import Outcome as Outcome
    from compass.model.host_api import OwnCheck as OwnCheck
    from compass.model.host_api import Resolved as Resolved
    from compass.model.replies import Dependencies as Dependencies
    from compass.model.rows import Change as Change
    from compass.model.rows import Listener as Listener

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
    "compass.model.host_api": ("LocalEvent", "Outcome", "OwnCheck", "Resolved"),
    "compass.model.replies": ("Dependencies",),
    "compass.model.rows": ("Change", "Listener"),
}
"""Names by module. Each is imported at its first use, because `opengnsc`, for one, needs few of them."""
__all__ = sorted(name for names in _HOMES.values() for name in names)


if not TYPE_CHECKING:
    # Hidden from type checkers, for which every name would exist.
    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                return globals().setdefault(name, getattr(importlib.import_module(home), name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Default client of the program, and its methods as functions of `compass.client`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from compass.client.blocking import Client

P = ParamSpec("P")
T = TypeVar("T")


@functools.cache
def default() -> Client:
    """Return the default client, which is created at the first call."""
    return Client()


def _by_default(method: Callable[Concatenate[Client, P], T]) -> Callable[P, T]:
    """Turn a method of `Client` into a function that uses the default client."""

    @functools.wraps(method)
    def called(*arguments: P.args, **named: P.kwargs) -> T:
        return method(default(), *arguments, **named)

    return called


resolve = _by_default(Client.resolve)
dependencies = _by_default(Client.dependencies)
shared = _by_default(Client.shared)
watch = _by_default(Client.watch)
register = _by_default(Client.register)
report = _by_default(Client.report)
connect = _by_default(Client.connect)
attempt = _by_default(Client.attempt)

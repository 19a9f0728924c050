"""The client that belongs to the whole program: its methods as functions, which `compass.client` offers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from compass.client.blocking import Client

P = ParamSpec("P")
T = TypeVar("T")


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
shared = _by_default(Client.shared)
watch = _by_default(Client.watch)
register = _by_default(Client.register)
report = _by_default(Client.report)
connect = _by_default(Client.connect)
attempt = _by_default(Client.attempt)

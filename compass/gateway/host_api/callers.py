"""Callers: the program behind a request, its process numbers, and its life as that of what it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec
from twisted.web.server import Request

from compass.gateway.host_api.local_peers import user_of
from compass.model.host_api import PROCESSES_HEADER, LocalDeregister, LocalRegister
from compass.model.replies import Refusal
from compass.system.descriptors import ProcessDescriptor
from compass.system.process_numbers import Caller, ForeignProcess, descriptor_of_peer, local_number, process_of_peer

Numbered = TypeVar("Numbered", LocalRegister, LocalDeregister)
"""Request with a process number."""


def with_local_process(request: Request, asked: Numbered) -> Numbered | Refusal:
    """Return a request with its process number translated into the daemon's namespace, or its refusal."""
    if not asked.pid:
        return asked
    handle = _handle_of(request)
    process = process_of_peer(handle) if handle is not None else -1
    caller = Caller(user_of(request), process, request.getHeader(PROCESSES_HEADER) or "")
    try:
        number = local_number(asked.pid, caller)
    except ForeignProcess as problem:
        return Refusal("foreign-process", str(problem))
    return asked if number == asked.pid else msgspec.structs.replace(asked, pid=number)


def when_caller_ends(request: Request, ended: Callable[[], None]) -> Callable[[object], None]:
    """Call `ended` when the program that connected ends, also if a fork of it keeps the connection open.

    Returns a function that stops the watch. Nothing is watched over TCP, where the kernel names no process.
    """
    handle = _handle_of(request)
    descriptor = descriptor_of_peer(handle) if handle is not None else None
    if descriptor is None:
        return lambda _: None
    watched = ProcessDescriptor(descriptor, cast(Any, request.channel).transport.reactor, ended)
    watched.start()
    return lambda _: watched.stop()


def _handle_of(request: Request) -> Any:
    transport: Any = getattr(request.channel, "transport", None)
    return transport.getHandle() if hasattr(transport, "getHandle") else None

"""Answers to programs that must not wait for a server that does not answer: it may be stopped, or behind a dead
network, or wait for its store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred

from compass.model.interfaces import Clock
from compass.model.limits import PENDING_SECONDS

T = TypeVar("T")


def answer_soon(clock: Clock, asked: Deferred[T], late: Callable[[], T]) -> Deferred[T]:
    """Return the answer, or after PENDING_SECONDS what `late` returns. A later answer only has the effects of its own
    callbacks."""
    soon: Deferred[T] = Deferred()
    timer = clock.callLater(PENDING_SECONDS, lambda: soon.callback(late()))

    def answered(answer: T) -> None:
        if timer.active():
            timer.cancel()
            soon.callback(answer)

    asked.addCallback(answered)
    return soon

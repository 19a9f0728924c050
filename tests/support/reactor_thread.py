"""A real reactor in a thread of its own, for tests that need real sockets and processes."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.threads import blockingCallFromThread

T = TypeVar("T")


class ReactorThread:
    """`call` runs a function on the reactor and gives its result, also when that is a Deferred."""

    def __init__(self) -> None:
        self.reactor: Any = EPollReactor()
        self._thread = Thread(target=self.reactor.run, args=(False,), name="reactor", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        return blockingCallFromThread(self.reactor, function, *args, **more)

    def stop(self) -> None:
        self.reactor.callFromThread(self.reactor.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()

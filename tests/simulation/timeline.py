"""Virtual time: Twisted's `Clock` with its calls in a heap, because a deployment has hundreds of timers at any time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock


class Timeline(Clock):
    """Calls come in the order of their times, and those of one time in the order in which they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[tuple[float, int, Any]] = []
        self._asked = 0

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> Any:
        """See IReactorTime."""
        call: Any = DelayedCall(self.seconds() + delay, callable, args, kw, lambda _: None, self._push, self.seconds)
        self._push(call)
        return call

    def getDelayedCalls(self) -> Any:  # noqa: N802
        """See IReactorTime."""
        return [call for _, _, call in self._heap if call.active()]

    def next_at(self, otherwise: float) -> float:
        """The time of the next call."""
        while self._heap and not self._is_due(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else otherwise

    def advance(self, amount: float) -> None:
        """Let time pass, and make the calls whose time has come."""
        self.rightNow += amount
        while self._heap and self._heap[0][0] <= self.rightNow:
            at, number, call = heapq.heappop(self._heap)
            if self._is_due(at, number, call):
                call.called = 1
                call.func(*call.args, **call.kw)

    def _push(self, call: Any) -> None:
        self._asked += 1
        heapq.heappush(self._heap, (call.getTime(), self._asked, call))

    @staticmethod
    def _is_due(at: float, number: int, call: Any) -> bool:
        """Not cancelled, and not put off since."""
        return bool(call.active()) and call.getTime() == at

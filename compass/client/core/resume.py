"""A watch, and a held registration, that outlive the daemon's restarts: they come back and go on where they were."""

from __future__ import annotations

from collections.abc import Callable

from compass.client.core.api import HoldStream, HostApiCalls, WatchStream
from compass.client.core.errors import ApiProblem, may_pass
from compass.client.core.runtime import Runtime
from compass.model.backoff import retry_seconds
from compass.model.host_api import LocalEvent, LocalRegister, Outcome

Warn = Callable[[str], None]
"""Told once of each interruption, in words."""


class RetryPolicy:
    """What a failure means that is repeated: wait and try again, or give up."""

    def __init__(self, warn: Warn, is_transient: Callable[[ApiProblem], bool] = may_pass) -> None:
        """`passing`: whether a problem may be over when it is tried again."""
        self._warn = warn
        self._is_transient = is_transient
        self._failures = 0
        self._reached = False

    def succeeded(self) -> None:
        """The daemon has answered."""
        self._failures, self._reached = 0, True

    def pause_after(self, problem: ApiProblem | None) -> float:
        """The pause in seconds before the next attempt; None: the daemon has ended the connection. Raises the problem
        when the daemon has never been reached, or when no time can mend it."""
        if problem is not None and not (self._reached and self._is_transient(problem)):
            raise problem
        if not self._failures:
            self._warn(f"{problem.message if problem else 'opengnscd ended the connection'}; trying again")
        pause = max(retry_seconds(self._failures), problem.retry_after_seconds if problem else 0.0)
        self._failures += 1
        return pause


class ResumingWatch:
    """The events of a service's dependencies, without end, each once and in order."""

    def __init__(
        self,
        runtime: Runtime,
        calls: HostApiCalls,
        service: str,
        since: int | None,
        warn: Warn,
        is_transient: Callable[[ApiProblem], bool] = may_pass,
    ) -> None:
        self._runtime = runtime
        self._calls = calls
        self._service = service
        self._last = since
        self._retry = RetryPolicy(warn, is_transient)
        self._stream: WatchStream | None = None
        self._closed = False

    async def next(self) -> LocalEvent | None:
        """The next event; None once it is closed. Raises ApiProblem at the first attempt, and for a refusal that no
        time can mend."""
        while not self._closed:
            problem: ApiProblem | None = None
            try:
                if self._stream is None:
                    self._stream = await self._calls.watch(self._service, self._last)
                event = await self._stream.next()
                if event is not None:
                    self._retry.succeeded()
                    self._last = event.revision
                    return event
            except ApiProblem as caught:
                problem = caught
            self._drop()
            if not self._closed:
                await self._runtime.sleep(self._retry.pause_after(problem))
        self._drop()
        return None

    def close(self) -> None:
        """No more; who waits in `next` is told so."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        watched, self._stream = self._stream, None
        if watched is not None:
            watched.close()


class HeldRegistration:
    """A registration held by a connection, and made anew whenever the connection is lost."""

    def __init__(self, runtime: Runtime, calls: HostApiCalls, wish: LocalRegister, warn: Warn) -> None:
        self._runtime = runtime
        self._calls = calls
        self._request = wish
        self._retry = RetryPolicy(warn)
        self._stream: HoldStream | None = None
        self._closed = False

    async def next(self) -> Outcome | None:
        """The outcome of the first registration, then that of each one that replaces a lost one; None once it is
        closed. Raises as `Following.next` does."""
        if self._stream is not None:
            await self._stream.wait_closed()
            if not self._closed:
                await self._runtime.sleep(self._retry.pause_after(None))
        while not self._closed:
            try:
                self._stream = await self._calls.hold(self._request)
                self._retry.succeeded()
            except ApiProblem as problem:
                await self._runtime.sleep(self._retry.pause_after(problem))
                continue
            if self._closed:
                self._stream.close()
                return None
            return self._stream.outcome
        return None

    def close(self) -> None:
        """The registration is over."""
        self._closed = True
        if self._stream is not None:
            self._stream.close()

"""Watch, held registration and report that survive restarts of the daemon: they reconnect and resume."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection

from compass.client.core.api import HoldStream, HostApiCalls, WatchStream
from compass.client.core.errors import ApiProblem, may_pass
from compass.client.core.runtime import Task
from compass.client.core.view import View
from compass.model.backoff import retry_seconds
from compass.model.host_api import LocalEvent, LocalRegister, LocalReport, Outcome
from compass.model.limits import REPORT_SECONDS

MISSING_SPACING_SECONDS = 10.0
"""Time between two requests about a name that memory has no listener for: the daemon counts one in this time."""
MISSING_NAMES_MAX = 100
"""Names for which the time of the last such request is kept; beyond it the oldest is asked about again."""
Warn = Callable[[str], None]
"""Called once for each interruption, with a sentence."""


class RetryPolicy:
    """Policy for failures: retry after a pause, or give up."""

    def __init__(self, warn: Warn, permanent: Collection[str] = ()) -> None:
        """`permanent`: codes of further refusals that are not retried."""
        self._warn = warn
        self._permanent = permanent
        self._failures = 0
        self._reached = False

    def succeeded(self) -> None:
        """Record an answer of the daemon."""
        self._failures, self._reached = 0, True

    def pause_after(self, problem: ApiProblem | None) -> float:
        """Return the seconds before the next attempt. `problem` None: the daemon has closed the connection.

        Raises the problem if the daemon has never answered, or if the problem is permanent.
        """
        if problem is not None and (not self._reached or not may_pass(problem) or problem.code in self._permanent):
            raise problem
        if not self._failures:
            self._warn(f"{problem.message if problem else 'opengnscd ended the connection'}; retrying")
        pause = max(retry_seconds(self._failures), problem.retry_after_seconds if problem else 0.0)
        self._failures += 1
        return pause


class ResumingWatch:
    """Endless events of a service's dependencies, each once and in order."""

    def __init__(self, calls: HostApiCalls, service: str, since: int | None, retry: RetryPolicy) -> None:
        self._calls = calls
        self._service = service
        self._last = since
        self._retry = retry
        self._stream: WatchStream | None = None
        self._closed = False

    async def next(self) -> LocalEvent | None:
        """Return the next event, or None once the watch is closed. Raises ApiProblem at the first attempt, and for a
        permanent refusal."""
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
                await self._calls.runtime.sleep(self._retry.pause_after(problem))
        self._drop()
        return None

    def close(self) -> None:
        """Close the watch; a pending `next` returns None."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        watched, self._stream = self._stream, None
        if watched is not None:
            watched.close()


class HeldRegistration:
    """Registration held by a connection; it is repeated whenever the connection is lost."""

    def __init__(self, calls: HostApiCalls, request: LocalRegister, retry: RetryPolicy) -> None:
        self._calls = calls
        self._request = request
        self._retry = retry
        self._stream: HoldStream | None = None
        self._closed = False

    async def next(self) -> Outcome | None:
        """Return the outcome of the first registration, then that of each repetition; None once it is closed. Raises
        ApiProblem as `ResumingWatch.next` does."""
        if self._stream is not None:
            await self._stream.wait_closed()
            if not self._closed:
                await self._calls.runtime.sleep(self._retry.pause_after(None))
        while not self._closed:
            try:
                self._stream = await self._calls.hold(self._request)
                self._retry.succeeded()
            except ApiProblem as problem:
                await self._calls.runtime.sleep(self._retry.pause_after(problem))
                continue
            if self._closed:
                self._stream.close()
                return None
            return self._stream.outcome
        return None

    def close(self) -> None:
        """End the registration."""
        self._closed = True
        if self._stream is not None:
            self._stream.close()


class WatchedView:
    """View of a service's dependencies that a watch keeps up to date."""

    def __init__(self, following: ResumingWatch, view: View) -> None:
        self.watch = following
        self.view = view
        self.task: Task | None = None

    def close(self) -> None:
        """End the watch."""
        self.watch.close()
        if self.task is not None:
            self.task.cancel()


async def deliver_report(calls: HostApiCalls, report: LocalReport) -> None:
    """Deliver a report, also while the daemon restarts. Raises ApiProblem after REPORT_SECONDS, or if the daemon
    refuses."""
    deadline, attempts = calls.runtime.seconds() + REPORT_SECONDS, 0
    while True:
        try:
            await calls.report(report)
            return
        except ApiProblem as problem:
            pause = retry_seconds(attempts)
            if not may_pass(problem) or calls.runtime.seconds() + pause >= deadline:
                raise
        await calls.runtime.sleep(pause)
        attempts += 1


class MissingNames:
    """Names that were found to have no listener, and when the daemon was asked about each."""

    def __init__(self) -> None:
        self._asked_at: dict[str, float] = {}

    def is_due(self, name: str, now: float) -> bool:
        """Return whether the daemon is to be asked about a name now, and remember that it is."""
        if now - self._asked_at.get(name, -MISSING_SPACING_SECONDS) < MISSING_SPACING_SECONDS:
            return False
        self._asked_at.pop(name, None)
        self._asked_at[name] = now
        if len(self._asked_at) > MISSING_NAMES_MAX:
            self._asked_at.pop(next(iter(self._asked_at)), None)
        return True


async def ask_daemon(calls: HostApiCalls, name: str) -> None:
    """Look a name up at the daemon, whose answer does not matter: it counts names without a listener, and sees no
    lookup that a view in memory answers."""
    with contextlib.suppress(ApiProblem):
        await calls.resolve(name)

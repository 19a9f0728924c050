"""Calls of the host API for blocking programs; `opengnsc` uses them.

    api = HostApi(parse_api_endpoint("unix:/run/opengns/opengnscd.sock"))
    for peer in api.resolve("openuss").listeners:
        ...

Programs that serve or use services use `compass.client.Client`, which keeps a view.
"""

from __future__ import annotations

from collections.abc import Iterator

from compass.client.core.api import ANSWER_SECONDS, HostApiCalls
from compass.client.core.endpoint import ApiEndpoint, InvalidEndpoint, parse_api_endpoint
from compass.client.core.errors import ApiProblem
from compass.client.core.resume import HeldRegistration, ResumingWatch, Warn
from compass.client.core.threads import ThreadRuntime, run_sync
from compass.model.host_api import (
    HostStatus,
    LocalDeregister,
    LocalDrain,
    LocalEvent,
    LocalLoad,
    LocalRegister,
    LocalReport,
    Outcome,
    Resolved,
)
from compass.model.replies import Dependencies

__all__ = ["ApiEndpoint", "ApiProblem", "HostApi", "InvalidEndpoint", "parse_api_endpoint"]


class HostApi:
    """Blocking calls to the daemon of this host. See `HostApiCalls` for results and exceptions."""

    def __init__(self, endpoint: ApiEndpoint, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.endpoint = endpoint
        self._calls = HostApiCalls(ThreadRuntime(), endpoint, answer_seconds)

    def dependencies(self, service: str) -> Dependencies:
        return run_sync(self._calls.dependencies(service))

    def resolve(self, name: str) -> Resolved:
        return run_sync(self._calls.resolve(name))

    def register(self, request: LocalRegister) -> Outcome:
        return run_sync(self._calls.register(request))

    def deregister(self, request: LocalDeregister) -> Outcome:
        return run_sync(self._calls.deregister(request))

    def report_load(self, request: LocalLoad) -> Outcome:
        return run_sync(self._calls.report_load(request))

    def drain(self, request: LocalDrain) -> Outcome:
        return run_sync(self._calls.drain(request))

    def report(self, request: LocalReport) -> Outcome:
        return run_sync(self._calls.report(request))

    def status(self) -> HostStatus:
        return run_sync(self._calls.status())

    def holding(self, request: LocalRegister, warn: Warn) -> Holding:
        """Return a held registration, which is made by the first `next` and lasts until it is closed."""
        return Holding(HeldRegistration(self._calls, request, warn))

    def hold(self, request: LocalRegister, warn: Warn) -> Iterator[Outcome]:
        """Register with `hold`. Yields the outcome and that of each repetition; the registration ends with the
        iteration. `warn` is called for each interruption."""
        keeping = HeldRegistration(self._calls, request, warn)
        try:
            while (outcome := run_sync(keeping.next())) is not None:
                yield outcome
        finally:
            keeping.close()

    def follow(self, service: str, since: int | None, warn: Warn) -> Iterator[LocalEvent]:
        """Watch with reconnection: after an interruption, events continue after the last one. `warn` is called for each
        interruption. Raises ApiProblem if the daemon is unreachable at first, or refuses."""
        following = ResumingWatch(self._calls, service, since, warn)
        try:
            while (event := run_sync(following.next())) is not None:
                yield event
        finally:
            following.close()

    def watch(self, service: str, last_event_id: int | None = None) -> Iterator[LocalEvent]:
        """Yield the dependencies of `service` and then each change, until the connection ends.

        `last_event_id`: revision of the last event seen; then only later changes. Ends, or raises ApiProblem, if the
        connection is lost; to resume, call again with the last event's revision.
        """
        watched = run_sync(self._calls.watch(service, last_event_id))
        try:
            while (event := run_sync(watched.next())) is not None:
                yield event
        finally:
            watched.close()


class Holding:
    """Registration that lasts as long as its connection. One thread follows it, another one may close it."""

    def __init__(self, keeping: HeldRegistration) -> None:
        self._held = keeping

    def next(self) -> Outcome | None:
        """Return the outcome of the registration, then that of each repetition; None once it is closed. Raises
        ApiProblem at the first attempt, and for a permanent refusal."""
        return run_sync(self._held.next())

    def close(self) -> None:
        """End the registration. Unless it was deregistered before, its listener is reported as dead."""
        self._held.close()

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
from compass.client.core.resume import HeldRegistration, ResumingWatch, RetryPolicy, Warn
from compass.client.core.threads import ThreadRuntime, blocking, iterate_sync, run_sync
from compass.model.host_api import LocalEvent, LocalRegister, Outcome

__all__ = ["ApiEndpoint", "ApiProblem", "HostApi", "InvalidEndpoint", "parse_api_endpoint"]


class HostApi:
    """Blocking calls to the daemon of this host. See `HostApiCalls` for results and exceptions."""

    def __init__(self, endpoint: ApiEndpoint, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.endpoint = endpoint
        self.core = HostApiCalls(ThreadRuntime(), endpoint, answer_seconds)

    dependencies = blocking(HostApiCalls.dependencies)
    resolve = blocking(HostApiCalls.resolve)
    register = blocking(HostApiCalls.register)
    deregister = blocking(HostApiCalls.deregister)
    report_load = blocking(HostApiCalls.report_load)
    report_check = blocking(HostApiCalls.report_check)
    drain = blocking(HostApiCalls.drain)
    report = blocking(HostApiCalls.report)
    status = blocking(HostApiCalls.status)

    def holding(self, request: LocalRegister, warn: Warn) -> Holding:
        """Return a held registration, which is made by the first `next` and lasts until it is closed."""
        return Holding(HeldRegistration(self.core, request, RetryPolicy(warn)))

    def hold(self, request: LocalRegister, warn: Warn) -> Iterator[Outcome]:
        """Register with `hold`. Yields the outcome and that of each repetition; the registration ends with the
        iteration. `warn` is called for each interruption."""
        return iterate_sync(HeldRegistration(self.core, request, RetryPolicy(warn)))

    def follow(self, service: str, since: int | None, warn: Warn) -> Iterator[LocalEvent]:
        """Watch with reconnection: after an interruption, events continue after the last one. `warn` is called for each
        interruption. Raises ApiProblem if the daemon is unreachable at first, or refuses."""
        return iterate_sync(ResumingWatch(self.core, service, since, RetryPolicy(warn)))

    def watch(self, service: str, last_event_id: int | None = None) -> Iterator[LocalEvent]:
        """Yield the dependencies of `service` and then each change, until the connection ends.

        `last_event_id`: revision of the last event seen; then only later changes. Ends, or raises ApiProblem, if the
        connection is lost; to resume, call again with the last event's revision.
        """
        yield from iterate_sync(run_sync(self.core.watch(service, last_event_id)))


class Holding:
    """Registration that lasts as long as its connection. One thread follows it, another one may close it."""

    def __init__(self, held: HeldRegistration) -> None:
        self.core = held

    next = blocking(HeldRegistration.next)

    def close(self) -> None:
        """End the registration. Unless it was deregistered before, its listener is reported as dead."""
        self.core.close()

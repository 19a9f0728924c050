"""The calls of the host API for blocking programs: what `opengnsc` is made of.

    api = HostApi(place_of("unix:/run/opengns/opengnscd.sock"))
    for peer in api.resolve("openuss").listeners:
        ...

A program that serves or uses services takes `compass.client.Client`, which keeps what it learnt.
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
    """The daemon of this host, asked by one call after the other. See `Calls` for what each answers and raises."""

    def __init__(self, endpoint: ApiEndpoint, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.endpoint = endpoint
        self._runtime = ThreadRuntime()
        self._calls = HostApiCalls(self._runtime, endpoint, answer_seconds)

    def dependencies(self, service: str) -> Dependencies:
        """Function 2.3: what `service` depends on."""
        return run_sync(self._calls.dependencies(service))

    def resolve(self, name: str) -> Resolved:
        """The listeners to use for a service or a category, best first; none is an answer, too."""
        return run_sync(self._calls.resolve(name))

    def register(self, request: LocalRegister) -> Outcome:
        """Function 2.1. For one with `hold` there is the method of that name."""
        return run_sync(self._calls.register(request))

    def deregister(self, request: LocalDeregister) -> Outcome:
        """Function 2.2."""
        return run_sync(self._calls.deregister(request))

    def report_load(self, request: LocalLoad) -> Outcome:
        """How busy a listener of this host is."""
        return run_sync(self._calls.report_load(request))

    def drain(self, request: LocalDrain) -> Outcome:
        """A listener takes no new users, or takes them again."""
        return run_sync(self._calls.drain(request))

    def report(self, request: LocalReport) -> Outcome:
        """Function 2.5."""
        return run_sync(self._calls.report(request))

    def status(self) -> HostStatus:
        """The daemon in figures."""
        return run_sync(self._calls.status())

    def holding(self, request: LocalRegister, warn: Warn) -> Holding:
        """A registration with `hold`, made with the first `next`, until it is closed by whoever."""
        return Holding(HeldRegistration(self._runtime, self._calls, request, warn))

    def hold(self, request: LocalRegister, warn: Warn) -> Iterator[Outcome]:
        """A registration with `hold`: its outcome, and that of each one that replaces a lost one, for as long as it is
        iterated; then it is over. `lost` is told of each interruption."""
        keeping = HeldRegistration(self._runtime, self._calls, request, warn)
        try:
            while (outcome := run_sync(keeping.next())) is not None:
                yield outcome
        finally:
            keeping.close()

    def follow(self, service: str, since: int | None, warn: Warn) -> Iterator[LocalEvent]:
        """Like `watch`, but it comes back by itself and goes on after the last event; `lost` is told of each
        interruption. Raises ApiProblem when the daemon is not there at first, or refuses."""
        following = ResumingWatch(self._runtime, self._calls, service, since, warn)
        try:
            while (event := run_sync(following.next())) is not None:
                yield event
        finally:
            following.close()

    def watch(self, service: str, last_event_id: int | None = None) -> Iterator[LocalEvent]:
        """The dependencies of `service` and then each change of them, until the connection ends.

        With the revision of the last event seen, only what came later. Ends, or raises ApiProblem, when the
        connection is lost; to go on, call again with the last event's revision.
        """
        watched = run_sync(self._calls.watch(service, last_event_id))
        try:
            while (event := run_sync(watched.next())) is not None:
                yield event
        finally:
            watched.close()


class Holding:
    """A registration that lasts as long as its connection; one thread follows it, another one may end it."""

    def __init__(self, keeping: HeldRegistration) -> None:
        self._held = keeping

    def next(self) -> Outcome | None:
        """The outcome of the registration, then of each one that replaces a lost one; None once it is closed. Raises
        ApiProblem at first, and for a refusal that no time can mend."""
        return run_sync(self._held.next())

    def close(self) -> None:
        """The registration is over; unless it was deregistered before, its users are told that it died."""
        self._held.close()

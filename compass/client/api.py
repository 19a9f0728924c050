"""The calls of the host API for blocking programs: what `opengnsc` is made of.

    api = HostApi(place_of("unix:/run/opengns/opengnscd.sock"))
    for peer in api.resolve("openuss").listeners:
        ...

A program that serves or uses services takes `compass.client.Client`, which keeps what it learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from compass.client.blocking import Threads, now
from compass.client.calls import ANSWER_SECONDS, Calls
from compass.client.place import Place, PlaceProblem, place_of
from compass.client.problems import ApiProblem
from compass.model.local import (
    HostStatus,
    LocalDeregister,
    LocalEvent,
    LocalRegister,
    LocalReport,
    Outcome,
    Resolved,
)
from compass.model.replies import Dependencies

__all__ = ["ApiProblem", "HostApi", "Place", "PlaceProblem", "place_of"]


class HostApi:
    """The daemon of this host, asked by one call after the other. See `Calls` for what each answers and raises."""

    def __init__(self, place: Place, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.place = place
        self._calls = Calls(Threads(), place, answer_seconds)

    def dependencies(self, service: str) -> Dependencies:
        """Function 2.3: what `service` depends on."""
        return now(self._calls.dependencies(service))

    def resolve(self, name: str) -> Resolved:
        """The listeners to use for a service or a category, best first; none is an answer, too."""
        return now(self._calls.resolve(name))

    def register(self, request: LocalRegister) -> Outcome:
        """Function 2.1. For one with `hold` there is the method of that name."""
        return now(self._calls.register(request))

    def deregister(self, request: LocalDeregister) -> Outcome:
        """Function 2.2."""
        return now(self._calls.deregister(request))

    def report(self, request: LocalReport) -> Outcome:
        """Function 2.5."""
        return now(self._calls.report(request))

    def status(self) -> HostStatus:
        """The daemon in figures."""
        return now(self._calls.status())

    def hold(self, request: LocalRegister, told: Callable[[Outcome], None]) -> None:
        """A registration with `hold`: calls `told` with its outcome, and comes back when the daemon ends it. It is
        over as soon as this call is, however it ends."""
        held = now(self._calls.hold(request))
        try:
            told(held.outcome)
            now(held.ended())
        finally:
            held.close()

    def watch(self, service: str, last_event_id: int | None = None) -> Iterator[LocalEvent]:
        """The dependencies of `service` and then each change of them, until the connection ends.

        With the revision of the last event seen, only what came later. Ends, or raises ApiProblem, when the
        connection is lost; to go on, call again with the last event's revision.
        """
        watched = now(self._calls.watch(service, last_event_id))
        try:
            while (event := now(watched.next())) is not None:
                yield event
        finally:
            watched.close()

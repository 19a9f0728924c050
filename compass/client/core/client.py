"""The client library, once for all faces: what a program knows of others, and what others are told of it.

    events of the daemon -> View (per service) -> resolve -> attempt / Session -> blame -> report
    register -> Registration -> end

`resolve` asks the daemon once, for the watch; from then on it is answered from the view that the watch keeps up to
date, also while the daemon is restarted. Names that the service does not depend on are asked for each time.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, TypedDict, TypeVar, Unpack

from compass.client.core.api import ANSWER_SECONDS, HostApiCalls
from compass.client.core.credential import credential_from
from compass.client.core.endpoint import ApiEndpoint, parse_api_endpoint
from compass.client.core.errors import ApiProblem, NoneRegistered, NotLoaded, may_pass, refused
from compass.client.core.resume import HeldRegistration, ResumingWatch, RetryPolicy, Warn
from compass.client.core.runtime import Runtime, Task
from compass.client.core.session import Failures, attempt
from compass.client.core.shared_view import SharedView
from compass.client.core.view import FailedListeners, View, Views, view_of
from compass.model.host_api import LocalDeregister, LocalEvent, LocalLoad, LocalRegister, LocalReport, Outcome, Resolved
from compass.model.replies import Dependencies, Refusal
from compass.model.rows import IDLE, USABLE, Listener
from compass.model.selection.policies import Location as Surroundings
from compass.model.selection.selector import Selector

PATIENCE_SECONDS = 10.0
"""How long a registration waits for a daemon that is not there: a restart takes a second or two."""
REPORT_SECONDS = 5.0
"""For the daemon to take a report that nobody waits for; a program that ends does not end later than that."""
UNCHANGED = frozenset({"unknown-listener", "deregistered", "stale-epoch"})
"""Refusals of a deregistration, or a report, that say that the listener is out of use already."""

T = TypeVar("T")

_log = logging.getLogger("compass.client")


class Options(TypedDict, total=False):
    """What more can be said of a registration."""

    address: str
    """Where this process listens; else the one that the daemon is set up with."""
    credential: str
    """The service's token itself."""
    credential_file: str | os.PathLike[str]
    """The file that holds it: the best way. Else OPENGNS_CREDENTIAL_FILE, else OPENGNS_CREDENTIAL."""
    zone: str
    """Where it is, as a label; else the zone that the daemon is set up with."""
    load: float
    degradation: float
    """Share of its capacity in use, and how much of it one more user takes, for the policies that go by load."""
    weight: int
    """Its share of users, 1 by default; 0: last resort."""
    metadata: dict[str, str]
    """For its users."""
    hold: bool
    """The daemon sees the end of this process by a connection that this program keeps, instead of by the process's
    number: for a container with processes of its own."""
    patience_seconds: float
    """How long a daemon that is not there is waited for; PATIENCE_SECONDS by default."""


class CoreClient:
    """What a program asks of the name service, on one runtime.

    `service`: on whose behalf it asks, that is, whose declared dependencies it uses; else OPENGNS_SERVICE, which
    `opengnsc run` sets, else the first service that it registers. `api`: where the daemon listens; else OPENGNS_API.
    `views`: where views are looked for before the core watches by itself. Raises InvalidEndpoint.
    """

    def __init__(
        self,
        runtime: Runtime,
        service: str = "",
        api: str | ApiEndpoint = "",
        answer_seconds: float = ANSWER_SECONDS,
        views: Views | None = None,
        warn: Warn = _log.warning,
    ) -> None:
        self.endpoint = (
            api if isinstance(api, ApiEndpoint) else parse_api_endpoint(api or os.environ.get("OPENGNS_API", ""))
        )
        self.service = service or os.environ.get("OPENGNS_SERVICE", "")
        self.calls = HostApiCalls(runtime, self.endpoint, answer_seconds)
        self.runtime = runtime
        self._reports = HostApiCalls(runtime, self.endpoint, min(REPORT_SECONDS, answer_seconds))
        self._views = views
        self.warn = warn
        """Told of what goes on without this program's doing: interruptions, and what could not be delivered."""
        self._failed_listeners = FailedListeners()
        self._selector = Selector(runtime.random)
        self._watched: dict[str, _WatchedView] = {}

    # What others are --------------------------------------------------------------------------------------

    async def resolve(self, name: str) -> Resolved:
        """The listeners to use for a service or a category, best first, never none.

        Raises NoneRegistered, UnknownName, NotLoaded, DaemonUnreachable.
        """
        view = await self._view(self.service) if self.service else None
        if view is None:
            resolved = await self.calls.resolve(name)
        else:
            answer = view.resolve(name, self._selector, self._failed_listeners, self.runtime.seconds())
            if isinstance(answer, Refusal) and answer.code == "unknown-dependency":
                # Another service of this host may depend on it; the daemon knows, and says so better if not.
                resolved = await self.calls.resolve(name)
            elif isinstance(answer, Refusal):
                raise refused(answer.code, answer.message)
            else:
                resolved = answer
        if not resolved.listeners:
            raise NoneRegistered(name)
        return resolved

    async def dependencies(self, service: str = "") -> Dependencies:
        """Function 2.3: all that a service depends on, this program's own by default. Raises ApiProblem."""
        whose = self._service_or_default(service)
        kept = self._external_view(whose) or self._own_view(whose)
        return kept.dependencies() if kept is not None else await self.calls.dependencies(whose)

    async def shared(self, service: str = "", directory: str = "") -> SharedView:
        """The daemon's view in memory, for lookups that cost no call. `directory`: else the daemon is asked for it.
        Raises NotLoaded when it shares none, DaemonUnreachable."""
        whose = self._service_or_default(service)
        where = directory or (await self.calls.status()).view
        if not where:
            raise NotLoaded("not-ready", "opengnscd shares no view on this host: see [host] view in its configuration")
        if not directory:
            # So that the daemon is told what the service depends on, if it is not yet.
            await self.calls.dependencies(whose)
        return SharedView(where, whose)

    def follow(self, service: str = "", since: int | None = None) -> ResumingWatch:
        """The dependencies of a service and then each change of them, also over restarts of the daemon."""
        return ResumingWatch(self.runtime, self.calls, self._service_or_default(service), since, self.warn)

    async def watch(self, service: str = "", since: int | None = None) -> AsyncIterator[LocalEvent]:
        """The same as an iterator: `async for event in client.watch("portal.web")`. Raises ApiProblem when the daemon
        is not there at first, or refuses."""
        following = self.follow(service, since)
        try:
            while (event := await following.next()) is not None:
                yield event
        finally:
            following.close()

    # Using them -------------------------------------------------------------------------------------------

    async def attempt(self, name: str, once: Callable[[Listener], Awaitable[T]], failures: Failures = (OSError,)) -> T:
        """Do `once` with one listener of `name` after the other, best first, until it does not raise one of
        `failures`; those that failed are avoided and reported. Raises NobodyThere, and what `resolve` does."""
        return await attempt(self, name, once, failures)

    # What it is itself ------------------------------------------------------------------------------------

    async def register(self, service: str, port: int, **options: Unpack[Options]) -> Registration:
        """Say that this process serves `service` at `port` (function 2.1), until the registration is ended.

        When the process dies, however, its users are told within a second. Raises CredentialProblem, ApiProblem.
        """
        hold = options.get("hold", False)
        wish = LocalRegister(
            service,
            port,
            credential_from(options.get("credential", ""), options.get("credential_file", ""), _log.warning),
            options.get("address", ""),
            options.get("weight", 1),
            options.get("metadata", {}),
            0 if hold else os.getpid(),
            hold,
            options.get("zone", ""),
            options.get("load", IDLE),
            options.get("degradation", IDLE),
        )
        keeping = HeldRegistration(self.runtime, self.calls, wish, self.warn) if hold else None
        give_up = self.runtime.seconds() + options.get("patience_seconds", PATIENCE_SECONDS)
        patience = RetryPolicy(self.warn)
        patience.succeeded()
        while True:
            try:
                outcome = await (keeping.next() if keeping else self.calls.register(wish))
                break
            except ApiProblem as problem:
                left = give_up - self.runtime.seconds()
                if not may_pass(problem) or left <= 0:
                    raise
                await self.runtime.sleep(min(patience.pause_after(problem), left))
        assert outcome is not None  # Nobody has closed it.
        self.service = self.service or service
        return Registration(self, wish, outcome, keeping)

    # What it found out ------------------------------------------------------------------------------------

    async def report(
        self,
        service: str,
        address: str,
        port: int,
        *,
        state: Literal["unreachable", "slow"] = "unreachable",
        detail: str = "",
    ) -> Outcome:
        """Say that a listener is dead or slow (function 2.5). Raises ApiProblem."""
        return await self.calls.report(LocalReport(service, address, port, state, self.service, detail))

    def report_failure(self, peer: Listener, detail: str) -> None:
        """A listener failed here: avoid it, and report it unless that is known already. Nobody waits for the report."""
        _log.info("%s at %s port %d failed: %s", peer.service, peer.address, peer.port, detail)
        kept = self._own_view(self.service)
        row = kept.catalogue.listener(peer.service, peer.address, peer.port) if kept else None
        self._failed_listeners.add(row or peer, self.runtime.seconds())
        if peer.state in USABLE or peer.state == "draining":
            self.runtime.spawn(self._deliver(peer, detail), wait_at_exit=True)

    def mark_healthy(self, peer: Listener) -> None:
        """A listener works."""
        self._failed_listeners.remove(peer)

    async def _deliver(self, peer: Listener, detail: str) -> None:
        report = LocalReport(peer.service, peer.address, peer.port, "unreachable", self.service, detail)
        try:
            await self._reports.report(report)
        except ApiProblem as problem:
            # That it is registered no more is what the report would have led to.
            if problem.code not in UNCHANGED:
                where = f"{peer.service} at {peer.address} port {peer.port}"
                self.warn(f"{where} could not be reported: {problem.message}")

    # Life -------------------------------------------------------------------------------------------------

    def stop_watches(self) -> None:
        """Watch no more. Registrations stay until they are ended."""
        kept, self._watched = self._watched, {}
        for one in kept.values():
            one.close()

    def reset_after_fork(self) -> None:
        """In the child of a fork: the views were kept by what only the parent has. They begin anew when needed."""
        # Nothing is closed: the connection is the parent's, too.
        self._watched = {}

    # The views --------------------------------------------------------------------------------------------

    def _service_or_default(self, service: str) -> str:
        if service or self.service:
            return service or self.service
        text = "say on behalf of which service: Client(service='portal.web'), or OPENGNS_SERVICE in the environment"
        raise refused("bad-name", text)

    def _external_view(self, service: str) -> View | None:
        return self._views.view(service) if self._views is not None else None

    def _own_view(self, service: str) -> View | None:
        kept = self._watched.get(service)
        return kept.view if kept is not None else None

    async def _view(self, service: str) -> View | None:
        """What is known at once, else what the first event of a watch says. None: too many programs watch."""
        view = self._external_view(service) or self._own_view(service)
        if view is not None:
            return view
        following = ResumingWatch(self.runtime, self.calls, service, None, self.warn, _may_follow_later)
        try:
            first = await following.next()
            await self._update_location()
        except ApiProblem as problem:
            following.close()
            if problem.code == "busy":
                return None
            raise
        except BaseException:
            following.close()
            raise
        assert first is not None and isinstance(first.data, Dependencies)  # A watch without a revision begins so.
        mine = _WatchedView(following, view_of(first.data))
        kept = self._watched.setdefault(service, mine)
        if kept is not mine:
            # Another thread, or task, was quicker.
            following.close()
            return kept.view
        mine.task = self.runtime.spawn(self._follow(service, mine))
        return mine.view

    async def _update_location(self) -> None:
        """Where this is, so that near listeners can come first; no reason to fail when that cannot be told now."""
        with contextlib.suppress(ApiProblem):
            status = await self.calls.status()
            self._selector.moved(Surroundings(status.host, status.zone))

    async def _follow(self, service: str, kept: _WatchedView) -> None:
        """Follow, until it is closed or refused; then the next lookup asks again, and is told why."""
        try:
            while (event := await kept.watch.next()) is not None:
                kept.view = kept.view.after(event)
        except ApiProblem as problem:
            self.warn(f"{service}: {problem.message}")
        finally:
            kept.watch.close()
            if self._watched.get(service) is kept:
                del self._watched[service]


def _may_follow_later(problem: ApiProblem) -> bool:
    """A daemon that has too many watchers answers each lookup, which is better than a view that grows old."""
    return may_pass(problem) and problem.code != "busy"


class Registration:
    """One listener of this process, until `end`."""

    def __init__(
        self, core: CoreClient, wish: LocalRegister, outcome: Outcome, keeping: HeldRegistration | None
    ) -> None:
        self.outcome = outcome
        """`state` is `pending` while no server could be asked: the daemon keeps it and delivers it."""
        self._core = core
        self._wish = wish
        self._process = os.getpid()
        self._held = keeping
        self._ended = False
        self._task = core.runtime.spawn(self._follow(keeping)) if keeping is not None else None

    async def report_load(self, load: float) -> None:
        """Say how much of this listener is in use, from 0 (idle) to 1 (full); each report is told to all its users.
        Raises ApiProblem."""
        wish = self._wish
        await self._core.calls.report_load(LocalLoad(wish.service, wish.port, wish.credential, load, wish.address))

    async def end(self) -> None:
        """Deregister (function 2.2). Harmless when it is over already, and in a forked child, whose it is not.

        What goes wrong is only told, not raised: the listener is gone with the process in any case.
        """
        if self._ended or self._process != os.getpid():
            return
        self._ended = True
        wish, epoch = self._wish, self.outcome.epoch
        request = LocalDeregister(wish.service, wish.port, wish.credential, wish.address, epoch)
        try:
            await self._core.calls.deregister(request)
        except ApiProblem as problem:
            if problem.code not in UNCHANGED:
                self._core.warn(f"{wish.service} at port {wish.port} could not be deregistered: {problem.message}")
        finally:
            if self._held is not None:
                self._held.close()
            if self._task is not None:
                self._task.stop()

    async def _follow(self, keeping: HeldRegistration) -> None:
        try:
            while (outcome := await keeping.next()) is not None:
                self.outcome = outcome
        except ApiProblem as problem:
            self._core.warn(f"{self._wish.service} at port {self._wish.port} is not registered: {problem.message}")


class _WatchedView:
    """A view that is kept up to date."""

    def __init__(self, following: ResumingWatch, view: View) -> None:
        self.watch = following
        self.view = view
        self.task: Task | None = None

    def close(self) -> None:
        """No more."""
        self.watch.close()
        if self.task is not None:
            self.task.stop()

"""Core of the client library, once for all variants: lookups, watches, registrations and reports.

    events of the daemon -> View (per service) -> resolve -> attempt / Session -> report_failure -> report
    register -> Registration -> end

The first `resolve` starts a watch at the daemon; later ones are answered from the view that the watch keeps up to
date, also while the daemon restarts. Names that the service does not depend on are asked from the daemon each time.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, TypeVar, Unpack

import msgspec

from compass.client.core.api import ANSWER_SECONDS, HostApiCalls, Options
from compass.client.core.credential import NoCredential, credential_from
from compass.client.core.endpoint import ApiEndpoint, parse_api_endpoint
from compass.client.core.errors import UNCHANGED, ApiProblem, NoneRegistered, NotLoaded, may_pass, refused
from compass.client.core.resume import (
    HeldRegistration,
    MissingNames,
    ResumingWatch,
    RetryPolicy,
    Warn,
    WatchedView,
    ask_daemon,
    deliver_report,
)
from compass.client.core.runtime import Runtime
from compass.client.core.session import Failures, attempt
from compass.client.core.shared_view import SharedView
from compass.client.core.view import FailedListeners, View, Views, view_of
from compass.model.host_api import (
    LocalCheckResult,
    LocalDeregister,
    LocalEvent,
    LocalLoad,
    LocalRegister,
    LocalReport,
    Outcome,
    Resolved,
    check_of,
)
from compass.model.limits import DETAIL_MAX, REPORT_SECONDS
from compass.model.replies import Dependencies, Refusal
from compass.model.rows import IDLE, USABLE, Listener
from compass.model.selection.policies import Location
from compass.model.selection.selector import Selector
from compass.model.text import escape_line

PATIENCE_SECONDS = 10.0
"""Seconds that a registration waits for an unreachable daemon: a restart takes a second or two."""
T = TypeVar("T")

_log = logging.getLogger("compass.client")


class CoreClient:
    """Client of the name service on one runtime.

    `service`: the service whose dependencies are used; else OPENGNS_SERVICE, which `opengnsc run` sets, else the first
    service that is registered. `api`: the daemon's address; else OPENGNS_API. `views`: a source of views that is tried
    before the core watches by itself. Raises InvalidEndpoint.
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
        """Called with a sentence for each interruption and each failed delivery."""
        self._failed_listeners = FailedListeners()
        self._missing = MissingNames()
        self._selector = Selector(random.random)
        self._watched: dict[str, WatchedView] = {}

    # Lookups ----------------------------------------------------------------------------------------------

    async def resolve(self, name: str) -> Resolved:
        """Return the listeners to use for a service or a category, best first, at least one.

        Raises NoneRegistered, UnknownName, NotLoaded, DaemonUnreachable.
        """
        view = await self._view(self.service) if self.service else None
        if view is None:
            resolved = await self.calls.resolve(name)
        else:
            answer = view.resolve(name, self._selector, self._failed_listeners, self.runtime.seconds())
            if isinstance(answer, Refusal) and answer.code == "unknown-dependency":
                # Another service of this host may depend on the name; the daemon knows, or refuses with a better text.
                resolved = await self.calls.resolve(name)
            elif isinstance(answer, Refusal):
                raise refused(answer.code, answer.message)
            else:
                resolved = answer
                if not answer.listeners and self._missing.is_due(name, self.runtime.seconds()):
                    self.runtime.spawn(ask_daemon(self._reports, name))
        if not resolved.listeners:
            raise NoneRegistered(name)
        ordered = self._failed_listeners.last(resolved.listeners, self.runtime.seconds())
        return msgspec.structs.replace(resolved, listeners=ordered)

    async def dependencies(self, service: str = "") -> Dependencies:
        """Return the dependencies of a service, by default this program's own (function 2.3). Raises ApiProblem."""
        name = self._service_or_default(service)
        view = self._external_view(name) or self._own_view(name)
        return view.dependencies() if view is not None else await self.calls.dependencies(name)

    async def shared(self, service: str = "", directory: str = "") -> SharedView:
        """Return the daemon's shared view (`directory`: its place). Raises NotLoaded, DaemonUnreachable."""
        name = self._service_or_default(service)
        path = directory or (await self.calls.status()).view
        if not path:
            raise NotLoaded("not-ready", "opengnscd shares no view on this host: see [host] view in its configuration")
        if not directory:
            # Makes the daemon subscribe to the dependencies of the service, if it has not yet.
            await self.calls.dependencies(name)
        return SharedView(path, name, self.endpoint)

    def follow(self, service: str = "", since: int | None = None) -> ResumingWatch:
        """Return a watch of the dependencies of a service that survives restarts of the daemon."""
        return ResumingWatch(self.calls, self._service_or_default(service), since, RetryPolicy(self.warn))

    async def watch(self, service: str = "", since: int | None = None) -> AsyncIterator[LocalEvent]:
        """Yield the dependencies of a service and then each change. Raises ApiProblem, also if unreachable."""
        following = self.follow(service, since)
        try:
            while (event := await following.next()) is not None:
                yield event
        finally:
            following.close()

    async def attempt(self, name: str, once: Callable[[Listener], Awaitable[T]], failures: Failures = (OSError,)) -> T:
        """Call `once` with each listener, best first, until none of `failures` is raised; report those that fail."""
        return await attempt(self, name, once, failures)

    # Registrations ----------------------------------------------------------------------------------------

    async def register(self, service: str, port: int, **options: Unpack[Options]) -> Registration:
        """Register `service` at `port` for this process (function 2.1), until the registration or the process ends.
        Raises CredentialProblem, ApiProblem."""
        hold = options.get("hold", False)
        request = LocalRegister(
            service,
            port,
            await self._credential(options.get("credential", ""), options.get("credential_file", "")),
            options.get("address", ""),
            options.get("weight", 1),
            options.get("metadata", {}),
            0 if hold else os.getpid(),
            hold,
            options.get("zone", ""),
            options.get("load", IDLE),
            options.get("degradation", IDLE),
            check_of(options.get("check")),
            options.get("shared", False) and not hold,
        )
        held = HeldRegistration(self.calls, request, RetryPolicy(self.warn)) if hold else None
        deadline = self.runtime.seconds() + options.get("patience_seconds", PATIENCE_SECONDS)
        retry = RetryPolicy(self.warn)
        retry.succeeded()
        while True:
            try:
                outcome = await (held.next() if held else self._registered(request))
                break
            except ApiProblem as problem:
                if problem.code == "malformed" and request.shared:
                    # A daemon of an earlier version; the newest worker counts there.
                    request = msgspec.structs.replace(request, shared=False)
                    continue
                if problem.code == "foreign-process" and held is None:
                    # The daemon does not see the processes of this container, but it sees a connection.
                    request = msgspec.structs.replace(request, pid=0, hold=True, shared=False)
                    held = HeldRegistration(self.calls, request, RetryPolicy(self.warn))
                    continue
                left = deadline - self.runtime.seconds()
                if not may_pass(problem) or left <= 0:
                    raise
                await self.runtime.sleep(min(retry.pause_after(problem), left))
        assert outcome is not None  # The held registration is not closed.
        self.service = self.service or service
        return Registration(self, request, outcome, held)

    async def _credential(self, token: str, file: str | os.PathLike[str]) -> str:
        """Return the credential, empty in development mode if there is none. Raises CredentialProblem."""
        try:
            return credential_from(token, file, _log.warning)
        except NoCredential:
            with contextlib.suppress(ApiProblem):
                if (await self.calls.status()).development:
                    return ""
            raise

    async def _registered(self, request: LocalRegister) -> Outcome:
        # A caller that is cancelled meanwhile gets no registration, so none may be left of it.
        once = functools.partial(self.calls.register, request)
        return await self.runtime.complete(once, lambda outcome: self.deregister(request, outcome.epoch))

    async def deregister(self, own: LocalRegister, epoch: int) -> None:
        """Deregister what `own` has registered. Problems are only logged."""
        leaving = own.pid if own.shared else 0
        request = LocalDeregister(own.service, own.port, own.credential, own.address, epoch, leaving)
        try:
            await self.calls.deregister(request)
        except ApiProblem as problem:
            if problem.code not in UNCHANGED:
                self.warn(f"{own.service} at port {own.port} could not be deregistered: {problem.message}")

    # Reports ----------------------------------------------------------------------------------------------

    async def report(
        self,
        service: str,
        address: str,
        port: int,
        *,
        state: Literal["unreachable", "slow"] = "unreachable",
        detail: str = "",
    ) -> Outcome:
        """Report a listener that is unreachable or slow (function 2.5). Raises ApiProblem."""
        return await self.calls.report(LocalReport(service, address, port, state, self.service, detail))

    def report_failure(self, peer: Listener, detail: str) -> None:
        """Avoid a listener that failed here, and report it in the background unless its failure is known."""
        _log.info("%s at %s port %d failed: %s", peer.service, peer.address, peer.port, detail)
        kept = self._own_view(self.service)
        row = kept.catalogue.listener(peer.service, peer.address, peer.port) if kept else None
        self._failed_listeners.add(row or peer, self.runtime.seconds())
        if peer.state in USABLE or peer.state == "draining":
            self.runtime.spawn(self._deliver(peer, detail), wait_at_exit=True)

    def mark_healthy(self, peer: Listener) -> None:
        """Stop avoiding a listener that works."""
        self._failed_listeners.remove(peer)

    async def _deliver(self, peer: Listener, detail: str) -> None:
        report = LocalReport(peer.service, peer.address, peer.port, "unreachable", self.service, detail)
        try:
            await deliver_report(self._reports, report)
        except ApiProblem as problem:
            if problem.code not in UNCHANGED:
                self.warn(f"{peer.service} at {peer.address} port {peer.port} could not be reported: {problem.message}")

    # Lifecycle --------------------------------------------------------------------------------------------

    def stop_watches(self) -> None:
        """Stop all watches. Registrations stay until they are ended."""
        kept, self._watched = self._watched, {}
        for one in kept.values():
            one.close()

    def reset_after_fork(self) -> None:
        """Drop the watches in the child of a fork: only the parent's threads follow them. They restart on demand."""
        # Nothing is closed: the parent uses the same connections.
        self._watched = {}

    # Views ------------------------------------------------------------------------------------------------

    def _service_or_default(self, service: str) -> str:
        if service or self.service:
            return service or self.service
        text = "name the service of this program: Client(service='portal.web'), or OPENGNS_SERVICE in the environment"
        raise refused("bad-name", text)

    def _external_view(self, service: str) -> View | None:
        return self._views.view(service) if self._views is not None else None

    def _own_view(self, service: str) -> View | None:
        kept = self._watched.get(service)
        return kept.view if kept is not None else None

    async def _view(self, service: str) -> View | None:
        """Return the current view, else that of a new watch's first event; None if the daemon has too many watchers."""
        view = self._external_view(service) or self._own_view(service)
        if view is not None:
            return view
        # A daemon that has too many watchers is asked for each lookup instead.
        following = ResumingWatch(self.calls, service, None, RetryPolicy(self.warn, permanent={"busy"}))
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
        own = WatchedView(following, view_of(first.data))
        watched = self._watched.setdefault(service, own)
        if watched is not own:
            # Another thread or task has started a watch in the meantime.
            following.close()
            return watched.view
        own.task = self.runtime.spawn(self._follow(service, own))
        return own.view

    async def _update_location(self) -> None:
        """Fetch the location of this host, so that near listeners come first. Failures are ignored."""
        with contextlib.suppress(ApiProblem):
            status = await self.calls.status()
            self._selector.moved(Location(status.host, status.zone))

    async def _follow(self, service: str, kept: WatchedView) -> None:
        """Update the view until the watch is closed or refused. After a refusal, the next lookup asks the daemon."""
        try:
            while (event := await kept.watch.next()) is not None:
                kept.view = kept.view.after(event)
        except ApiProblem as problem:
            self.warn(f"{service}: {problem.message}")
        finally:
            kept.watch.close()
            if self._watched.get(service) is kept:
                del self._watched[service]


class Registration:
    """Registration of one listener of this process, until `end`."""

    def __init__(
        self, core: CoreClient, request: LocalRegister, outcome: Outcome, held: HeldRegistration | None
    ) -> None:
        self.outcome = outcome
        """Result of the registration. Its `state` is `pending` until the daemon has delivered it to a server."""
        self._core = core
        self._request = request
        self._process = os.getpid()
        self._held = held
        self._ended = False
        self._task = core.runtime.spawn(self._follow(held)) if held is not None else None

    async def report_load(self, load: float) -> None:
        """Report the load of this listener to its users, from 0 (idle) to 1 (full). Raises ApiProblem."""
        own = self._request
        await self._core.calls.report_load(LocalLoad(own.service, own.port, own.credential, load, own.address))

    async def report_check(self, problem: str = "") -> None:
        """Report the result of a check of the kind `reported`; empty: it passed. Raises ApiProblem."""
        own, text = self._request, escape_line(problem, DETAIL_MAX)
        await self._core.calls.report_check(LocalCheckResult(own.service, own.port, own.credential, text, own.address))

    async def end(self) -> None:
        """Deregister (function 2.2). A repeated call, or a call in a forked child, does nothing.

        Problems are only logged, because the listener ends with the process in any case.
        """
        if self._ended or self._process != os.getpid():
            return
        self._ended = True
        try:
            await self._core.deregister(self._request, self.outcome.epoch)
        finally:
            if self._held is not None:
                self._held.close()
            if self._task is not None:
                self._task.cancel()

    async def _follow(self, held: HeldRegistration) -> None:
        try:
            while (outcome := await held.next()) is not None:
                self.outcome = outcome
        except ApiProblem as problem:
            self._core.warn(
                f"{self._request.service} at port {self._request.port} is not registered: {problem.message}"
            )


class RegistrationHandle:
    """Registration of a client variant: what is the same in each of them."""

    def __init__(self, registration: Registration) -> None:
        self.core = registration

    @property
    def outcome(self) -> Outcome:
        """Result of the registration. Its `state` is `pending` until the daemon has delivered it to a server."""
        return self.core.outcome

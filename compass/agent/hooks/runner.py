"""Runner of hooks and templates: what the host does by itself when a pool changes, each at its own pace.

They act on what is known and on nothing else: a view that is not loaded, or a name that this host's services do not
depend on, is no reason to write an empty list into a file (P5). A failure is logged, repeated, and delays no other
hook.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.agent.hooks.debounce import Debouncer
from compass.agent.hooks.hook import Hook, HookEvent, HookFailed, HookSettings
from compass.agent.hooks.subprocesses import CommandRunner
from compass.agent.hooks.template import Template, TemplateSettings
from compass.model.catalogue.lookup_scope import LookupScope
from compass.model.host_api import ReactionState, ReactionStatus
from compass.model.interfaces import Clock
from compass.model.replies import Refusal
from compass.model.selection.pool_view import PoolView, pools_of
from compass.system.timers import Timers

LOOK_SECONDS = 1.0
"""Seconds between two checks whether local suspicions have expired; changes are seen at once."""
REACTIONS_MAX = 64
"""Hooks and templates of one host: each may have a process of its own at the same time."""

Pools = Mapping[str, PoolView]


class _Settings(Protocol):
    @property
    def on(self) -> tuple[str, ...]: ...
    @property
    def quiet_seconds(self) -> float: ...
    @property
    def quiet_seconds_max(self) -> float: ...


class ViewSource(Protocol):
    """Source of what hooks look at; `view.View`."""

    def sight(self) -> LookupScope | None:
        """Return what lookups may use, the same object until something changes. None: nothing is loaded yet."""


class Reaction(Protocol):
    """A hook or a template."""

    kind: str
    name: str

    @property
    def settings(self) -> _Settings:
        """Return the settings: pools and times."""

    async def act(self, occasion: HookEvent) -> None:
        """Have a turn. Raises Blunder."""


class HookRunner:
    """All hooks and templates of a host."""

    def __init__(
        self, clock: Clock, reactions: Sequence[Reaction], commands: CommandRunner, host: str, zone: str
    ) -> None:
        self._clock = clock
        self._commands = commands
        self._place = host, zone
        self.turns = Counter({(one.kind, result): 0 for one in reactions for result in ("done", "failed")})
        """Runs by kind and result."""
        self._courses = [_HookState(clock, reaction, self) for reaction in reactions]
        self._timers = Timers(clock)
        self._last: LookupScope | None = None
        self._view: ViewSource | None = None

    def start(self, view: ViewSource) -> None:
        """Read the view now, and again when it changes."""
        if self._courses:
            self._view = view
            self._look()

    def changed(self) -> None:
        """There may be something new; it is looked at before the reactor's next turn is over."""
        if self._view is not None:
            self._timers.start("look", 0, self._look)

    def stop(self) -> None:
        """Nothing is begun any more, and what runs is ended."""
        self._view = None
        self._timers.cancel_all()
        for course in self._courses:
            course.stop()
        self._commands.stop()

    def status(self) -> tuple[ReactionStatus, ...]:
        """Return the status of each."""
        return tuple(course.status() for course in self._courses)

    @property
    def failing(self) -> int:
        """Return the number whose last run failed."""
        return sum(course.is_failing for course in self._courses)

    def _look(self) -> None:
        self._timers.start("look", LOOK_SECONDS, self._look)
        sight = self._view.sight() if self._view is not None else None
        if sight is not None and sight is not self._last:
            self._last = sight
            for course in self._courses:
                course.seen(pools_of(sight, course.on))

    def event(self, reason: str, changed: tuple[str, ...], pools: Pools) -> HookEvent:
        """Return the event that a hook gets now."""
        host, zone = self._place
        return HookEvent(host, zone, self._last.catalogue.revision if self._last else 0, reason, changed, pools)


class _HookState:
    """State of one hook or template: what it has seen, what it has acted on, and when it runs."""

    _log = Logger()

    def __init__(self, clock: Clock, reaction: Reaction, runner: HookRunner) -> None:
        self._runner = runner
        settings = reaction.settings
        self.on = settings.on
        self._clock = clock
        self._reaction = reaction
        self._schedule = Debouncer(settings.quiet_seconds, settings.quiet_seconds_max)
        self._seen: Pools | None = None
        self._acted: Pools | None = None
        """Pools of the last successful run; None: there was none."""
        self._problem = ""
        self._withheld = "nothing has been loaded from a server yet"
        """Why nothing is known to act on."""
        self._turns = 0
        self._ended_at: float | None = None
        self._timers = Timers(clock)
        self._stopped = False

    def seen(self, pools: Pools | Refusal) -> None:
        """Record the current pools. A lookup that fails is no change."""
        if isinstance(pools, Refusal):
            self._withheld = pools.message
            return
        self._withheld = ""
        if pools != self._seen:
            self._seen = pools
            self._schedule.changed(self._clock.seconds())
            self._wait()

    @property
    def is_failing(self) -> bool:
        """Return whether the last run failed."""
        return bool(self._problem)

    def stop(self) -> None:
        """Stop: no further runs."""
        self._stopped = True
        self._timers.cancel_all()

    def status(self) -> ReactionStatus:
        """Return the status."""
        schedule = self._schedule
        state: ReactionState = "idle"
        if schedule.running:
            state = "running"
        elif self._withheld:
            state = "withheld"
        elif self._problem:
            state = "failed"
        elif schedule.waiting:
            state = "waiting"
        ago = -1.0 if self._ended_at is None else self._clock.seconds() - self._ended_at
        problem = self._problem or self._withheld
        reaction = self._reaction
        return ReactionStatus(
            reaction.kind, reaction.name, self.on, state, self._turns, schedule.failures, ago, problem
        )

    def _wait(self) -> None:
        due = self._schedule.due()
        self._timers.cancel("turn")
        if due is not None and not self._stopped:
            self._timers.start("turn", max(0.0, due - self._clock.seconds()), self._begin)

    def _begin(self) -> None:
        pools, failures = self._seen, self._schedule.failures
        self._schedule.started()
        if pools is None or (pools == self._acted and not failures):
            # What has changed is again as it was.
            self._schedule.ended(self._clock.seconds(), done=True)
            return
        acted = self._acted or {}
        changed = tuple(name for name in pools if pools[name] != acted.get(name))
        reason = "retry" if failures else "change" if self._acted is not None else "start"
        Deferred.fromCoroutine(self._turn(pools, self._runner.event(reason, changed, pools)))

    async def _turn(self, pools: Pools, occasion: HookEvent) -> None:
        try:
            await self._reaction.act(occasion)
            problem = ""
        except HookFailed as blunder:
            problem = str(blunder)
        except Exception as error:
            self._log.failure("{kind} {name} has failed", kind=self._reaction.kind, name=self._reaction.name)
            problem = f"a defect of opengnscd: {error!r}"
        if self._stopped:
            return
        if problem:
            self._log.warn("{kind} {name}: {why}", kind=self._reaction.kind, name=self._reaction.name, why=problem)
        elif self._problem:
            self._log.info("{kind} {name} works again", kind=self._reaction.kind, name=self._reaction.name)
        if not problem:
            self._acted = pools
        self._problem = problem
        self._turns += 1
        self._runner.turns[self._reaction.kind, "failed" if problem else "done"] += 1
        self._ended_at = self._clock.seconds()
        self._schedule.ended(self._ended_at, done=not problem)
        self._wait()


def reactions_of(
    reactor: Clock,
    hooks: Sequence[HookSettings],
    templates: Sequence[TemplateSettings],
    state_directory: Path,
    host: str,
    zone: str,
) -> HookRunner:
    """Make the hooks and templates of a configuration, on a reactor that accepts file descriptors."""
    commands = CommandRunner(reactor)
    made: list[Reaction] = [Hook(settings, commands) for settings in hooks]
    made += [Template(settings, commands, state_directory) for settings in templates]
    return HookRunner(reactor, made, commands, host, zone)

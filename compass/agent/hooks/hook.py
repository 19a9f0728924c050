"""A hook: a command that is run when what it looks at has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from compass.agent.hooks.subprocesses import CommandRunner
from compass.model.selection.pool_view import PoolView

LIMIT_SECONDS_MAX = 3600.0
"""Longest run of a hook: what takes longer than an hour is a service, not the response to a change."""
QUIET_SECONDS_MAX = 3600.0
"""Longest quiet time: a hook that may wait longer does not need push."""
VARIABLE_OCTETS_MAX = 4096
"""Size of each variable in a hook's environment: there is room for a few only (execve(2)); the complete data comes as
JSON."""

LimitSeconds = Annotated[float, Meta(gt=0, le=LIMIT_SECONDS_MAX)]
QuietSeconds = Annotated[float, Meta(ge=0, le=QUIET_SECONDS_MAX)]


class HookEvent(msgspec.Struct, frozen=True):
    """Why a hook or a template has its turn, and what there is to know."""

    host: str
    zone: str
    revision: int
    reason: str
    """`start`: the first time since the daemon runs. `change`. `retry`: what went wrong before is tried again."""
    changed: tuple[str, ...]
    """The names that are not what they were when the last turn went well."""
    pools: Mapping[str, PoolView]
    """Pools by name: everything that the hook depends on."""


class HookFailed(Exception):
    """Failure of a hook or a template; the text is for people."""


class HookSettings(msgspec.Struct, frozen=True):
    """Keys of [[host.hook]]."""

    on: Annotated[
        tuple[str, ...],
        Meta(
            description="Categories and services: the command runs when the view of one of them changes.",
            examples=[["openuss"]],
        ),
    ]
    command: Annotated[
        tuple[str, ...],
        Meta(
            description="Program and arguments. Standard input is JSON; OPENGNS_… variables hold a summary.",
            examples=[["/usr/local/bin/on-change"]],
        ),
    ]
    name: Annotated[str, Meta(description="Name in `opengnsc status` and in the log; empty: the program's.")] = ""
    quiet_seconds: Annotated[
        QuietSeconds,
        Meta(description="Seconds without a change before the command runs, so that many changes are one run."),
    ] = 0.1
    quiet_seconds_max: Annotated[QuietSeconds, Meta(description="Longest delay of a change by `quiet_seconds`.")] = 2.0
    timeout_seconds: Annotated[
        LimitSeconds, Meta(description="Seconds after which the command is killed, with all processes that it started.")
    ] = 30.0


class Hook:
    """Hook: one [[host.hook]]."""

    kind = "hook"

    def __init__(self, settings: HookSettings, commands: CommandRunner) -> None:
        self.settings = settings
        self.name = settings.name or settings.command[0]
        self._commands = commands

    async def act(self, occasion: HookEvent) -> None:
        """Run the command. Raises Blunder when it fails, or takes too long, or floods."""
        settings = self.settings
        data = msgspec.json.encode({"hook": self.name, **msgspec.to_builtins(occasion)})
        ended = await self._commands.run(
            settings.command, data, settings.timeout_seconds, environment_of(self.name, occasion)
        )
        if ended.problem:
            raise HookFailed(ended.problem)


def environment_of(name: str, occasion: HookEvent) -> dict[str, str]:
    """The summary: what a script of three lines wants to know without reading JSON."""
    summary = {
        "OPENGNS_HOOK": name,
        "OPENGNS_REASON": occasion.reason,
        "OPENGNS_REVISION": str(occasion.revision),
        "OPENGNS_ON": " ".join(occasion.pools),
        "OPENGNS_CHANGED": " ".join(occasion.changed),
        "OPENGNS_USABLE": " ".join(f"{name}={len(pool.listeners)}" for name, pool in occasion.pools.items()),
    }
    # A name is never cut in two: no program should act on half of one.
    return {key: value if len(value) <= VARIABLE_OCTETS_MAX else "" for key, value in summary.items()}

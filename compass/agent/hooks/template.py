"""A template: a file that is rendered from what it looks at, and a program that reads it again when it differs.

The file is replaced whole or not at all, after a command has found nothing wrong with the new one; when the program
does not take it the old one is put back. Rendering is done by a program of its own (`compass.templates.render`), so a
template that never ends or wants all the memory costs the daemon nothing.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from twisted.logger import Logger

from compass.agent.hooks.hook import HookEvent, HookFailed, LimitSeconds, QuietSeconds
from compass.agent.hooks.subprocesses import CommandRunner
from compass.system.files import replace_file
from compass.templates import RENDER_COMMAND, RENDER_SECONDS, RENDERED_OCTETS_MAX, reported_failure

FILE = "{file}"
"""Placeholder in the check command: the path of the rendered file before it replaces the old one."""

NEW_MODE = 0o644
"""Permissions of a new file without `mode`: programs of other users read configurations."""

Step = Literal["nothing", "reload", "replace"]


class TemplateSettings(msgspec.Struct, frozen=True):
    """Keys of [[host.template]]."""

    on: Annotated[
        tuple[str, ...],
        Meta(description="Categories and services from which the file is rendered.", examples=[["openuss"]]),
    ]
    source: Annotated[
        str,
        Meta(
            description="Jinja2 template: a path, or ready:NAME for one that comes with compass "
            "(`opengnsc template list`).",
            examples=["ready:haproxy"],
        ),
    ]
    target: Annotated[
        str,
        Meta(
            description="File to write. It is replaced as a whole or not at all, where its links lead, and keeps its "
            "owner and group. A mount point is written in place.",
            examples=["/etc/haproxy/haproxy.cfg"],
        ),
    ]
    name: Annotated[str, Meta(description="Name in `opengnsc status` and in the log; empty: the file's.")] = ""
    mode: Annotated[
        str,
        Meta(
            description="Permissions of the file, octal. Empty: those of the file that is replaced; of a new one 0644.",
            examples=["0640"],
        ),
    ] = ""
    check: Annotated[
        tuple[str, ...],
        Meta(
            description="Program and arguments that check the new file, {file}, before it replaces the old one; a "
            "status other than 0 rejects it. Empty: no check."
        ),
    ] = ()
    reload: Annotated[
        tuple[str, ...],
        Meta(
            description="Program and arguments that make a program reload the file, run only if the file differs. If "
            "the command fails, the old file is restored and the command is run once more. Empty: no reload."
        ),
    ] = ()
    values: Annotated[dict[str, str], Meta(description="Texts that the template finds in `values`.")] = {}
    quiet_seconds: Annotated[QuietSeconds, Meta(description="As in [[host.hook]].")] = 0.1
    quiet_seconds_max: Annotated[QuietSeconds, Meta(description="As in [[host.hook]].")] = 2.0
    timeout_seconds: Annotated[LimitSeconds, Meta(description="Time limit of each of the commands.")] = 30.0


def step(current: bytes | None, rendered: bytes, owed: bool) -> Step:
    """Return the next step. `current`: the file's content, None if it does not exist. `owed`: the program was not
    notified of that content, because the daemon or the command was ended in between."""
    if current != rendered:
        return "replace"
    return "reload" if owed else "nothing"


def with_file(command: Sequence[str], path: Path) -> list[str]:
    """The check command for one file."""
    return [argument.replace(FILE, str(path)) for argument in command]


class Template:
    """Template: one [[host.template]]."""

    kind = "template"
    _log = Logger()

    def __init__(self, settings: TemplateSettings, commands: CommandRunner, state_directory: Path) -> None:
        self.settings = settings
        self.name = settings.name or Path(settings.target).name
        self._commands = commands
        self._target = Path(settings.target)
        self._mode = int(settings.mode, 8) if settings.mode else None
        self._noted = ""
        mark = hashlib.sha256(settings.target.encode()).hexdigest()[:16]
        self._owed = state_directory / "reloads" / mark

    async def act(self, occasion: HookEvent) -> None:
        """Bring the file and its program up to date. Raises Blunder; then the file is what it was before."""
        rendered = await self._rendered(occasion)
        try:
            current = self._current()
            owed = self._owed.exists()
            match step(current, rendered, owed):
                case "replace":
                    await self._replace(current, rendered)
                case "reload":
                    await self._reload()
                case "nothing":
                    return
            self._owed.unlink(missing_ok=True)
        except OSError as error:
            raise HookFailed(f"{error.filename or self._target}: {error.strerror}") from None

    def _current(self) -> bytes | None:
        try:
            return self._target.read_bytes()
        except FileNotFoundError:
            return None

    async def _rendered(self, occasion: HookEvent) -> bytes:
        settings = self.settings
        what = {"source": settings.source, "values": settings.values, **msgspec.to_builtins(occasion)}
        limit = min(RENDER_SECONDS, settings.timeout_seconds)
        ended = await self._commands.run(
            RENDER_COMMAND, msgspec.json.encode(what), limit, output_max=RENDERED_OCTETS_MAX
        )
        if ended.problem:
            # The program that renders reports what is wrong; if it could not, its end is reported.
            raise HookFailed(f"cannot render: {reported_failure(ended.output) or ended.problem}")
        return ended.output

    async def _replace(self, current: bytes | None, rendered: bytes) -> None:
        """Check the new file, put it in its place, reload; back out when the program does not take it."""
        if self.settings.check:
            candidate = self._candidate(rendered)
            await self._run(with_file(self.settings.check, candidate), f"{candidate} is not good")
            candidate.unlink(missing_ok=True)
        if self.settings.reload:
            self._owed.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._owed, str(self._target).encode())
        self._write(rendered)
        try:
            await self._reload()
        except HookFailed as blunder:
            raise HookFailed(f"{blunder}; {await self._back_out(current)}") from None

    async def _back_out(self, before: bytes | None) -> str:
        """Restore the old file and notify the program; return the result in words."""
        if before is None:
            # The file, not a link that leads to it.
            self._target.resolve().unlink(missing_ok=True)
            return f"{self._target} is taken away again"
        self._write(before)
        try:
            await self._reload()
        except HookFailed as again:
            return f"the old {self._target} is back, but with it, too: {again}"
        self._owed.unlink(missing_ok=True)
        return f"the old {self._target} is back and in use"

    def _candidate(self, rendered: bytes) -> Path:
        """Write the file to check, as secret as the target: next to it, or in the state directory if the target is a
        mounted file in a directory that cannot be written."""
        name = self._target.name + ".checked"
        candidate = self._target.with_name(name)
        try:
            replace_file(candidate, rendered, self._mode, new_mode=NEW_MODE, like=self._target)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS) or not self._target.exists():
                raise
            candidate = self._owed.parent / name
            candidate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(candidate, rendered, self._mode, new_mode=NEW_MODE, like=self._target)
        return candidate

    def _write(self, data: bytes) -> None:
        note = replace_file(self._target, data, self._mode, new_mode=NEW_MODE)
        if note and note != self._noted:
            self._log.warn("{target} is not replaced as a whole: {note}", target=str(self._target), note=note)
        self._noted = note

    async def _reload(self) -> None:
        if self.settings.reload:
            await self._run(self.settings.reload, "reload failed")

    async def _run(self, command: Sequence[str], otherwise: str) -> None:
        ended = await self._commands.run(command, b"", self.settings.timeout_seconds, self._environment())
        if ended.problem:
            raise HookFailed(f"{otherwise}: {ended.problem}")

    def _environment(self) -> Mapping[str, str]:
        return {"OPENGNS_TEMPLATE": self.name, "OPENGNS_TARGET": str(self._target)}

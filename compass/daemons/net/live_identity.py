"""Identity of a running daemon: its files are read again when they change, and its dates are watched.

A wrong date is no wrong configuration: the clock may not be set yet, and a new certificate may come. So a daemon starts
with it, logs it once and then each hour, and uses a replaced file for the next connection without a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from twisted.logger import Logger

from compass.daemons.config.sections import TlsSettings
from compass.daemons.net.listen import identity_of, own_name
from compass.model.interfaces import Clock
from compass.model.rules.certificates import OwnCertificate, notices_of, problems_of
from compass.pki.identity import Identity, IdentityError
from compass.pki.tls_errors import explain_alert
from compass.system.timers import Timers

LOOK_SECONDS = 60.0
"""Interval between two looks at the files and at the clock: three stat calls. A refusal by a peer is a look, too."""
LOOK_WRONG_SECONDS = 2.0
"""The same while a date is wrong: a clock that is set at the boot is right seconds later."""
PROBLEM_AGAIN_SECONDS = 3600.0
"""Interval between two log lines about a certificate that is not valid, or about files that cannot be used."""
NOTICE_AGAIN_SECONDS = 86_400.0
"""Interval between two log lines about a certificate that ends soon."""

_Signature = tuple[tuple[int, int, int], ...]


class LiveIdentity:
    """Current identity of a daemon, which all its connections use."""

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        settings: TlsSettings,
        role: str,
        *,
        logs: bool = True,
    ) -> None:
        """Read the files. Raises IdentityError. `logs` False: another process of this daemon writes the log lines."""
        self._clock = clock
        self._settings = settings
        self._role = role
        self._logs = logs
        self._timers = Timers(clock)
        self._said: dict[str, float] = {}
        """Time of the last log line by its text."""
        self._signature = self._files()
        self._failed: _Signature = ()
        """State of the files that could not be used at the last look."""
        self._had_problems = False
        """A certificate was not valid at the last look."""
        self.identity: Identity = identity_of(settings)
        self.name = own_name(self.identity, settings, role)
        self.recovered: list[Callable[[], None]] = []
        """Functions to call when connections may succeed again: new files are used, or the dates have become right."""
        self.certificates: tuple[OwnCertificate, ...] = self.identity.certificates(self.now())

    def now(self) -> datetime:
        """Return the time by the clock of the machine."""
        return datetime.now(UTC)

    def current(self) -> Identity:
        """Return the identity for a new connection."""
        return self.identity

    def start(self) -> None:
        """Log what is wrong with the files, and watch them from now on."""
        for warning in self.identity.warnings if self._logs else ():
            self.log.warn("{warning}", warning=warning)
        self._look_again()

    def stop(self) -> None:
        """Stop watching."""
        self._timers.cancel_all()

    def problems(self) -> tuple[str, ...]:
        """Return a sentence for each certificate that is not valid now."""
        return problems_of(self.certificates, self.now().timestamp())

    def refused(self, alert: str) -> str:
        """Return what a peer's alert says about the own certificates; a newer file is used for the next connection."""
        text = explain_alert(alert, self.certificates, self.now().timestamp())
        if not self._reread():
            return text
        self._timers.start("recovered", 0.0, self._recover)
        return f"{text}; {self._settings.certificate} has been replaced meanwhile, and the next connection uses it"

    def look(self) -> None:
        """Use files that have changed, and log dates that are wrong or will be."""
        changed = self._reread()
        if not changed:
            self.certificates = self.identity.certificates(self.now())
        problems, had_problems = self.problems(), self._had_problems
        self._had_problems = bool(problems)
        for text in problems:
            self._say(text, PROBLEM_AGAIN_SECONDS)
        for text in notices_of(self.certificates, self.now().timestamp()):
            self._say(text, NOTICE_AGAIN_SECONDS, key=text.partition(" expires in ")[0])
        if had_problems and not problems:
            self._info("all certificates of this daemon are valid now")
        if changed or (had_problems and not problems):
            self._recover()

    def _recover(self) -> None:
        for call in self.recovered:
            call()

    def _look_again(self) -> None:
        self.look()
        self._timers.start("look", LOOK_WRONG_SECONDS if self.problems() else LOOK_SECONDS, self._look_again)

    def _reread(self) -> bool:
        """Read the files if they have changed. Returns whether they are used from now on.

        The files of one identity are replaced one after another, so files that do not fit are reported only if they
        are the same at the next look.
        """
        found = self._files()
        if found == self._signature:
            return False
        try:
            identity = identity_of(self._settings)
            name = own_name(identity, self._settings, self._role)
            if name != self.name:
                raise IdentityError([f"{self._settings.certificate} is for {name!r}, this daemon is {self.name!r}"])
            time = self.now()
            problems = problems_of(identity.certificates(time), time.timestamp())
            if problems and not self.problems():
                raise IdentityError(problems)
        except IdentityError as problem:
            if found == self._failed:
                text = f"new files cannot be used, the daemon continues with the old ones: {problem}; correct them, "
                self._say(f"{text}or restart the daemon if they are meant to be so", PROBLEM_AGAIN_SECONDS)
            self._failed = found
            return False
        self.identity, self._signature, self._failed = identity, found, ()
        self.certificates = identity.certificates(self.now())
        self._info(f"{self._settings.certificate} was replaced: new connections use it")
        for warning in identity.warnings:
            self._say(warning, PROBLEM_AGAIN_SECONDS)
        return True

    def _files(self) -> _Signature:
        """Return the state of the files, which changes with each replacement."""
        settings = self._settings
        return tuple(_state_of(Path(path)) for path in (settings.certificate, settings.key, settings.authority))

    def _say(self, text: str, again_seconds: float, key: str = "") -> None:
        """Log a warning unless it was logged within the interval."""
        now, key = self._clock.seconds(), key or text
        said = self._said.get(key)
        if self._logs and (said is None or now - said >= again_seconds):
            self._said = {known: at for known, at in self._said.items() if now - at < NOTICE_AGAIN_SECONDS}
            self._said[key] = now
            self.log.warn("{text}", text=text)

    def _info(self, text: str) -> None:
        if self._logs:
            self.log.info("{text}", text=text)


def _state_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)

"""Machine of `opengnsadmin` in tests: an empty environment, no pauses, and a terminal on request."""

from __future__ import annotations

from pathlib import Path

from compass.admin.shell.context import Machine


class FakeMachine(Machine):
    """Machine with its own home directory; `interactive`: whether a person answers questions."""

    def __init__(self, home: Path, *, interactive: bool = False) -> None:
        super().__init__({}, home)
        self._interactive = interactive

    def sleep(self, seconds: float) -> None:
        """Do not pause."""

    def is_interactive(self) -> bool:
        """Return what the test has chosen."""
        return self._interactive

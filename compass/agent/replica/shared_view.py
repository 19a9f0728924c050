"""Publishes the host's view for the programs of the host (`compass.wire.shared_view`, protocols/shared-view.md)."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Protocol

from twisted.logger import Logger

from compass.model.interfaces import Clock
from compass.system.files import replace_file
from compass.system.timers import Timers
from compass.wire import shared_view

LARGE_SECONDS = 0.05
"""Time that publishing takes from which a view is large."""
IDLE_TIMES = 9
"""Pause before a large view is published again, as a multiple of that time: a busy catalogue must not keep the daemon
from answering."""
LOOK_SECONDS = 1.0
"""Seconds between two checks whether local suspicions have expired; changes are published at once."""


class SharedSource(Protocol):
    """Source of the shared view; `view.View`."""

    def shared(self) -> shared_view.Shared | None:
        """Return what to publish, the same object until something changes. None: nothing is loaded yet."""


class SharedMemoryWriter:
    """Keeps a directory up to date with its source. A directory that cannot be written costs the shared view, not the
    daemon."""

    _log = Logger()

    def __init__(self, clock: Clock, directory: Path | None, group: int | None, source: SharedSource) -> None:
        """Set what is published and where.

        `directory` None: nothing is published. `group`: group that may read; None: every user may.
        """
        self.published = False
        """True if programs find a view in the directory."""
        self._timers = Timers(clock)
        self._directory = directory or Path()
        self._wanted = directory is not None
        self._group = group
        self._source = source
        self._last: shared_view.Shared | None = None
        self._index: mmap.mmap | None = None
        self._generation = 0
        self._clock = clock
        self._idle_until = 0.0

    def start(self) -> None:
        """Go on from the generation of the run before; never raises."""
        if not self._wanted:
            return
        try:
            self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            os.chown(self._directory, -1, -1 if self._group is None else self._group)
            self._directory.chmod(0o755 if self._group is None else 0o750)
            self._index = self._open_index()
        except OSError as error:
            self._log.warn("programs find no shared view in {path}: {error}", path=self._directory, error=error)
            return
        self.publish()

    def changed(self) -> None:
        """There is something new; it is published in the reactor's next turn, a large view after a pause."""
        if self._index is not None:
            self._timers.start("publish", max(0.0, self._idle_until - self._clock.seconds()), self.publish)

    def publish(self) -> None:
        """Publish, if it is something new, and look again in a while."""
        self._timers.start("publish", LOOK_SECONDS, self.publish)
        shared = self._source.shared()
        if shared is None or shared is self._last or self._index is None:
            return
        generation, began = self._generation + 1, self._clock.seconds()
        if began < self._idle_until:
            return
        try:
            self._replace("content", shared_view.pack(shared, generation))
        except OSError as error:
            self._log.warn("cannot publish in {path}: {error}", path=self._directory, error=error)
            return
        with memoryview(self._index) as octets, octets.cast("Q") as words:
            words[shared_view.GENERATION_WORD] = generation
        self._generation, self._last, self.published = generation, shared, True
        ended = self._clock.seconds()
        self._idle_until = ended + IDLE_TIMES * (ended - began) if ended - began > LARGE_SECONDS else 0.0

    def stop(self) -> None:
        """Stop publishing. The files stay: programs continue to use them (P7)."""
        self._timers.cancel_all()
        if self._index is not None:
            self._index.close()
            self._index = None

    def _open_index(self) -> mmap.mmap:
        """The index of the run before, which readers have mapped, or a new one."""
        path = self._directory / "index"
        try:
            shared_view.check_index(path.read_bytes())
            _, self._generation = shared_view.unpack((self._directory / "content").read_bytes())
        except FileNotFoundError:
            if not path.exists():
                self._replace("index", shared_view.empty_index())
        except shared_view.NotShared as problem:
            self._log.warn("{path} is damaged and replaced: {problem}", path=self._directory, problem=problem)
            self._replace("index", shared_view.empty_index())
        with path.open("r+b") as file:
            index = mmap.mmap(file.fileno(), shared_view.INDEX_OCTETS)
        with memoryview(index) as octets, octets.cast("Q") as words:
            # A daemon that was killed between the two steps has left a content without its generation.
            self._generation = max(self._generation, words[shared_view.GENERATION_WORD])
        return index

    def _replace(self, name: str, octets: bytes) -> None:
        """Replace a file without a sync to the disk: after a reboot it is published again, and no program has the old
        one mapped."""
        mode = 0o644 if self._group is None else 0o640
        replace_file(self._directory / name, octets, mode, group=self._group, durable=False)

"""The replica on disk, so that a host answers after its own restart or a reboot with every server down (P7).

One file: magic, format version, length and SHA-256 of the body, then the body as MessagePack. A file that is damaged
or foreign is set aside and never served; a directory that cannot be written costs the cache, not the daemon.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
from twisted.logger import Logger

from compass.agent.replica.replica import Replica
from compass.agent.replica.wanted_services import WantedServices
from compass.model.interfaces import Clock
from compass.model.rows import Snapshot
from compass.system.files import replace_file, set_aside
from compass.system.timers import Timers

WRITE_PAUSE_SECONDS = 0.2
"""Pause between writes: at most five a second; what a power cut loses is resumed from the server."""
IDLE_TIMES = 9
"""Pause between writes as a multiple of the time that the last one took: a large view is written less often."""
RETRY_SECONDS = 15.0
"""Pause before a write that has failed is repeated, also if nothing changes: room on a disk comes without notice."""
FILE_NAME = "catalogue.msgpack"
MAGIC = b"OGNSHOST"
FORMAT = 1
_HEADER = struct.Struct("!8sIQ32s")


class CachedReplica(msgspec.Struct, frozen=True):
    """Content of the cache: the view, the services for which it is complete, and those on whose behalf the host
    receives changes."""

    store: str
    services: tuple[str, ...]
    held: Snapshot
    loaded: bool
    wanted: tuple[str, ...]


class CacheSource(Protocol):
    """Source of the cache's content."""

    def cached(self) -> CachedReplica:
        """Return what is to be on disk now."""


class ReplicaContent:
    """The replica as the cache's content."""

    def __init__(self, replica: Replica, wanted: WantedServices) -> None:
        self._replica = replica
        self._wanted = wanted

    def cached(self) -> CachedReplica:
        replica = self._replica
        return CachedReplica(
            store=replica.store,
            services=tuple(sorted(replica.services)),
            held=replica.held(),
            loaded=replica.loaded,
            wanted=self._wanted.all,
        )


class Unusable(Exception):
    """Content that is not a cache of this format; the text says why."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CachedReplica)


def packed(cached: CachedReplica) -> bytes:
    """Return the file's content."""
    body = _encoder.encode(cached)
    return _HEADER.pack(MAGIC, FORMAT, len(body), hashlib.sha256(body).digest()) + body


def unpacked(data: bytes) -> CachedReplica:
    """Return the inverse of `packed`. Raises Unusable."""
    if len(data) < _HEADER.size:
        raise Unusable(f"{len(data)} octets are less than the header")
    magic, version, length, digest = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if magic != MAGIC:
        raise Unusable("it does not begin as a catalogue of this program")
    if version != FORMAT:
        raise Unusable(f"its format is {version}, this program reads {FORMAT}")
    if length != len(body):
        raise Unusable(f"it should have {length} octets and has {len(body)}")
    if hashlib.sha256(body).digest() != digest:
        raise Unusable("its checksum is wrong")
    try:
        return _decoder.decode(body)
    except (ValueError, RecursionError) as error:
        # msgspec's own errors are ValueErrors, and so is what it raises for text that is no UTF-8.
        raise Unusable(str(error)) from None


class Cache:
    """File `catalogue.msgpack`, kept up to date with its source."""

    _log = Logger()

    def __init__(self, clock: Clock, directory: Path, source: CacheSource) -> None:
        self._timers = Timers(clock)
        self._path = directory / FILE_NAME
        self._source = source
        self._failure = ""
        """Why the last write failed; empty: it did not."""
        self._failed_at = 0.0
        """Time on the clock of the first failure in a row."""
        self.written_again: Callable[[], None] = lambda: None
        """Called when a write succeeds after one that failed."""
        self._clock = clock
        self._took_seconds = 0.0
        self.writes = Counter[str]()
        """Writes by result: `done` or `failed`."""

    @property
    def problem(self) -> str:
        """Why the file is not up to date, since when and what that means; empty: the last write has succeeded."""
        if not self._failure:
            return ""
        seconds = self._clock.seconds() - self._failed_at
        return (
            f"cannot write {self._path} for {seconds:.0f} s: {self._failure}; lookups are answered from memory, but a "
            "restart would need a server: make room, or mend the directory"
        )

    def age_seconds(self, now: float) -> float:
        """Return the seconds since the file was written; 0 if unknown."""
        try:
            return max(0.0, now - self._path.stat().st_mtime)
        except OSError:
            return 0.0

    def load(self) -> CachedReplica | None:
        """Return what an earlier run stored, or None; never raises."""
        try:
            return unpacked(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._log.warn("cannot read {path}: {error}; going on without it", path=self._path, error=error)
        except Unusable as problem:
            try:
                aside = set_aside(self._path)
                self._log.warn(
                    "{path} is unusable ({problem}); set aside as {aside}, a server has to be asked",
                    path=self._path,
                    problem=problem,
                    aside=aside.name,
                )
            except OSError as error:
                self._log.warn("{path} is unusable and cannot be renamed: {error}", path=self._path, error=error)
        return None

    def changed(self) -> None:
        """Write the file soon: its content has changed."""
        self._timers.start_if_idle("write", max(WRITE_PAUSE_SECONDS, IDLE_TIMES * self._took_seconds), self.write)

    def close(self) -> None:
        """Write now what is due."""
        if "write" in self._timers:
            self._timers.cancel("write")
            self.write()

    def write(self) -> None:
        """Replace the file; a failure is logged once and does not stop the daemon."""
        began = self._clock.seconds()
        try:
            replace_file(self._path, packed(self._source.cached()))
            self._took_seconds = self._clock.seconds() - began
            self.writes["done"] += 1
            had_failed, self._failure = self._failure, ""
            if had_failed:
                self._log.info("{path} is written again", path=self._path)
                self.written_again()
        except OSError as error:
            self.writes["failed"] += 1
            if not self._failure:
                self._failed_at = began
                self._log.warn(
                    "cannot write {path}: {error}; going on from memory, a restart will need a server",
                    path=self._path,
                    error=error,
                )
            self._failure = error.strerror or str(error)
            # No change may come for hours; the room may be there in a minute.
            self._timers.start("write", RETRY_SECONDS, self.write)

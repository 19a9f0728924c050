"""Disk of a host in memory, which loses data without fsync in a loss of power, and fails on demand.

A `Location` replaces a `Path`: the daemon's own code writes, syncs and renames, and loses what it does not sync. The
model is as harsh as POSIX allows: neither the content of a file nor the name of one outlives the power
unless the file, or its directory, was synced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from stat import S_IFDIR, S_IFREG
from types import SimpleNamespace
from typing import Any

from compass.system import files

DESCRIPTORS_FROM = 1_000_000
"""Larger than any real descriptor, so that the two are never mixed up."""


class _File:
    def __init__(self) -> None:
        self.data = b""
        self.durable = b""
        self.modified = 0.0


class Disk:
    """Directory of files. `failing`: error number of every write. `now`: the host's time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.failing = 0
        self.now = now
        self._names: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}

    def copy(self, now: Callable[[], float]) -> Disk:
        """A disk of another machine with the same files, as a snapshot of this one has them."""
        other = Disk(now)
        for name, file in self._names.items():
            other._names[name] = made = _File()
            made.data = made.durable = file.data
        other.sync_names()
        return other

    def lose_power(self) -> None:
        """Only what was synced is left."""
        self._names = dict(self._durable_names)
        for file in self._names.values():
            file.data = file.durable

    def check(self) -> None:
        """Raises the OSError that is due."""
        if self.failing:
            raise OSError(self.failing, os.strerror(self.failing))

    def file(self, name: str, *, create: bool = False) -> _File:
        """The file of that name."""
        if name not in self._names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            self._names[name] = _File()
        return self._names[name]

    def has(self, name: str) -> bool:
        """Return whether the file exists."""
        return name in self._names

    def rename(self, name: str, other: str) -> None:
        """Rename as rename(2) does: atomic, and durable only once the directory is synced."""
        self.check()
        self._names[other] = self._names.pop(name)

    def remove(self, name: str) -> None:
        """Remove a name."""
        self.check()
        self._names.pop(name, None)

    def sync_names(self) -> None:
        """fsync of the directory."""
        self._durable_names = dict(self._names)


class Location:
    """The part of `pathlib.Path` that the daemon uses, on a `Disk`; with name "" the directory itself."""

    def __init__(self, disk: Disk, host: str, name: str = "") -> None:
        self.disk = disk
        self.host = host
        self.name = name

    def __truediv__(self, name: str) -> Location:
        return Location(self.disk, self.host, name)

    def __str__(self) -> str:
        return f"{self.host}:/{self.name}"

    @property
    def parent(self) -> Location:
        return Location(self.disk, self.host)

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    def with_name(self, name: str) -> Location:
        return Location(self.disk, self.host, name)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        pass

    def exists(self) -> bool:
        return self.disk.has(self.name)

    def read_bytes(self) -> bytes:
        return self.disk.file(self.name).data

    def stat(self) -> SimpleNamespace:
        modified = self.disk.file(self.name).modified if self.name else 0.0
        mode = S_IFREG | 0o600 if self.name else S_IFDIR | 0o700
        return SimpleNamespace(st_mtime=modified, st_mode=mode, st_uid=0, st_gid=0, st_nlink=1)

    lstat = stat

    def replace(self, target: Location) -> Location:
        self.disk.rename(self.name, target.name)
        return target

    def unlink(self) -> None:
        self.disk.remove(self.name)


class _Os:
    """`os` as `compass.system.files` sees it: the real one, but for descriptors of simulated files."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[Location, _File | None]] = {}
        self._last = DESCRIPTORS_FROM

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        if not isinstance(path, Location):
            return os.open(path, flags, mode)
        file = None
        if path.name:
            if flags & os.O_CREAT:
                path.disk.check()
            file = path.disk.file(path.name, create=bool(flags & os.O_CREAT))
            if flags & os.O_TRUNC:
                file.data = b""
        self._last += 1
        self._open[self._last] = path, file
        return self._last

    def fstat(self, descriptor: int) -> Any:
        if descriptor not in self._open:
            return os.fstat(descriptor)
        return self._open[descriptor][0].stat()

    def listxattr(self, path: Any) -> list[str]:
        return [] if isinstance(path, Location) else os.listxattr(path)

    def fchmod(self, descriptor: int, mode: int) -> None:
        if descriptor not in self._open:
            os.fchmod(descriptor, mode)

    def write(self, descriptor: int, data: Any) -> int:
        if descriptor not in self._open:
            return os.write(descriptor, data)
        path, file = self._open[descriptor]
        path.disk.check()
        assert file is not None
        file.data += bytes(data)
        file.modified = path.disk.now()
        return len(data)

    def fsync(self, descriptor: int) -> None:
        if descriptor not in self._open:
            os.fsync(descriptor)
            return
        path, file = self._open[descriptor]
        path.disk.check()
        if file is None:
            path.disk.sync_names()
        else:
            file.durable = file.data

    def close(self, descriptor: int) -> None:
        if self._open.pop(descriptor, None) is None:
            os.close(descriptor)


@contextmanager
def simulated_disks() -> Iterator[None]:
    """Let `compass.system.files` accept `Location` as well as `Path` during the block."""
    module: Any = files
    before = module.os
    module.os = _Os()
    try:
        yield
    finally:
        module.os = before

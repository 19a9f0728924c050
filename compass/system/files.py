"""Files that are replaced in one step, and damaged files that are put out of the way."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

CORRUPT_MAX = 10
"""Damaged files kept for people to examine; after that the last one is replaced."""


def replace_file(
    path: Path, data: bytes, mode: int | None = 0o600, *, group: int | None = None, durable: bool = True
) -> None:
    """Replace `path`, so that a reader finds the old content or the new, and after a power cut too if `durable`.

    `mode` None: what the process's umask leaves of 0666. Raises OSError.
    """
    temporary = path.with_name(path.name + ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o666 if mode is None else mode)
    try:
        if mode is not None:
            os.fchmod(descriptor, mode)
        if group is not None:
            os.fchown(descriptor, -1, group)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    if durable:
        _sync_directory(path.parent)


@contextlib.contextmanager
def replacing(path: Path, mode: int) -> Iterator[IO[str]]:
    """Open a file that replaces `path` when the block ends without an exception, durable by then. Raises OSError.

    The temporary name is new each time: several programs may write here, and others may write into the directory.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def set_aside(path: Path, why: str = "corrupt") -> Path:
    """Rename a file that cannot be used to `STEM.corrupt-N`. Returns the new path, raises OSError."""
    for number in range(1, CORRUPT_MAX + 1):
        aside = path.with_name(f"{path.stem}.{why}-{number}")
        if not aside.exists():
            break
    path.replace(aside)
    return aside


def file_in_memory(data: bytes) -> IO[bytes]:
    """Return a file without a name, at its beginning: the whole input of a command, before the command runs."""
    file: IO[bytes] = os.fdopen(os.memfd_create("input", os.MFD_CLOEXEC), "w+b")
    file.write(data)
    file.flush()
    file.seek(0)
    return file


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

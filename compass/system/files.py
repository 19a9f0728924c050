"""Files that are there whole or not at all, and what to do with one that is not what it should be."""

from __future__ import annotations

import os
from pathlib import Path

ASIDE_MAX = 10
"""Damaged files that are kept for people to look at; then the last one is replaced."""


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path`, so that a reader or a power cut finds the old content or the new. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `STEM.corrupt-N` and give the new name. Raises OSError."""
    for number in range(1, ASIDE_MAX + 1):
        aside = path.with_name(f"{path.stem}.corrupt-{number}")
        if not aside.exists():
            break
    path.replace(aside)
    return aside

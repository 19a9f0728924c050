"""New files that appear together: all of them with their whole content, or none; existing files are never replaced."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from compass.system.files import replace_file


class NewFile(NamedTuple):
    """Content and mode of a new file."""

    content: bytes
    mode: int = 0o644


def existing(paths: Mapping[Path, NewFile]) -> Path | None:
    """Return the first of the paths that exists, a broken link included; None: no path does."""
    return next((path for path in paths if os.path.lexists(path)), None)


def unwritable(paths: Mapping[Path, NewFile]) -> Path | None:
    """Return the first directory in which this process cannot write; None: there is none."""
    for path in paths:
        directory = next(one for one in path.parents if one.exists())
        if not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
            return directory
    return None


def write_new(files: Mapping[Path, NewFile], owner: tuple[int, int] | None = None, owned: Path | None = None) -> None:
    """Write all files, in their order, or none. Missing directories are made, mode 0755, or 0700 in `owned`.

    `owner`: user and group of the directory `owned` and of all new files below it. Raises OSError; FileExistsError if a
    file exists.
    """
    made: list[Path] = []
    written: list[Path] = []
    temporary: dict[Path, Path] = {}
    try:
        for path, file in files.items():
            is_owned = owned is not None and path.is_relative_to(owned)
            made += _make_directories(path.parent, 0o700 if is_owned else 0o755)
            temporary[path] = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
            replace_file(temporary[path], file.content, file.mode)
            if owner is not None and is_owned:
                os.chown(temporary[path], *owner)
        if owner is not None and owned is not None:
            for directory in {owned, *(one for one in made if one.is_relative_to(owned))}:
                os.chown(directory, *owner)
        for path, new in temporary.items():
            # Unlike a renamed file, a link does not replace one that another program has written meanwhile.
            path.hardlink_to(new)
            written.append(path)
    except BaseException:
        for path in [*written, *temporary.values()]:
            path.unlink(missing_ok=True)
        for directory in reversed(made):
            with contextlib.suppress(OSError):
                directory.rmdir()
        raise
    for path in temporary.values():
        path.unlink()


def _make_directories(directory: Path, mode: int) -> list[Path]:
    """Make a directory with its parents. Returns those that were missing, outermost first."""
    missing = [one for one in (directory, *directory.parents) if not one.exists()][::-1]
    for one in missing:
        one.mkdir(mode)
    return missing

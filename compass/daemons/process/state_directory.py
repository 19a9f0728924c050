"""State directory of a host's daemon: whether it can be written, for `--check`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from compass.daemons.config.file import ConfigProblem

ROOM_OCTETS = 256 * 1024
"""Octets that must fit: the view of a host with a thousand listeners, and its journal."""


def check_state_directory(config: Path, path: Path | None) -> None:
    """Write a file and remove it. `config`: the file that names the directory. The daemon makes a directory that does
    not exist yet. Raises ConfigProblem."""
    if path is None or not path.is_dir():
        return
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(ROOM_OCTETS))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        why = error.strerror or str(error)
        text = f"[host] state_directory: {path} cannot be written: {why}; a restart of opengnscd would need a server"
        raise ConfigProblem(config, [text]) from error

"""Files of development mode (`opengns dev`), as all programs find them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

SOCKET = "opengnscd.sock"
"""Name of the host daemon's Unix socket in the directory."""
ADMIN_CONFIG = "admin.toml"
"""Name of the settings of `opengnsadmin` in the directory."""
CONNECT_SECONDS = 1.0
"""Time limit for a connection to the socket: the kernel accepts it at once unless the daemon hangs."""


def default_directory(environment: Mapping[str, str], home: Path) -> Path:
    """Return the directory of development mode unless another is named: one for each user."""
    named = Path(environment.get("XDG_STATE_HOME", ""))
    # A relative path is to be ignored, says the XDG Base Directory Specification.
    return (named if named.is_absolute() else home / ".local" / "state") / "opengns" / "dev"


def running_socket(environment: Mapping[str, str], home: Path) -> Path | None:
    """Return the socket of this user's development mode if a daemon listens on it, otherwise None."""
    path = default_directory(environment, home) / SOCKET
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(CONNECT_SECONDS)
            asking.connect(str(path))
    except OSError:
        return None
    return path

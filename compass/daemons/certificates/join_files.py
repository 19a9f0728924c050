"""Files of a host that has joined: its configuration, its key, its certificate and the authority, all or none.

Everything is written into a new directory next to the place first. Key and certificates are in the state directory of
the daemon, which the daemon may write: so it can renew its certificate.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from compass.daemons.certificates.join_exchange import JoinFailed
from compass.daemons.config.settings import toml
from compass.model.exit_codes import ExitCode
from compass.pki.join_token import JoinToken
from compass.system.files import replace_file


class JoinPaths(NamedTuple):
    """Paths of the files of a host."""

    config: Path
    state: Path

    @property
    def tls(self) -> Path:
        """Directory of key and certificates."""
        return self.state / "tls"


def check_free(paths: JoinPaths) -> None:
    """Check that nothing would be overwritten, and that the directories can be written. Raises JoinFailed."""
    for path in (paths.config, paths.tls):
        if os.path.lexists(path):
            raise JoinFailed(
                ExitCode.CONFLICT,
                f"{path} exists, and nothing is overwritten: if this host should join again, move it away first, or "
                "choose other places with --config and --state-directory; the token was not used",
            )
    for path in (paths.config.parent, paths.state):
        existing = next(one for one in (path, *path.parents) if one.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise JoinFailed(
                ExitCode.FAILED,
                f"{existing} cannot be written by this user: run the command as root, or choose other places with "
                "--config and --state-directory; the token was not used",
            )


def config_text(token: JoinToken, paths: JoinPaths) -> str:
    """Return the configuration of the host."""
    values: dict[str, dict[str, Any]] = {
        "host": {"servers": token.servers, "state_directory": str(paths.state.absolute())},
        "tls": {
            "certificate": str(paths.tls.absolute() / "host.crt"),
            "key": str(paths.tls.absolute() / "host.key"),
            "authority": str(paths.tls.absolute() / "authority.crt"),
        },
    }
    lines = ["# Written by 'opengnscd join'; 'opengnscd --print-config' explains every key."]
    for section, keys in values.items():
        lines += ["", f"[{section}]", *(f"{key} = {toml(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def write_files(paths: JoinPaths, config: str, files: dict[str, bytes], owner: tuple[int, int] | None) -> None:
    """Write all files, or none. The configuration comes last: with it the host has joined. Raises OSError."""
    made = _missing(paths.state, paths.config.parent)
    new = paths.tls.with_name(f".tls.{secrets.token_hex(6)}")
    new_config = paths.config.with_name(f".{paths.config.name}.{secrets.token_hex(6)}")
    is_placed = False
    try:
        paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths.config.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new.mkdir(mode=0o700)
        for name, content in files.items():
            replace_file(new / name, content, 0o600 if name.endswith(".key") else 0o644)
        replace_file(new_config, config.encode(), 0o644)
        if owner is not None:
            for path in (paths.state, new, *new.iterdir()):
                os.chown(path, *owner)
        new.rename(paths.tls)
        is_placed = True
        # Unlike a renamed file, a link does not replace one that another program has written meanwhile.
        paths.config.hardlink_to(new_config)
    except BaseException:
        shutil.rmtree(paths.tls if is_placed else new, ignore_errors=True)
        new_config.unlink(missing_ok=True)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    new_config.unlink(missing_ok=True)


def _missing(*directories: Path) -> list[Path]:
    """Return the directories that do not exist yet, with their parents, deepest first."""
    found = {one for path in directories for one in (path, *path.parents) if not one.exists()}
    return sorted(found, key=lambda one: -len(one.parts))

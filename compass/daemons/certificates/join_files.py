"""Files of a host that has joined: its configuration, its key, its certificate and the authority, all or none.

Key and certificates are in the state directory of the daemon, which the daemon may write: so it can renew them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from compass.daemons.certificates.join_exchange import JoinFailed
from compass.daemons.config.settings import toml
from compass.model.exit_codes import ExitCode
from compass.pki.join_token import JoinToken
from compass.system.new_files import NewFile, existing, unwritable

ELSEWHERE = "choose other places with --config and --state-directory; the token was not used"


class JoinPaths(NamedTuple):
    """Paths of the files of a host."""

    config: Path
    state: Path

    def files(self, token: JoinToken, key: bytes, certificate: str, authority: str) -> dict[Path, NewFile]:
        """Return the files; the configuration comes last, because with it the host has joined."""
        tls = self.state.absolute() / "tls"
        values: dict[str, dict[str, Any]] = {
            "host": {"servers": token.servers, "state_directory": str(self.state.absolute())},
            "tls": {
                "certificate": str(tls / "host.crt"),
                "key": str(tls / "host.key"),
                "authority": str(tls / "authority.crt"),
            },
        }
        lines = ["# Written by 'opengnscd join'; 'opengnscd --print-config' explains every key."]
        for section, keys in values.items():
            lines += ["", f"[{section}]", *(f"{name} = {toml(value)}" for name, value in keys.items())]
        return {
            tls / "host.key": NewFile(key, 0o600),
            tls / "host.crt": NewFile(certificate.encode()),
            tls / "authority.crt": NewFile(authority.encode()),
            self.config.absolute(): NewFile(("\n".join(lines) + "\n").encode()),
        }


def check_free(files: dict[Path, NewFile]) -> None:
    """Check that nothing would be overwritten, and that the directories can be written. Raises JoinFailed."""
    if (found := existing(files)) is not None:
        text = f"{found} exists, and nothing is overwritten: if this host should join again, move it away first, or "
        raise JoinFailed(ExitCode.CONFLICT, text + ELSEWHERE)
    if (directory := unwritable(files)) is not None:
        text = f"{directory} cannot be written by this user: run the command as root, or "
        raise JoinFailed(ExitCode.FAILED, text + ELSEWHERE)

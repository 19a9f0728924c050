"""Address of the host API (mission section 5): a Unix socket, or a port on the loopback; and who may be there.

Any user can listen on an unprivileged port while no daemon does, and any user can make a socket where the directory
allows it. So before a request leaves, the kernel is asked who listens: a credential reaches no user but root, the
daemon's and the program's own, and no other user answers a lookup.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from compass.client.core.errors import NotAllowed
from compass.system.development import running_socket
from compass.system.peer_credentials import UNKNOWN_USER, user_of_client, user_of_peer, users_listening

DEFAULT_SOCKET = "/run/opengns/opengnscd.sock"
DEFAULT_URL = "http://127.0.0.1:4866"
API_PORT = 4866
DAEMON_USER = "opengns"
"""User that the packages run the daemon as."""
USER_VARIABLE = "OPENGNS_API_USER"
"""Environment variable with the name or number of another user that the daemon runs as."""


class InvalidEndpoint(ValueError):
    """An invalid address of the API; the text says what would be right."""


class ApiEndpoint(msgspec.Struct, frozen=True):
    """Address of the API: the path of a Unix socket, or an IP address and a port."""

    path: str = ""
    address: str = ""
    port: int = API_PORT
    is_default_port: bool = False
    """Flag of the default port, which no program asked for: no credential is sent there."""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"http://{self.host}"

    @property
    def host(self) -> str:
        """Value of the Host header; `unix` is the name that the daemon expects on its socket."""
        if self.path:
            return "unix"
        return f"{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"


def parse_api_endpoint(text: str) -> ApiEndpoint:
    """Parse `unix:/path` or `http://127.0.0.1:4866`. Empty: the socket at its default path if its directory exists,
    whether the daemon runs or not, else the socket of development mode if it runs, else the default port.

    Raises InvalidEndpoint."""
    if not text:
        if Path(DEFAULT_SOCKET).parent.is_dir():
            return ApiEndpoint(path=DEFAULT_SOCKET)
        if (own := running_socket(os.environ, _home())) is not None:
            return ApiEndpoint(path=str(own))
        return msgspec.structs.replace(parse_api_endpoint(DEFAULT_URL), is_default_port=True)
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise InvalidEndpoint(f"{text!r}: write the absolute path of the socket, as in unix:{DEFAULT_SOCKET}")
        return ApiEndpoint(path=path)
    try:
        parts = urlsplit(text)
        if parts.scheme == "http" and parts.hostname and not parts.path.strip("/") and not parts.query:
            return ApiEndpoint(address=parts.hostname, port=parts.port or API_PORT)
    except ValueError:
        pass
    raise InvalidEndpoint(f"{text!r} is not an address of the host API: write unix:/PATH or {DEFAULT_URL}")


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def daemon_users() -> frozenset[int]:
    """Return the users that opengnscd may belong to: root, its own user, and the user of this process."""
    return frozenset({0, os.geteuid(), _number_of(os.environ.get(USER_VARIABLE) or DAEMON_USER)})


def check_before_connecting(endpoint: ApiEndpoint, has_credential: bool) -> None:
    """Refuse to send a credential over TCP that was not asked for. Raises NotAllowed."""
    if has_credential and endpoint.is_default_port:
        raise NotAllowed(
            "forbidden",
            f"no credential is sent to {endpoint}, where any user may listen, unless it is asked for: start opengnscd "
            f"with its socket, or name the address with --api {endpoint} or OPENGNS_API={endpoint}",
        )


def check_peer(connected: Any, endpoint: ApiEndpoint, has_credential: bool) -> None:
    """Check the user at the other end of a connection, which `connected` is the socket of. Raises NotAllowed."""
    users = frozenset({user_of_peer(connected)}) if endpoint.path else _tcp_users(connected, endpoint)
    strangers = users - daemon_users()
    if users and not strangers:
        return
    known = strangers - {UNKNOWN_USER}
    if not known and not has_credential and not endpoint.is_default_port:
        # A daemon on another machine, or in another network namespace, that the program asked for.
        return
    whose = f"belongs to user {_name_of(min(known))}" if known else "belongs to a user that the kernel does not name"
    raise NotAllowed(
        "forbidden",
        f"the program at {endpoint} {whose}, not to root or {DAEMON_USER}, so it is not asked; start opengnscd, or "
        f"name its user in {USER_VARIABLE}",
    )


def _tcp_users(connected: Any, endpoint: ApiEndpoint) -> frozenset[int]:
    """Return the users of the sockets that listen there, and of the accepted connection.

    The listening sockets are looked up first: an accepted connection outlives its listening socket, and one that is not
    accepted yet, of which the kernel names no user, does not.
    """
    server, client = connected.getpeername()[:2], connected.getsockname()[:2]
    listening = users_listening(server[0], server[1])
    accepted = user_of_client(server, client)
    return listening | ({accepted} - {UNKNOWN_USER}) if listening else frozenset({accepted})


def _number_of(user: str) -> int:
    if user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return 0


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


Place = ApiEndpoint
PlaceProblem = InvalidEndpoint
place_of = parse_api_endpoint
"""Former names of the three, kept for one version."""

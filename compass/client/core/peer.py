"""Peer of a connection to the daemon: only root and the daemon's user are believed to be opengnscd.

Any user can listen on an unprivileged port while no daemon does, and any user can make a socket where the directory
allows it. So before a request leaves, the kernel is asked who listens: a credential reaches no other user, and no other
user answers a lookup.
"""

from __future__ import annotations

import os
import pwd
from typing import Any

from compass.client.core.endpoint import ApiEndpoint
from compass.client.core.errors import NotAllowed
from compass.system.peer_credentials import UNKNOWN_USER, user_of_client, user_of_peer, users_listening

DAEMON_USER = "opengns"
"""User that the packages run the daemon as."""
USER_VARIABLE = "OPENGNS_API_USER"
"""Environment variable with the name or number of another user that the daemon runs as."""


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

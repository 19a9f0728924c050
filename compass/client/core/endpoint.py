"""Address of the host API (mission section 5): a Unix socket, or a port on the loopback."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import msgspec

DEFAULT_SOCKET = "/run/opengns/opengnscd.sock"
DEFAULT_URL = "http://127.0.0.1:4866"
API_PORT = 4866


class InvalidEndpoint(ValueError):
    """An invalid address of the API; the text says what would be right."""


class ApiEndpoint(msgspec.Struct, frozen=True):
    """Address of the API: the path of a Unix socket, or an IP address and a port."""

    path: str = ""
    address: str = ""
    port: int = API_PORT

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
    """Parse `unix:/path` or `http://127.0.0.1:4866`. Empty: the socket at its default path if there is one, else the
    default port. Raises InvalidEndpoint."""
    if not text:
        return ApiEndpoint(path=DEFAULT_SOCKET) if Path(DEFAULT_SOCKET).exists() else parse_api_endpoint(DEFAULT_URL)
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


Place = ApiEndpoint
PlaceProblem = InvalidEndpoint
place_of = parse_api_endpoint
"""Former names of the three, kept for one version."""

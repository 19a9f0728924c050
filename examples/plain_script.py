"""A script that asks a service by name: whom to ask comes from the name service, and the next one when one is dead.

python examples/plain_script.py openuss
"""

from __future__ import annotations

import http.client
import sys

from compass import client


def ask(peer: client.Listener) -> str:
    """Return the answer of one listener."""
    connection = http.client.HTTPConnection(peer.address, peer.port, timeout=3)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode().strip()
    finally:
        connection.close()


def main() -> int:
    """Ask, print, and say by the exit status whether there was an answer."""
    name = sys.argv[1] if len(sys.argv) > 1 else "openuss"
    try:
        print(client.attempt(name, ask))
    except client.NobodyThere as problem:
        print(f"nobody to ask: {problem}", file=sys.stderr)
        return 1
    except client.ApiProblem as problem:
        print(f"the name service cannot be asked: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""opengnssd with one more port on the loopback that is not encrypted. For benchmarks on like terms; nowhere else.

Peers like etcd and Redis are usually measured without TLS. opengnssd has no such setting, on purpose (P11), so this
program assembles the same daemon and listens once more. A peer has no certificate here: it is a host named by the port
that it comes from.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from compass.assembly.config import read_server_config
from compass.assembly.parts import listen
from compass.assembly.serverd import ServerService


class Unencrypted(ServerService):
    """Adds the port before the server begins to serve."""

    def __init__(self, reactor: Any, path: Path, port: int) -> None:
        super().__init__(reactor, read_server_config(path))
        self._plain_port = port

    async def _listen(self, server: Any) -> None:
        await super()._listen(server)
        self._ports.append(await listen(self._reactor, "127.0.0.1", self._plain_port, server))

    def _peer(self) -> Any:
        proven = super()._peer()

        def peer(transport: Any) -> tuple[str, str, str]:
            if transport.getHost().port != self._plain_port:
                answer: tuple[str, str, str] = proven(transport)
                return answer
            return "host", f"h{transport.getPeer().port}.bench", ""

        return peer


def main() -> None:
    """Port of the unencrypted listener, configuration file."""
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    service = Unencrypted(reactor, Path(sys.argv[2]), int(sys.argv[1]))
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.callWhenRunning(lambda: service.started.addErrback(lambda why: (why.printTraceback(), reactor.stop())))
    reactor.run()


if __name__ == "__main__":
    main()

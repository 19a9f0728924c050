"""opengnssd as the benchmarks start it: with one more port that is not encrypted, and without fast paths on demand.

Peers like etcd and Redis are usually measured without TLS. opengnssd has no such setting, on purpose (P11), so this
program assembles the same daemon and listens once more on the loopback. A peer has no certificate there: it is a host
named by the port that it comes from.

COMPASS_BENCH_WITHOUT names fast paths, with commas between, that are taken out of the program before it starts. The
daemon itself has no such switches: the report shows what each of them is worth, and one that gains little goes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import tcp

from compass.daemons.config.reader import read_server_config
from compass.daemons.net import listen, transport
from compass.daemons.process import gc
from compass.daemons.services import opengnssd
from compass.gateway.server_api.routes import PeerIdentifier
from compass.server.queries.pull_cache import PullCache
from compass.store import bulk_insert


class PlainPeers:
    """Roles and names of peers: without TLS each is a host, named after its port."""

    def __init__(self, encrypted: PeerIdentifier, plain_port: int) -> None:
        self._encrypted = encrypted
        self._plain_port = plain_port

    def identify(self, transport: Any) -> tuple[str, str, str]:
        if transport.getHost().port != self._plain_port:
            return self._encrypted.identify(transport)
        return "host", f"h{transport.getPeer().port}.bench", ""


class Unencrypted(opengnssd.ServerService):
    """Adds the port before the server begins to serve."""

    def __init__(self, reactor: Any, path: Path, port: int) -> None:
        super().__init__(reactor, read_server_config(path))
        self._plain_port = port
        self._peers = PlainPeers(self._peers, port)

    async def _listen(self, server: Any) -> None:
        await super()._listen(server)
        self._ports.append(await listen.listen(self._reactor, "127.0.0.1", self._plain_port, server))


def _set(module: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(module, name, value)


def _collector() -> None:
    gc.YOUNG_OBJECTS = 700
    _set(gc, "settle", lambda: None)()


WITHOUT: dict[str, Callable[[], None]] = {
    "prompt writes": _set(transport.PromptPort, "transport", tcp.Server),
    "rows by the statement": _set(bulk_insert, "SIZES", (1,)),
    "kept pulls": _set(PullCache, "kept", lambda self, catalogue, service: None),
    "idle collector": _collector,
}
"""Fast paths by the name they have in the report, and how each is taken out."""


def main() -> None:
    """Port of the unencrypted listener, configuration file."""
    for name in filter(None, os.environ.get("COMPASS_BENCH_WITHOUT", "").split(",")):
        WITHOUT[name]()
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    service = Unencrypted(reactor, Path(sys.argv[2]), int(sys.argv[1]))
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.callWhenRunning(lambda: service.started.addErrback(lambda why: (why.printTraceback(), reactor.stop())))
    reactor.run()


if __name__ == "__main__":
    main()

"""Well-formed requests of every type with values that no client should send, by hosts and administrators.

They go to a real name server on virtual time with a real store. The invariant: every request is answered, none makes
the server fail (a line in the log at level critical), and what is in the store is what the server believes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from compass.model.catalogue.catalogue import catalogue_of
from compass.model.replies import Refusal
from compass.model.requests import Request, Steer
from compass.wire import limits
from compass.wire.messages import InvalidMessage, decode_from_client
from tests.fuzz.http import Broken, critical
from tests.support.virtual_world import Client, World
from tests.wire.examples import EXAMPLES

TOPOLOGY = {
    "web": ["portal.web", ">openuss"],
    "openuss": ["chinaserver.openuss", "northeast.openuss"],
    "spare": ["emergency.spare"],
}
TEXTS = (
    "portal.web",
    "chinaserver.openuss",
    "openuss",
    "web",
    "web openuss",
    "emergency.spare",
    "PORTAL.web",
    "h1",
    "no.such",
    "nosuch",
    "chinaserver.openuss 10.0.0.1:8001",
    "10.0.0.1",
    "10.0.0.2",
    "2001:DB8::1",
    "::",
    "0.0.0.0",
    "127.0.0.1",
    "255.255.255.255",
    "fe80::1%eth0",
    "",
    " ",
    ".",
    "a" * 64,
    "x." * 120,
    "\x00",
    "\x1b[2J\r\n",
    "\u202e\u2028",
    "K.web",
    "'; DROP TABLE listener; --",
    "http:/health",
    "http:/" + "y" * 300,
    "tcp",
    "unreachable",
    "slow",
    "up",
    "offline",
    "down",
    "x" * 20_000,
)
NUMBERS = (
    0,
    1,
    2,
    -1,
    7,
    80,
    8001,
    65535,
    65536,
    255,
    2**31,
    2**53,
    2**62,
    2**63 - 2,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
)
FLOATS = (0.0, 1.0, -1.0, 0.001, 60.0, 1e9, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 5e-324)
CONTAINERS: tuple[Any, ...] = (
    [],
    {},
    ["portal.web"],
    ["portal.web"] * 300,
    ["portal.web", ""],
    {"a": "b"},
    {"": ""},
    {str(n): "v" for n in range(40)},
    {"k": "v" * 300},
    {"\x00": "\x1b"},
)
ROWS: tuple[dict[str, Any], ...] = (
    {"row": "category", "name": "openuss"},
    {"row": "category", "name": "new", "backup": "emergency.spare", "policy": {"probe": "tcp"}},
    {"row": "category", "name": "web", "policy": {"recovery_seconds": 0.5, "probe_attempts": 1}},
    {"row": "service", "id": "portal.web"},
    {"row": "service", "id": "more.new"},
    {"row": "dependency", "category": "web", "on": "new"},
    {"row": "dependency", "category": "openuss", "on": "web"},
    {"row": "host", "name": "h1", "barred": False},
    {"row": "host", "name": "h9", "update_address": "10.0.0.9", "update_port": 4865, "services": ["portal.web"]},
)


class Asking:
    """A server, a few sessions with it, and questions from a seed."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.world = World(seed, directory)
        self.random = self.world.random
        self.tokens = self.world.declare(TOPOLOGY)
        self.world.server()
        self.world.host("watcher")
        self.seen: Counter[str] = Counter()
        self._examples = [
            msgspec.to_builtins(example.message)
            for example in EXAMPLES
            if example.sender == "client" and example.number and isinstance(example.message, msgspec.Struct)
        ]
        self._sessions: dict[tuple[str, str], Client] = {}
        self._drained = False
        self.world.run(1.0)

    def ask(self, requests: int) -> None:
        """That many at once, then wait for all the answers."""
        random = self.random
        waiting = []
        for _ in range(requests):
            request = self.request()
            if request is None:
                self.seen["unreadable"] += 1
                continue
            identity = random.choice((("admin", "root"),) * 3 + (("host", "h1"), ("host", "h2"), ("host", "h3")))
            client = self._session(identity)
            if len(client.connection._waiting) >= limits.REQUESTS_IN_FLIGHT_MAX:
                break
            waiting.append((client, client.send(request), request))
            self._drained = self._drained or isinstance(request, Steer)
        for client, number, request in waiting:
            until = self.world.clock.seconds() + limits.REPLY_SECONDS
            while number not in client.replies and not client.lost and self.world.clock.seconds() < until:
                self.world.run(0.01)
            reply = client.replies.pop(number, None)
            if reply is None and not client.lost:
                raise Broken(f"no reply to {request!r}")
            kind = reply.code if isinstance(reply, Refusal) else type(reply).__name__
            if isinstance(reply, Refusal) and (reply.code == "store-unavailable" or "log says how" in reply.message):
                raise Broken(f"{request!r}: {reply!r}")
            self.seen[f"{type(request).__name__} {kind}"] += 1
            self.seen["asked"] += 1
            client.pushed.clear()

    def request(self) -> Request | None:
        """An example of a request with some of its values replaced; None when no server could read it."""
        random = self.random
        message = dict(random.choice(self._examples))
        service = message.get("service")
        if service and random.random() < 0.7:
            message["service"] = service = random.choice(("portal.web", "chinaserver.openuss"))
        if "credential" in message and random.random() < 0.8:
            message["credential"] = self.tokens.get(str(service), "")
        if "address" in message and random.random() < 0.6:
            message["address"], message["port"] = random.choice(("10.0.0.1", "10.0.0.2")), random.choice((8001, 8002))
        for _ in range(random.choice((0, 1, 1, 2, 3))):
            field = random.choice(sorted(message))
            if field != "type":
                message[field] = self._odd(message[field])
        if message["type"] == "read-log":
            message["wait_seconds"] = min(message.get("wait_seconds", 0.0), 1.0)
        try:
            decoded = decode_from_client(msgspec.msgpack.encode(message))
        except (InvalidMessage, OverflowError):
            return None
        return decoded  # type: ignore[return-value]

    def consistent(self) -> None:
        """Check that the store would give a server that starts now what this server holds."""
        self.world.run(2.0)
        loaded = self.world.store.load()
        believed = self.world.servers["gns1"].nameserver.catalogue
        stored = catalogue_of(loaded.rows, loaded.topics, loaded.revision)
        if stored.revision != believed.revision:
            raise Broken(f"the store is at revision {stored.revision}, the server at {believed.revision}")
        if {repr(row) for row in stored.all_rows()} != {repr(row) for row in believed.all_rows()}:
            raise Broken("the store has other rows than the server believes")
        changes = self.world.store.changes_after(0, 10_000_000)
        if [change.revision for change in changes] != list(range(1, stored.revision + 1)):
            raise Broken("the update log has gaps")

    def _odd(self, value: Any) -> Any:
        random = self.random
        match value:
            case bool():
                return not value
            case int():
                return random.choice(NUMBERS)
            case float():
                return random.choice(FLOATS)
            case str():
                return random.choice(TEXTS)
            case {"row": str()}:
                row = dict(random.choice(ROWS))
                field = random.choice(sorted(row))
                if field != "row" and random.random() < 0.5:
                    row[field] = self._odd(row[field])
                if row["row"] == "category" and random.random() < 0.3:
                    row["policy"] = self._policy()
                return row
            case [{"row": str()}, *_]:
                return [self._odd(value[0]) for _ in range(random.choice((0, 1, 3, 8)))]
            case _:
                return random.choice(CONTAINERS)

    def _policy(self) -> dict[str, Any]:
        random = self.random
        good = {
            "probe": "tcp",
            "probe_timeout_seconds": 1.0,
            "probe_attempts": 2,
            "slow": "alert",
            "recovery_seconds": 2.0,
        }
        field = random.choice(sorted(good))
        return {**good, field: self._odd(good[field])}

    def _welcome(self) -> None:
        """A server that was drained by one of the questions lets no host in until an administrator ends the drain."""
        if self._drained:
            self._session(("admin", "root")).ask(Steer(away=False))
            self._drained = False

    def _session(self, identity: tuple[str, str]) -> Client:
        client = self._sessions.get(identity)
        if client is None or client.lost or client.ended is not None or client.connection.state != "open":
            if identity[0] == "host":
                self._welcome()
            client = self.world.client(identity)
            self.seen["sessions"] += 1
            self._sessions[identity] = client
            if client.opened is None:
                # A barred host; the administrator's next request may lift it.
                raise Broken(f"{identity} was not let in: {client.ended}")
        return client


def run(seed: int, requests: int, directory: Path) -> Counter[str]:
    """Send this number of requests, each world with some thousands. Raises Broken."""
    random = Random(seed)
    seen: Counter[str] = Counter()
    while seen["asked"] < requests:
        world_seed = random.getrandbits(32)
        with critical() as found:
            asking = Asking(world_seed, directory / str(world_seed))
            while asking.seen["asked"] < min(3000, requests - seen["asked"]):
                asking.ask(random.choice((1, 1, 5, 40)))
                if asking.random.random() < 0.05:
                    asking.world.run(asking.random.choice((0.1, 5.0, 70.0)))
                if found:
                    raise Broken(f"world {world_seed}: {found[0]}")
            asking.consistent()
            asking.world.servers["gns1"].stop()
            asking.world.run(40.0)
            asking.world.store.close()
            seen.update(asking.seen)
            del asking
        if found:
            raise Broken(f"world {world_seed}, at its end: {found[0]}")
    return seen

"""HTTP requests at a server's API: the real site in front of a real name server with a real store, on virtual time.

The invariant is that of the host's API (`tests.fuzz.http`), and what is in the store is what the server believes.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import msgspec

from compass.console.pages import routes
from compass.gateway.metrics.exposition import Metrics, Snapshot
from compass.gateway.server_api.operations import ASKED, OPERATIONS
from compass.gateway.server_api.routes import site
from compass.model.rules.tokens import ADMIN_TOKENS, TOKEN_ROLES
from compass.server.metrics import ServerMetrics
from tests.fuzz.http import TOPOLOGY, Api, Broken
from tests.fuzz.http_requests import Maker
from tests.fuzz.opengnsp_requests import FLOATS, NUMBERS, ROWS, TEXTS
from tests.wire.examples import EXAMPLES

GETS = tuple(one for one in (*OPERATIONS, *(beside for beside, _ in routes())) if one.method == "GET")
BODIES = tuple(
    (f"/v1/{fields.pop('type')}", fields)
    for fields in (msgspec.to_builtins(one.message) for one in EXAMPLES if type(one.message) in {o.asks for o in ASKED})
    if fields["type"] in {operation.path.removeprefix("/v1/") for operation in ASKED if operation.method == "POST"}
)
"""Examples of each message that is a POST: its path and its fields."""


class ServerMaker(Maker):
    """Makes requests for a server."""

    def __init__(self, random: Random, tokens: dict[str, str], bearers: tuple[str, ...]) -> None:
        super().__init__(random, tokens)
        self._bearers = bearers

    def _good(self) -> bytes:
        random = self._random
        if random.random() < 0.5:
            return self._head("GET", self._question(), self._headers()) + b"\r\n"
        path, fields = random.choice(BODIES)
        body = json.dumps(self._turned(fields), ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
        headers = [*self._headers(), "Content-Type: application/json", f"Content-Length: {len(body)}"]
        return self._head("POST", path, headers) + b"\r\n" + body

    def _headers(self) -> list[str]:
        dice = self._random.random()
        if dice < 0.1:
            return ["Host: gns1"]
        token = self._random.choice(self._bearers) if dice < 0.99 else "wrong"
        return ["Host: gns1", f"Authorization: Bearer {token}"]

    def _question(self) -> str:
        random = self._random
        operation = random.choice(GETS)
        path = operation.path
        for name in operation.path_fields:
            path = path.replace(f"{{{name}}}", quote(str(self._value(name)), safe=""))
        names = random.sample(operation.query_fields, random.randrange(len(operation.query_fields) + 1))
        query = "&".join(f"{name}={quote(str(self._value(name)))}" for name in names)
        return f"{path}?{query}" if query else path

    def _value(self, name: str) -> Any:
        random = self._random
        match name:
            case "wait_seconds":
                return random.choice((0, 0.5, -1, "nan", "x"))
            case "log":
                return random.choice(("updates", "security", "administration", "other"))
            case "state":
                return random.choice(("up", "down", "", "sideways"))
            case "since" | "after" | "limit" | "last" | "port":
                return random.choice(NUMBERS)
        return random.choice(TEXTS).encode("utf-8", "replace").decode()[:2000]

    def _turned(self, fields: dict[str, Any]) -> dict[str, Any]:
        """An example with some of its values replaced, or one more that it does not have."""
        random = self._random
        made = dict(fields)
        for _ in range(random.choice((0, 1, 1, 2))):
            name = random.choice([*sorted(made), "later"])
            match made.get(name):
                case {"row": _}:
                    made[name] = random.choice(ROWS)
                case [{"row": _}, *_]:
                    made[name] = [random.choice(ROWS) for _ in range(random.choice((0, 1, 3)))]
                case bool() | None:
                    made[name] = random.choice((True, False, None, "x"))
                case int():
                    made[name] = random.choice(NUMBERS)
                case float():
                    made[name] = random.choice([value for value in FLOATS if abs(value) < 1e300])
                case _:
                    made[name] = random.choice(TEXTS)
        return made


class NoCertificates:
    """Connections whose peers have no certificate."""

    def identify(self, transport: Any) -> tuple[str, str, str]:
        return "", "", "no certificate"


class ServerApi(Api):
    """A world with one server whose API is under fuzz, and a host that is notified."""

    topology = TOPOLOGY | {category: [f"fuzz.{category}"] for category in TOKEN_ROLES}

    def __init__(self, seed: int, directory: Path) -> None:
        super().__init__(seed, directory)
        server = self.world.servers["gns1"].nameserver
        # Two of three requests are an administrator's: those of a viewer are refused before anything is read.
        bearers = tuple(self.tokens[f"fuzz.{category}"] for category in (ADMIN_TOKENS, *TOKEN_ROLES))
        self.maker = ServerMaker(self.random, self.tokens, bearers)
        metrics = Metrics(self.world.clock, {}, Snapshot(ServerMetrics, "opengns_server_", server.https.metrics))
        self.factory = site(
            server.https, self.world.clock, NoCertificates(), routes(), metrics, metrics_are_open=seed % 2 == 1
        )

    def trouble(self) -> None:
        """Nothing more than time."""
        self.world.run(self.random.random() * 70)

    def finish(self) -> None:
        """Check that the store would give a server that starts now what this one holds."""
        super().finish()
        believed = self.world.servers["gns1"].nameserver.catalogue
        loaded = self.world.store.load()
        if loaded.revision != believed.revision or {repr(row) for row in loaded.rows} != {
            repr(row) for row in believed.all_rows()
        }:
            raise Broken("the store has other rows than the server believes")

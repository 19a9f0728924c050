"""Random but repeatable work for a store: requests of every kind, decided by the real rules.

Some are refused, some change nothing, some change hundreds of rows; names are few, so that they meet each other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.replies import CredentialIssued
from compass.model.requests import (
    Apply,
    Attend,
    Deregister,
    Drain,
    IssueCredential,
    Purge,
    Put,
    Register,
    Remove,
    Rename,
    Report,
    RevokeCredential,
    Undecided,
    Verdict,
)
from compass.model.rows import Category, Change, Dependency, Host, Listener, Policy, Row, Service
from compass.model.rules.decide import decide
from compass.model.rules.draft import Decision, Principal

ADMIN = Principal("admin", "root", "127.0.0.1")
SERVER = Principal("server", "one", "")
CATEGORIES = ("web", "openuss", "openuso", "auth")
SERVICES = tuple(f"{name}.{category}" for category in CATEGORIES for name in ("north", "south", "emergency"))
HOSTS = ("h1.example", "h2.example", "h3.example")
ODD_TEXTS = ("plain", 'it\'s "quoted"', "back\\slash", "中文 ünï \U0001f9ed", "line\u2028break", "%s %(x)s :y ?", "")


class Workload:
    """An endless source of decisions; `catalogue` is what they lead to."""

    def __init__(self, seed: int) -> None:
        self.catalogue = Catalogue()
        self._random = random.Random(seed)
        self._now = 1_750_000_000.0
        self._tokens: dict[str, str] = {}
        self._kinds: list[Callable[[], tuple[Undecided, Principal]]] = [
            *[self._register] * 8,
            *[self._deregister, self._report, self._verdict] * 3,
            *[self._drain, self._purge, self._put, self._remove, self._issue, self._revoke, self._attend],
            self._rename,
            *[self._put] * 3,
            self._apply,
        ]

    def decisions(self, count: int) -> Iterator[Decision]:
        """The next `count` of them, a world to work in first."""
        yield self._decided(self._whole_topology(), ADMIN)
        for _ in range(count - 1):
            request, asker = self._random.choice(self._kinds)()
            yield self._decided(request, asker)

    def batches(self, count: int, most: int) -> Iterator[list[Decision]]:
        """The same in batches of 1 to `most`."""
        batch: list[Decision] = []
        size = self._random.randint(1, most)
        for decision in self.decisions(count):
            batch.append(decision)
            if len(batch) == size:
                yield batch
                batch, size = [], self._random.randint(1, most)
        if batch:
            yield batch

    def _decided(self, request: Undecided, asker: Principal) -> Decision:
        self._now += self._random.random() * 10
        token = self._random.randbytes(32).hex()
        decision = decide(self.catalogue, request, asker, self._now, token)
        if isinstance(decision.reply, CredentialIssued):
            self._tokens[decision.reply.credential.service] = token
        self.catalogue = decision.catalogue
        return decision

    def _listener(self) -> Listener:
        known = [peer for peers in self.catalogue.listeners.values() for peer in peers.values()]
        if known and self._random.random() < 0.8:
            return self._random.choice(sorted(known, key=lambda peer: (peer.service, peer.address, peer.port)))
        address = self._random.choice(("192.0.2.1", "192.0.2.2", "2001:db8::1"))
        return Listener(self._random.choice(SERVICES[:-3]), address, self._random.randint(1, 3), "up", 0.0, 1)

    def _credential(self, service: str) -> tuple[str, Principal]:
        if self._random.random() < 0.5:
            return "", ADMIN
        wrong = self._random.random() < 0.1
        return "wrong" if wrong else self._tokens.get(service, "none"), self._host()

    def _host(self) -> Principal:
        return Principal("host", self._random.choice(HOSTS), "192.0.2.9")

    def _register(self) -> tuple[Undecided, Principal]:
        peer = self._listener()
        credential, asker = self._credential(peer.service)
        epoch = peer.epoch + self._random.choice((-1, 0, 0, 1, 5))
        metadata = {text: self._random.choice(ODD_TEXTS) for text in self._random.sample(ODD_TEXTS, 2) if text}
        weight = self._random.randint(0, 9)
        return Register(peer.service, credential, peer.address, peer.port, epoch, weight, metadata), asker

    def _deregister(self) -> tuple[Undecided, Principal]:
        peer = self._listener()
        credential, asker = self._credential(peer.service)
        died = self._random.random() < 0.5
        return Deregister(peer.service, credential, peer.address, peer.port, peer.epoch, died), asker

    def _report(self) -> tuple[Undecided, Principal]:
        peer = self._listener()
        state = self._random.choice(("unreachable", "slow"))
        detail = self._random.choice(ODD_TEXTS)
        asker = self._random.choice((ADMIN, self._host()))
        return Report(peer.service, peer.address, peer.port, state, detail=detail), asker  # type: ignore[arg-type]

    def _verdict(self) -> tuple[Undecided, Principal]:
        peer = self._listener()
        alive = self._random.random() < 0.5
        return Verdict(peer.service, peer.address, peer.port, peer.epoch, alive, "probed"), SERVER

    def _drain(self) -> tuple[Undecided, Principal]:
        peer = self._listener()
        return Drain(peer.service, peer.address, peer.port, self._random.random() < 0.5), ADMIN

    def _purge(self) -> tuple[Undecided, Principal]:
        return Purge(60.0, self._random.choice(("offline", "down"))), ADMIN

    def _put(self) -> tuple[Undecided, Principal]:
        category, on = self._random.choice(CATEGORIES), self._random.choice(CATEGORIES)
        backup = self._random.choice(("", *SERVICES))
        policy = Policy(probe_attempts=self._random.randint(1, 3))
        rows = (
            Category(category, backup, policy),
            Service(self._random.choice(SERVICES)),
            Dependency(category, on),
            Host(self._random.choice(HOSTS), barred=self._random.random() < 0.1),
        )
        return Put(self._random.choice(rows), create=self._random.random() < 0.5), ADMIN

    def _remove(self) -> tuple[Undecided, Principal]:
        peer = self._listener()
        endpoint = f"[{peer.address}]:{peer.port}" if ":" in peer.address else f"{peer.address}:{peer.port}"
        kinds = {
            "category": self._random.choice(CATEGORIES),
            "service": self._random.choice(SERVICES),
            "dependency": f"{self._random.choice(CATEGORIES)} {self._random.choice(CATEGORIES)}",
            "listener": f"{peer.service} {endpoint}",
            "host": self._random.choice(HOSTS),
        }
        kind = self._random.choice(sorted(kinds))
        return Remove(kind, kinds[kind]), self._random.choice((ADMIN, ADMIN, self._host()))  # type: ignore[arg-type]

    def _rename(self) -> tuple[Undecided, Principal]:
        """Back and forth between few names, in one step and in two; some of them exist."""
        names = self._random.choice((("auth", "login"), ("openuso", "accounts"), ("south.web", "west.web")))
        old, new = self._random.sample(names, 2)
        return Rename(old, new, self._random.choice(("", "begin", "end")), force=True), ADMIN

    def _issue(self) -> tuple[Undecided, Principal]:
        return IssueCredential(self._random.choice(SERVICES), self._random.choice((None, 0.0, 60.0))), ADMIN

    def _revoke(self) -> tuple[Undecided, Principal]:
        service = self._random.choice(SERVICES)
        ids = sorted(self.catalogue.credentials.get(service, {}))
        return RevokeCredential(service, self._random.choice(ids or ["none"])), ADMIN

    def _attend(self) -> tuple[Undecided, Principal]:
        services = tuple(sorted(self._random.sample(SERVICES, 2)))
        return Attend(self._random.choice(HOSTS), services, "192.0.2.9", 4865), SERVER

    def _apply(self) -> tuple[Undecided, Principal]:
        """Everything, or a part of it with the rest pruned: whole services come and go."""
        whole = self._whole_topology()
        if self._random.random() < 0.5:
            return whole, ADMIN
        if self._random.random() < 0.5:
            # No listener is registered for these, so the category can go too.
            kept = [row for row in whole.rows if "auth" not in msgspec.json.encode(row).decode()]
        else:
            kept = [row for row in whole.rows if isinstance(row, Category) or self._random.random() < 0.7]
        return Apply(tuple(Category(row.name) if isinstance(row, Category) else row for row in kept), prune=True), ADMIN

    def _whole_topology(self) -> Apply:
        categories = [Category(name, f"emergency.{name}") for name in CATEGORIES]
        services = [Service(id) for id in SERVICES]
        needs = [Dependency("web", on) for on in CATEGORIES]
        return Apply((*categories, *services, *needs))


def registrations(count: int, *, revision: int = 0, services: int = 100) -> list[Change]:
    """Return the changes of that number of registrations, from an empty store (`revision` 0) or after one.

    The first `1 + services` of an empty store are the category and the services.
    """
    changes: list[Change] = []
    if revision == 0:
        rows: list[Row] = [Category("web"), *(Service(f"s{number}.web") for number in range(services))]
        changes = [Change(at, at - 1, 1.0, "add", row) for at, row in enumerate(rows, start=1)]
    for at in range(revision + len(changes) + 1, revision + len(changes) + count + 1):
        metadata = {"zone": "north-1", "release": "2026.1"}
        address = f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}"
        row = Listener(f"s{at % services}.web", address, 8080, "up", 1.0, at, "h1.example", 1, metadata, "registered")
        changes.append(Change(at, max(at - services, 0), 1.0, "register", row))
    return changes

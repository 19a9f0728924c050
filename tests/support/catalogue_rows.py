"""A name service without server or network: requests are decided one after another and applied at once.

And `Follower`: what a host does with notices, in its shortest form; the reference for compass/host.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar

import msgspec

from compass.model.catalogue.catalogue import Catalogue, topic_of
from compass.model.catalogue.interest import audience, dependencies_of, interest, snapshot, widening
from compass.model.names import category_of, parse_endpoint
from compass.model.replies import CategoryView, Refusal, Reply
from compass.model.requests import (
    Deregister,
    Drain,
    Fetch,
    Impact,
    IssueCredential,
    Pull,
    Put,
    Register,
    Report,
    Undecided,
    Verdict,
)
from compass.model.rows import Category, Change, Dependency, Listener, Service, Snapshot, State
from compass.model.rules.decide import answer, decide
from compass.model.rules.draft import Decision, Principal

NOW = 1_700_000_000.0
ADMIN = Principal("admin", "alice", "192.0.2.7")
SERVER = Principal("server", "s1", "")
HOST = Principal("host", "web1.example", "192.0.2.1")
AT = "10.0.0.1:2028"
R = TypeVar("R")


class World:
    """The committed catalogue, every change so far, and a clock that stands until it is moved."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.changes: list[Change] = []
        self.now = NOW
        self.last = Decision(self.catalogue, (), Refusal("not-ready", ""))
        self._tokens = 0

    def ask(self, request: Undecided | Pull | Fetch | Impact, asker: Principal = ADMIN) -> Reply:
        """Decide the request, keep what it comes to."""
        if isinstance(request, Pull | Fetch | Impact):
            self.last = answer(self.catalogue, request, asker, self.now)
        else:
            self._tokens += 1
            self.last = decide(self.catalogue, request, asker, self.now, f"token-{self._tokens}")
        self.catalogue = self.last.catalogue
        self.changes += self.last.changes
        return self.last.reply

    def get(self, kind: type[R], request: Undecided | Pull | Fetch | Impact, asker: Principal = ADMIN) -> R:
        """The reply, which has to be of that kind."""
        reply = self.ask(request, asker)
        assert isinstance(reply, kind), reply
        return reply

    def code(self, request: Undecided | Pull | Fetch | Impact, asker: Principal = ADMIN) -> str:
        """The code of the refusal, which has changed nothing."""
        before = self.catalogue
        refusal = self.get(Refusal, request, asker)
        assert self.last.changes == () and self.last.catalogue == before
        return refusal.code

    def operations(self) -> list[str]:
        """Return the operations that the last decision would write into the update log."""
        return [change.operation for change in self.last.changes]

    def add(self, *rows: Category | Service | Dependency) -> World:
        """Rows of a topology, each with a request of its own."""
        for row in rows:
            reply = self.ask(Put(row, create=True))
            assert not isinstance(reply, Refusal), reply
        return self

    def up(self, service: str, at: str = AT, epoch: int = 1, **more: object) -> Reply:
        """An administrator registers a listener."""
        address, port = parse_endpoint(at)
        return self.ask(msgspec.structs.replace(Register(service, "", address, port, epoch), **more))

    def listener(self, service: str, at: str = AT) -> Listener:
        """The listener, which is there."""
        row = self.catalogue.listener(service, *parse_endpoint(at))
        assert row is not None
        return row

    def in_state(self, state: State, service: str = "a.store", at: str = AT, epoch: int = 5) -> World:
        """The listener in that state, brought there by the requests that lead to it."""
        address, port = parse_endpoint(at)
        self.up(service, at, epoch)
        match state:
            case "offline":
                self.ask(Deregister(service, "", address, port, epoch))
            case "suspect" | "down":
                self.ask(Report(service, address, port))
                if state == "down":
                    self.ask(Verdict(service, address, port, epoch, False, "no answer"), SERVER)
            case "draining":
                self.ask(drain(service, at))
            case "slow":
                category = category_of(service)
                policy = msgspec.structs.replace(self.catalogue.categories[category].policy, slow="notify")
                self.ask(Put(msgspec.structs.replace(self.catalogue.categories[category], policy=policy)))
                self.ask(Report(service, address, port, "slow"))
        assert self.listener(service, at).state == state
        return self

    def token(self, service: str) -> str:
        """A new credential of the service."""
        self.ask(IssueCredential(service))
        return f"token-{self._tokens}"


def drain(service: str, at: str = AT, draining: bool = True) -> Drain:
    """The request of an administrator."""
    return Drain(service, *parse_endpoint(at), draining)


def store() -> World:
    """`web` (`www.web`) depends on `store` (`a.store`, `b.store`); `spare.help` is to be a backup."""
    return World().add(
        Category("web"),
        Category("store"),
        Category("help"),
        Service("www.web"),
        Service("a.store"),
        Service("b.store"),
        Service("spare.help"),
        Dependency("web", "store"),
    )


class Follower:
    """A host's replica: starts from the snapshot of its interest, then takes notices one by one."""

    def __init__(self, services: Iterable[str], catalogue: Catalogue) -> None:
        self.services = tuple(services)
        self.members = {category_of(service) for service in self.services}
        self.catalogue = Catalogue().merge(snapshot(catalogue, interest(catalogue, self.services)))

    def is_told(self, change: Change, after: Catalogue) -> bool:
        """Return whether the server sends this change to the host."""
        return bool(self.members & audience(after, change.row))

    def receive(self, change: Change, more: Snapshot | None) -> Literal["applied", "duplicate", "gap"]:
        """Apply a notice, or say what is wrong with it; a gap is applied as well."""
        topic = topic_of(change.row)
        known = self.catalogue.topics.get(topic, 0)
        if known >= change.revision:
            return "duplicate"
        if isinstance(change.row, Listener) and change.row.state == "offline":
            change = msgspec.structs.replace(change, removed=True)
        self.catalogue = self.catalogue.with_change(change)
        if more is not None:
            self.catalogue = self.catalogue.merge(more)
        return "gap" if known < change.previous else "applied"

    def widened(self, change: Change, after: Catalogue) -> Snapshot | None:
        """The snapshot that the notice of a change brings to this host."""
        more = widening(after, change)
        members = {category_of(service) for service in self.services}
        return more[0] if more is not None and more[1] & members else None

    def pull(self) -> dict[str, tuple[CategoryView, ...]]:
        """Return the answers to the host's services from its memory."""
        return pulled(self.catalogue, self.services)


def pulled(catalogue: Catalogue, services: Iterable[str]) -> dict[str, tuple[CategoryView, ...]]:
    """The pull of each service, without the revision."""
    return {service: dependencies_of(catalogue, service).categories for service in services}


def follow(follower: Follower, changes: Iterable[Change], before: Catalogue) -> list[str]:
    """Send the follower all changes that concern it, as the server does. Returns its result for each."""
    said: list[str] = []
    after = before
    for change in changes:
        after = after.apply(change)
        if follower.is_told(change, after):
            said.append(follower.receive(change, follower.widened(change, after)))
    return said

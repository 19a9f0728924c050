"""Explanations of lookups: a table of situations, each also checked against the lookup itself."""

from __future__ import annotations

from typing import Any

import pytest

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.explanation.lookup import Explanation, explain, sentences_of
from compass.model.replies import Refusal
from compass.model.rows import Category, Dependency, Host, Listener, Policy, Row, Service
from compass.model.selection.selector import Selector

NAME, BACKUP, OTHER = "a.app", "b.spare", "c.app"
WEB = Host("h1", services=("site.web",))


def peer(state: Any, last: int = 1, service: str = NAME, **values: Any) -> Listener:
    return Listener(service, f"192.0.2.{last}", 80, state, 0.0, 1, **values)


def world(*peers: Row, backup: str = BACKUP, needed: bool = True, **policy: Any) -> Catalogue:
    rows: list[Row] = [Category("app", backup, Policy(**policy)), Category("spare"), Category("web")]
    rows += [Service(NAME), Service(OTHER), Service(BACKUP), Service("site.web"), *peers]
    if needed:
        rows.append(Dependency("web", "app"))
    return catalogue_of(rows, {}, 7)


SPARE = peer("up", 9, BACKUP)
CAPPED = (peer("suspect"), peer("down", 2))
SITUATIONS: dict[str, tuple[Catalogue, str, Host | None, str, str, str]] = {
    # Situation: catalogue, name, host, source, last digits of the returned listeners, words of the explanation.
    "up": (world(peer("up")), NAME, WEB, "service", "1", "It is up."),
    "slow": (world(peer("slow")), NAME, WEB, "service", "1", "slow: reported as slow, and in use"),
    "suspect passed over": (world(peer("suspect"), peer("up", 2)), NAME, WEB, "service", "2", "passed over"),
    "suspect alone": (world(peer("suspect")), NAME, WEB, "suspect", "1", "so the suspect ones are returned"),
    "suspect or backup": (world(peer("suspect"), SPARE), NAME, WEB, "backup", "9", "because the backup can be used"),
    "suspect or draining": (
        world(peer("suspect"), peer("draining", 2)), NAME, WEB, "draining", "2", "because its draining listeners",
    ),
    "down": (world(peer("down"), peer("up", 2)), NAME, WEB, "service", "2", "a listener that is down is never"),
    "down alone": (world(peer("down")), NAME, WEB, "none", "", "No listener is returned"),
    "cause": (world(peer("down", cause="refused the probe")), NAME, WEB, "none", "", "The cause: refused the probe."),
    "offline": (world(peer("offline")), NAME, WEB, "none", "", "deregistered, and never returned"),
    "draining passed over": (world(peer("draining"), peer("up", 2)), NAME, WEB, "service", "2", "is draining"),
    "draining alone": (world(peer("draining")), NAME, WEB, "draining", "1", "the draining ones, which still work"),
    "draining before": (world(peer("suspect", draining=True)), NAME, WEB, "suspect", "1", "draining again, not up"),
    "no listener": (world(), NAME, WEB, "none", "", "No listener of a.app is registered."),
    "backup unused": (world(peer("up"), SPARE), NAME, WEB, "service", "1", "backup service, which is not needed"),
    "backup used": (world(peer("down"), SPARE), NAME, WEB, "backup", "9", "those of the backup service b.spare"),
    "backup down": (world(peer("down"), peer("down", 9, BACKUP)), NAME, WEB, "none", "", "that is up or slow either"),
    "backup draining": (
        world(peer("suspect"), peer("draining", 9, BACKUP)), NAME, WEB, "suspect", "1", "only listeners that are up",
    ),
    "no backup": (world(peer("down"), backup=""), NAME, WEB, "none", "", "Its category has no backup service."),
    "backup looked up": (world(SPARE), BACKUP, WEB, "service", "9", "It is up."),
    "cap reached": (world(*CAPPED, cap=0.5), NAME, WEB, "suspect", "1", "as its cap of 0.5 allows"),
    "cap of another service": (
        world(peer("suspect"), peer("down", 2, OTHER), cap=0.5), NAME, WEB, "suspect", "1", "as its cap of 0.5 allows",
    ),
    "own check": (
        world(peer("suspect", check="GET /", failing="503")), NAME, WEB, "suspect", "1", "own host (GET /) fails: 503",
    ),
    "weight 0": (world(peer("up", weight=0), peer("up", 2)), NAME, WEB, "service", "12", "comes after all others"),
    "policy": (world(peer("up"), pool="round-robin"), NAME, WEB, "service", "1", "The pool policy round-robin"),
    "policy of the service": (world(peer("up"), pools={"a": "priority"}), NAME, WEB, "service", "1", "policy priority"),
    "locality": (world(peer("up", host="h1"), locality="host"), NAME, WEB, "service", "1", "on the host itself"),
    "zone": (world(peer("up", host="h1"), locality="zone"), NAME, WEB, "service", "1", "in the zone of the host"),
    "category": (world(peer("up"), peer("up", 2, OTHER)), "app", WEB, "service", "12", "It is up."),
    "any host": (world(peer("up")), NAME, None, "service", "1", "a host that depends on it"),
    "no dependency": (world(peer("up"), needed=False), NAME, WEB, "", "", "no service of this host depends on"),
    "no dependency anywhere": (world(peer("up"), needed=False), NAME, None, "", "", "no category depends on app"),
    "not loaded": (world(peer("up")), NAME, Host("h1"), "", "", "no dependency is loaded there"),
    "barred": (world(peer("up")), NAME, Host("h1", barred=True), "", "", "has barred h1"),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
def test_an_explanation_says_what_the_lookup_does_and_why(situation: str) -> None:
    """The source, the returned listeners and the reason are right, and the lookup returns the same listeners."""
    catalogue, name, host, source, last, words = SITUATIONS[situation]
    found = explain(catalogue, name, host)
    assert isinstance(found, Explanation)
    returned = [(row.service, row.address, row.port) for row in found.listeners if row.returned]
    assert (found.source, "".join(address[-1] for _, address, _ in returned)) == (source, last)
    assert words in "\n".join(sentences_of(found))
    if source:
        chosen = Selector(lambda: 0.5).choose(catalogue, name)
        assert chosen.source == source
        assert sorted((row.service, row.address, row.port) for row in chosen.listeners) == sorted(returned)


def test_a_suspect_listener_below_the_cap_is_not_said_to_stay() -> None:
    """A cap of 0.8 is not reached by one down of three: no sentence names the cap."""
    found = explain(world(*CAPPED, peer("up", 3)), NAME, WEB)
    assert isinstance(found, Explanation)
    assert "cap" not in "\n".join(sentences_of(found))


@pytest.mark.parametrize(("name", "code"), [("x", "unknown-category"), ("x.app", "unknown-service")])
def test_a_name_that_does_not_exist_is_refused(name: str, code: str) -> None:
    """The refusal names what is missing, whatever the host depends on."""
    found = explain(world(), name, WEB)
    assert isinstance(found, Refusal) and found.code == code

"""The services that a host watches for: what one user's programs ask for takes no place of another's."""

from __future__ import annotations

import pytest

from compass.agent.replica import wanted_services
from compass.agent.replica.wanted_services import WANTED_PER_USER_MAX, WantedServices
from compass.model.limits import HOST_SERVICES_MAX
from compass.model.replies import Refusal

MALLORY, ALICE, BOB, ROOT = 12345, 1000, 1001, 0


class Registered:
    """The journal."""

    def __init__(self, *ids: str) -> None:
        self.ids = frozenset(ids)

    def services(self) -> frozenset[str]:
        return self.ids


def of(wanted: WantedServices, prefix: str) -> int:
    """Count the services whose names begin with a prefix."""
    return sum(service.startswith(prefix) for service in wanted.all)


def ask(wanted: WantedServices, user: int | None, prefix: str, number: int) -> list[Refusal | None]:
    return [wanted.add(f"{prefix}{at}.web", user) for at in range(number)]


def test_beyond_its_share_a_user_s_own_oldest_service_gives_way() -> None:
    """At the limit none does; registered and configured ones never do."""
    wanted = WantedServices(Registered("m0.web"), ["configured.web"])
    wanted.restore(())
    ask(wanted, ALICE, "a", 10)
    ask(wanted, MALLORY, "m", WANTED_PER_USER_MAX + 1)
    assert of(wanted, "m") == WANTED_PER_USER_MAX + 1, "the registered one does not count"
    ask(wanted, MALLORY, "n", 500)
    assert (of(wanted, "m"), of(wanted, "n"), of(wanted, "a")) == (1, WANTED_PER_USER_MAX, 10)
    assert "m0.web" in wanted and "configured.web" in wanted


def test_what_another_asked_for_too_stays() -> None:
    """A user who asks for a service of another does not have it dropped with the own share."""
    wanted = WantedServices(Registered())
    ask(wanted, ALICE, "a", 3)
    ask(wanted, MALLORY, "a", 3)
    ask(wanted, MALLORY, "m", 500)
    assert (of(wanted, "a"), of(wanted, "m")) == (3, WANTED_PER_USER_MAX)


def test_a_full_host_takes_from_the_user_who_has_most() -> None:
    """Never from one who has less than who asks; the registered ones take any idle place."""
    wanted = WantedServices(Registered())
    for user in (1, 2, 3):
        ask(wanted, user, f"u{user}-", WANTED_PER_USER_MAX)
    ask(wanted, ALICE, "a", WANTED_PER_USER_MAX)
    assert len(wanted) == HOST_SERVICES_MAX
    assert ask(wanted, BOB, "b", 2) == [None, None] and len(wanted) == HOST_SERVICES_MAX
    assert of(wanted, "b") == 2
    assert wanted.add("registered.web") is None and "registered.web" in wanted
    ask(wanted, MALLORY, "m", 500)
    assert of(wanted, "b") == 2 and len(wanted) == HOST_SERVICES_MAX


def test_a_host_of_registered_services_has_no_place() -> None:
    """A further service is refused, with what to do."""
    ids = [f"s{number}.web" for number in range(HOST_SERVICES_MAX)]
    wanted = WantedServices(Registered(*ids))
    wanted.restore(())
    refusal = wanted.add("www.web", ALICE)
    assert refusal is not None and refusal.code == "too-large" and "deregister" in refusal.message


def test_root_may_have_every_place() -> None:
    """A trusted user has no share."""
    wanted = WantedServices(Registered(), trusted=frozenset({ROOT}))
    ask(wanted, ROOT, "r", HOST_SERVICES_MAX)
    assert len(wanted) == HOST_SERVICES_MAX


def test_the_users_of_one_service_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with this number of users stays in any case."""
    monkeypatch.setattr(wanted_services, "ASKERS_MAX", 2)
    wanted = WantedServices(Registered())
    for user in (1, 2, 3):
        wanted.add("a.web", user)
    ask(wanted, 3, "m", 500)
    assert "a.web" in wanted

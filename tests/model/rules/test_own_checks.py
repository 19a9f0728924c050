"""Checks that a host makes of its own listeners: the states of the row, with and without probes and reports."""

from __future__ import annotations

import msgspec
import pytest

from compass.model.catalogue.octets import CHECK_OCTETS, octets_of
from compass.model.host_api import (
    CHECK_FAILURES_MAX,
    CHECK_INTERVAL_SECONDS_MAX,
    CHECK_INTERVAL_SECONDS_MIN,
    CHECK_TIMEOUT_SECONDS_MAX,
    OwnCheck,
    check_of,
)
from compass.model.limits import CHECK_MAX, DETAIL_MAX, PROBE_PATH_MAX
from compass.model.replies import Refusal, Registered, Reported
from compass.model.requests import Drain, Register, Report, Verdict
from compass.model.rows import Listener
from compass.model.rules.instances import CheckResults
from tests.support.catalogue_rows import ADMIN, HOST, NOW, SERVER, World, store

CHECK = "GET /health, every 5 s, fails after 3"
ALIVE = Verdict("a.store", "10.0.0.1", 2028, 5, True, "answered the probe")
DEAD = Verdict("a.store", "10.0.0.1", 2028, 5, False, "refused")


@pytest.fixture
def world() -> World:
    """A listener with a check that passes."""
    world = store()
    world.token("a.store")
    registers(world)
    return world


def registers(world: World, failing: str = "", check: str = CHECK, epoch: int = 5) -> Registered:
    token = getattr(world, "own_token", "") or world.token("a.store")
    world.own_token = token  # type: ignore[attr-defined]
    request = Register("a.store", token, "10.0.0.1", 2028, epoch, check=check, failing=failing)
    return world.get(Registered, request, HOST)


def row(world: World) -> Listener:
    return world.listener("a.store")


def test_a_check_that_fails_makes_a_listener_suspect_and_its_success_brings_it_back(world: World) -> None:
    assert (row(world).check, row(world).failing, row(world).checked_at) == (CHECK, "", NOW)
    assert registers(world, "status 503").state == "suspect"
    assert world.operations() == ["check-failed", "alert"]
    assert row(world).cause == "its own check failed: status 503"
    assert any(alert.text.endswith("its own check failed: status 503") for alert in world.catalogue.alerts.values())
    assert registers(world, "status 503") == Registered(world.catalogue.revision, "suspect", changed=False)
    assert registers(world).state == "up"
    assert world.operations() == ["check-passed", "alert-over"]
    assert row(world).cause == "its own check passes again"
    assert not world.catalogue.alerts


def test_no_probe_brings_it_back_while_its_check_fails(world: World) -> None:
    """But a probe that fails as well takes it down, and one that answers then makes it suspect at best."""
    registers(world, "status 503")
    assert world.get(Reported, ALIVE, SERVER).state == "suspect"
    assert world.get(Reported, DEAD, SERVER).state == "down"
    assert world.get(Reported, ALIVE, SERVER).state == "suspect"
    assert row(world).cause == "answered the probe, but its own check failed: status 503"
    assert registers(world).state == "up"


def test_a_listener_that_is_down_is_left_to_the_probes(world: World) -> None:
    registers(world, "status 503")
    world.get(Reported, DEAD, SERVER)
    assert registers(world).state == "down"
    assert world.get(Reported, ALIVE, SERVER).state == "up"


def test_a_draining_listener_goes_on_draining(world: World) -> None:
    world.get(Reported, Drain("a.store", "10.0.0.1", 2028), ADMIN)
    assert registers(world, "status 503").state == "suspect"
    assert registers(world).state == "draining"


def test_a_report_against_it_ends_with_its_success(world: World) -> None:
    world.get(Reported, Report("a.store", "10.0.0.1", 2028), ADMIN)
    assert registers(world, "status 503").state == "suspect"
    assert registers(world).state == "up"


def test_a_new_instance_and_one_without_a_check_begin_with_nothing(world: World) -> None:
    registers(world, "status 503")
    assert registers(world, epoch=6).state == "up"
    registers(world, "status 503", epoch=6)
    assert registers(world, check="", epoch=6).state == "up"
    assert (row(world).check, row(world).failing, row(world).checked_at) == ("", "", 0.0)


def test_a_new_instance_may_begin_failing(world: World) -> None:
    assert registers(world, "not ready", epoch=6).state == "suspect"


@pytest.mark.parametrize(
    ("check", "failing", "problem"),
    [
        ("c" * (CHECK_MAX + 1), "", f"check has {CHECK_MAX + 1} characters; at most {CHECK_MAX}"),
        ("c", "f" * (DETAIL_MAX + 1), f"failing has {DETAIL_MAX + 1} characters; at most {DETAIL_MAX}"),
        ("", "status 503", "failing without check: a problem needs the check that found it"),
    ],
)
def test_texts_are_bounded(world: World, check: str, failing: str, problem: str) -> None:
    token = world.own_token  # type: ignore[attr-defined]
    request = Register("a.store", token, "10.0.0.1", 2028, 5, check=check, failing=failing)
    refusal = world.get(Refusal, request, HOST)
    assert (refusal.code, refusal.message) == ("bad-value", problem)
    assert registers(world, "f" * DETAIL_MAX, "c" * CHECK_MAX).state == "suspect"
    assert len(row(world).cause) == DETAIL_MAX


def test_a_check_counts_octets_whether_it_fails_or_not(world: World) -> None:
    """A failure never makes a registration too large."""
    plain = msgspec.structs.replace(row(world), check="")
    assert octets_of(row(world)) - octets_of(plain) == CHECK_OCTETS
    before = world.catalogue.octets["a.store"]
    registers(world, "f" * DETAIL_MAX)
    assert world.catalogue.octets["a.store"] == before
    registers(world, check="")
    assert world.catalogue.octets["a.store"] == before - CHECK_OCTETS


def test_a_check_fails_after_its_failures_in_a_row() -> None:
    results = CheckResults(3)
    assert [results.note(problem) for problem in ("a", "b", "", "c", "d", "e", "f", "", "")] == [
        *(False, False, False, False, False, True, False, True, False)
    ]
    assert CheckResults(3, "failed before").note("")


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        (OwnCheck(), ""),
        (OwnCheck("http", "/health"), ""),
        (OwnCheck("http", "/" + "p" * (PROBE_PATH_MAX - 1)), ""),
        (OwnCheck("http", "/" + "p" * PROBE_PATH_MAX), "http is no path"),
        (OwnCheck("http", "health"), "http is no path"),
        (OwnCheck("http"), "the kind http needs a path"),
        (OwnCheck("accept", "/health"), "the kind http needs a path"),
        (OwnCheck("reported", what="w" * CHECK_MAX), ""),
        (OwnCheck("reported", what="w" * (CHECK_MAX + 1)), "what is no printable line"),
        (OwnCheck(interval_seconds=CHECK_INTERVAL_SECONDS_MIN), ""),
        (OwnCheck(interval_seconds=CHECK_INTERVAL_SECONDS_MIN / 2), "interval_seconds 0.1 is not between"),
        (OwnCheck(interval_seconds=CHECK_INTERVAL_SECONDS_MAX), ""),
        (OwnCheck(interval_seconds=CHECK_INTERVAL_SECONDS_MAX + 1), "is not between"),
        (OwnCheck(interval_seconds=float("nan")), "is not between"),
        (OwnCheck(failures=0), "failures 0 is not between"),
        (OwnCheck(failures=CHECK_FAILURES_MAX), ""),
        (OwnCheck(failures=CHECK_FAILURES_MAX + 1), "is not between"),
        (OwnCheck(timeout_seconds=0), "is not above 0"),
        (OwnCheck(timeout_seconds=CHECK_TIMEOUT_SECONDS_MAX), ""),
        (OwnCheck(timeout_seconds=CHECK_TIMEOUT_SECONDS_MAX + 1), "is not above 0 and at most"),
    ],
)
def test_a_check_is_bounded(check: OwnCheck, problem: str) -> None:
    assert problem in check.problem() and bool(problem) == bool(check.problem())
    assert len(check.text) <= CHECK_MAX


def test_a_path_is_a_check() -> None:
    assert check_of("/health") == OwnCheck("http", "/health")
    assert check_of(None) is None and check_of(OwnCheck()) == OwnCheck()

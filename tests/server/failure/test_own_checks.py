"""A host's own check among servers: what it reports survives restarts on both sides, and no probe overrules it."""

from __future__ import annotations

import pytest

from compass.model.host_api import LocalCheckResult, LocalRegister, Outcome, OwnCheck
from compass.model.replies import Refusal
from compass.server.failure import checks
from tests.server.conftest import Uss
from tests.server.failure.test_detector import (  # noqa: F401
    alerts_of,
    case,
    dark,
    operations,
    policy,
    report,
    revision,
    row_of,
    session_of,
    uss,
)
from tests.server.push.test_publisher import CHINA

PORT = 2028
CHECK = OwnCheck("reported", what="disk is there", interval_seconds=3600.0, failures=2)


def register(world: Uss, check: OwnCheck | None = CHECK) -> Outcome:
    request = LocalRegister(CHINA, PORT, world.tokens[CHINA], pid=1, check=check)
    outcome = world.wait(world.hosts["store1"].daemon.register(request))
    assert isinstance(outcome, Outcome), outcome
    world.run(0.1)
    return outcome


def found(world: Uss, problem: str = "", times: int = 1) -> Outcome | Refusal:
    for _ in range(times):
        request = LocalCheckResult(CHINA, PORT, world.tokens[CHINA], problem)
        answer: Outcome | Refusal = world.wait(world.hosts["store1"].daemon.report_check(request))
    world.run(0.1)
    return answer


@pytest.fixture
def checked(uss: Uss) -> tuple[Uss, Outcome]:  # noqa: F811
    """A listener whose program reports each result of its check."""
    uss.processes["store1"].start(1)
    return uss, register(uss)


def test_only_a_change_of_the_result_is_sent(checked: tuple[Uss, Outcome]) -> None:
    world, outcome = checked
    before = revision(world)
    found(world, times=5)
    assert isinstance(answer := found(world, "no disk"), Outcome) and answer.state == "up"
    assert operations(world, before) == []
    assert isinstance(answer := found(world, "no disk", times=3), Outcome) and answer.state == "suspect"
    found(world, "no disk and no net")
    assert operations(world, before) == ["check-failed", "alert"]
    assert row_of(world, outcome).cause == "its own check failed: no disk"
    found(world)
    assert operations(world, before) == ["check-failed", "alert", "check-passed", "alert-over"]
    assert row_of(world, outcome).state == "up"


def test_no_probe_brings_it_back(checked: tuple[Uss, Outcome]) -> None:
    """The port answers all the time; the server says in its judgement what it waits for."""
    world, outcome = checked
    found(world, "no disk", times=2)
    world.run(200.0)
    assert row_of(world, outcome).state == "suspect"
    assert case(world, outcome).judgement == "answered the probe, but its own check failed: no disk"
    found(world)
    assert row_of(world, outcome).state == "up"


def test_a_report_against_a_failing_listener_is_not_held_against_its_reporter(checked: tuple[Uss, Outcome]) -> None:
    world, outcome = checked
    found(world, "no disk", times=2)
    report(world, outcome)
    before = revision(world)
    found(world)
    assert operations(world, before) == ["check-passed", "alert-over"]
    assert case(world, outcome).inquiry == ""


def test_a_restart_of_either_side_forgets_nothing(checked: tuple[Uss, Outcome]) -> None:
    world, outcome = checked
    found(world, "no disk", times=2)
    world.servers["gns1"].stop()
    world.wait(world.server().started)
    world.until(lambda: world.hosts["store1"].daemon.status().session == "open")
    world.run(120.0)
    assert row_of(world, outcome).state == "suspect"
    world.hosts["store1"].crash()
    world.run(1.0)
    world.host("store1")
    world.run(10.0)
    assert row_of(world, outcome).state == "suspect"
    found(world)
    assert row_of(world, outcome).state == "up"


def test_a_refused_result_says_what_to_do(checked: tuple[Uss, Outcome]) -> None:
    world, _ = checked
    daemon = world.hosts["store1"].daemon
    wrong = world.wait(daemon.report_check(LocalCheckResult(CHINA, PORT, "guess", "")))
    assert isinstance(wrong, Refusal) and wrong.code == "bad-credential"
    unknown = world.wait(daemon.report_check(LocalCheckResult(CHINA, PORT + 1, world.tokens[CHINA], "")))
    assert isinstance(unknown, Refusal) and "register it with a check of the kind reported" in unknown.message
    register(world, None)
    plain = found(world)
    assert isinstance(plain, Refusal) and "has no check that is reported" in plain.message
    bad = world.wait(daemon.register(LocalRegister(CHINA, PORT, world.tokens[CHINA], check=OwnCheck("http"))))
    assert isinstance(bad, Refusal) and bad.message.startswith("check: the kind http needs a path")


def test_a_listener_without_a_probe_is_judged_by_reports(checked: tuple[Uss, Outcome]) -> None:
    """Nothing is sent to it; a minute after the report its users try it again."""
    world, outcome = checked
    policy(world, probe="none")
    world.dead.add((outcome.address, outcome.port))
    before = revision(world)
    report(world, outcome)
    assert row_of(world, outcome).state == "suspect"
    world.run(checks.UNPROBED_SECONDS - 1)
    assert operations(world, before) == ["report"]
    world.run(2.0)
    assert operations(world, before) == ["report", "retract"]
    assert case(world, outcome).evidence[-1].kind == "report"


def test_a_lost_host_without_a_probe_is_suspect_until_it_is_back(checked: tuple[Uss, Outcome]) -> None:
    world, outcome = checked
    policy(world, probe="none")
    before = revision(world)
    dark(world, world.hosts["store1"])
    world.run(300.0)
    assert operations(world, before) == ["suspect", "alert"] and alerts_of(world) == [session_of("store1")]
    world.apart.clear()
    world.network.heal()
    world.until(lambda: row_of(world, outcome).state == "up", 60.0)
    assert row_of(world, outcome).cause == "its host has a session again; it cannot be probed"
    world.run(10.0)
    assert alerts_of(world) == []


def test_a_failing_check_outweighs_time(checked: tuple[Uss, Outcome]) -> None:
    """Without a probe the host's own check is all that the server knows."""
    world, outcome = checked
    policy(world, probe="none")
    found(world, "no disk", times=2)
    world.run(3 * checks.UNPROBED_SECONDS)
    assert row_of(world, outcome).state == "suspect"
    found(world)
    assert row_of(world, outcome).state == "up"

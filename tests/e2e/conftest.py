"""Fixtures for tests on real processes; a failed test shows what the daemons logged."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from compass.pki.authority import Credentials, create_authority
from tests.e2e.deployment import Deployment

Deploy = Callable[..., Deployment]


@pytest.fixture(scope="session")
def authority() -> Credentials:
    """The authority of every deployment here."""
    return create_authority("tests", datetime.now(UTC))


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, authority: Credentials) -> Iterator[Deployment]:
    """Return a deployment for a module's tests: the server serves the example's world, and there is no host yet."""
    with Deployment(tmp_path_factory.mktemp("gns"), authority) as deployment:
        deployment.start()
        yield deployment
        check_logs(deployment)


@pytest.fixture
def deploy(tmp_path_factory: pytest.TempPathFactory, authority: Credentials) -> Iterator[Deploy]:
    """Makes deployments for one test, which does to them what no other test should see."""
    with ExitStack() as stack:
        made: list[Deployment] = []

        def make(**more: Any) -> Deployment:
            made.append(stack.enter_context(Deployment(tmp_path_factory.mktemp("gns"), authority, **more)))
            return made[-1]

        yield make
        for deployment in made:
            check_logs(deployment)


def check_logs(deployment: Deployment) -> None:
    """Whatever a test did to them, the daemons have met nothing that they did not expect."""
    for program in (deployment.server, *(host.daemon for host in deployment.hosts.values())):
        text = program.log.read_text(errors="replace") if program.log.exists() else ""
        assert "Traceback" not in text, f"{program.name} logged a traceback:\n{program.shown_log()}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of a failed test's deployments."""
    report = yield
    if report.failed:
        used: dict[str, Any] = getattr(item, "funcargs", {})
        for deployment in used.values():
            if isinstance(deployment, Deployment):
                for program in deployment.programs:
                    report.sections.append((f"log of {program.name}", program.shown_log()))
    return report

"""Several servers over one store, on both engines."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import UTC, datetime

import pytest

from compass.pki.authority import Credentials, create_authority
from tests.cluster.servers import Several
from tests.support.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def authority() -> Credentials:
    """The authority of every deployment here."""
    return create_authority("tests", datetime.now(UTC))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL()
    yield server
    server.remove()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def several(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Credentials
) -> Iterator[Several]:
    """Return a cluster for a module's tests: a store on either engine, and no server yet."""
    directory = tmp_path_factory.mktemp("several")
    if request.param == "sqlite":
        store = f"sqlite:///{directory}/store.sqlite"
    else:
        store = request.getfixturevalue("postgresql").new_url()
    with Several(directory, authority, store) as several:
        yield several
        for program in several.servers.values():
            assert "Traceback" not in program.log.read_text(errors="replace"), program.shown_log()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of a failed test's servers."""
    report = yield
    several = getattr(item, "funcargs", {}).get("several")
    if report.failed and several is not None:
        for program in several.servers.values():
            report.sections.append((f"log of {program.name}", program.shown_log()))
    return report

"""The database goes away under real processes, in four ways (opengnsp.md, "Store outages").

The long form, a minute each, is `make away`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compass.pki.authority import Credentials
from tests.e2e.conftest import check_logs
from tests.e2e.processes import eventually
from tests.faults.store_outage import REGISTRATIONS, WAYS, Stage
from tests.support.postgresql import PostgreSQL

pytestmark = pytest.mark.long

WAIT_SECONDS = 1.0
"""`store_wait_seconds` of the server here: a third of the usual, so that the test is over sooner."""
TOLD_SECONDS = 5.0
"""Within one second, as `make away` demands; this has room for a machine that does other things as well."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, authority: Credentials, postgresql: PostgreSQL) -> Iterator[Stage]:
    """A server on PostgreSQL, two hosts that use a service and one that serves it."""
    settings = f"store_wait_seconds = {WAIT_SECONDS}\n"
    made = Stage(tmp_path_factory.mktemp("gns"), authority, postgresql, settings)
    with made.deployment:
        made.start()
        yield made
        check_logs(made.deployment)


@pytest.mark.parametrize("way", WAYS)
def test_while_the_database_is_away_everything_but_the_log_goes_on(stage: Stage, way: str) -> None:
    """ "Lookups 100 % answered, a failure report reaches the dependants within 1 s as `suspect`, registrations made
    meanwhile are all in the log afterwards": stopped, frozen (SIGSTOP), read-only standby, commits that do not end."""
    seen = stage.play(way, 0.0)
    assert seen.lookups and not seen.failed
    print(f"\n{way}: the last dependant was notified {1000 * seen.told_seconds:.0f} ms after the report")
    assert seen.told_seconds < TOLD_SECONDS
    assert (seen.pending, seen.missing) == (REGISTRATIONS, 0)


def test_a_server_stops_although_its_database_hangs(stage: Stage, postgresql: PostgreSQL) -> None:
    """SIGTERM ends it with status 0 in seconds, whatever it waits for; the one that is started then waits for the
    database no longer than it takes to connect, and serves once that goes on."""
    server = stage.deployment.server
    with stage.away("frozen"):
        eventually(stage.trouble, "the server waits for its database")
        assert server.stop() == 0
    server.start()
    stage.deployment.serves()

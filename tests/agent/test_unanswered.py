"""Names that programs look up again and again without success are in metrics and status of the host, and no others."""

from __future__ import annotations

from compass.agent.local_api import LocalApi
from compass.cli.output import lines_of_status
from compass.model.host_api import LocalRegister, Outcome, Resolved
from compass.model.selection.unanswered import LOOKUPS_MIN, SPACING_SECONDS
from tests.agent.replica.test_pools import CHINA, up, web
from tests.support.agent_world import Hosts


def ask(world: Hosts, user: LocalApi, name: str, times: int) -> None:
    """Look a name up that has no listener, a number of times at the pace of a program that retries."""
    for _ in range(times):
        found = user.resolve(name)
        assert isinstance(found, Resolved) and found.source == "none"
        world.run(SPACING_SECONDS)


def test_an_outage_counts_and_a_typed_lookup_does_not(world: Hosts) -> None:
    """The count follows the listeners: it ends when there is one, before any program asks again."""
    tokens = world.uss()
    user, provider = web(world), world.daemon("provider")
    ask(world, user, CHINA, LOOKUPS_MIN - 1)
    user.resolve("unknown.openuss")
    assert user.metrics().services_unanswered == 0 and user.status().unanswered == ()
    ask(world, user, CHINA, 1)
    assert user.metrics().services_unanswered == 1
    (line,) = [line for line in lines_of_status(user.status()) if line.startswith("missing")]
    assert "chinaserver.openuss has no listener (asked for again and again for" in line and "alert list" in line
    outcome = up(world, provider, tokens[CHINA], 1)
    assert isinstance(outcome, Outcome)
    assert user.metrics().services_unanswered == 0 and user.status().unanswered == ()


def test_a_backup_is_an_answer(world: Hosts) -> None:
    """Users of a service whose backup serves have lost nothing."""
    tokens = world.uss()
    user, provider = web(world), world.daemon("provider")
    ask(world, user, CHINA, LOOKUPS_MIN)
    assert user.metrics().services_unanswered == 1
    up_backup = world.wait(provider.register(LocalRegister("rescue.backup", 9, tokens["rescue.backup"])))
    assert isinstance(up_backup, Outcome)
    world.run(0.1)
    assert user.metrics().services_unanswered == 0

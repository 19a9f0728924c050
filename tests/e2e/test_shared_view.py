"""Lookups that cost no call, on real daemons (protocols/shared-view.md)."""

from __future__ import annotations

import pytest

from compass.client import Client, NoneRegistered, SharedView
from tests.e2e.deployment import Deployment
from tests.e2e.processes import eventually
from tests.e2e.scraping import samples_of, text_of


def ports_of(view: SharedView, name: str) -> list[int]:
    """None registered: none."""
    try:
        return [peer.port for peer in view.listeners(name)]
    except NoneRegistered:
        return []


def test_the_daemon_learns_what_memory_does_not_have(deployment: Deployment) -> None:
    """A lookup without a listener is counted at the daemon, once, whether a watch or shared memory answers it."""
    (web,) = deployment.add_hosts("asking")

    def without() -> float:
        found = (one for one in samples_of(text_of(web)) if one.name == "opengns_host_lookups_total")
        return sum(one.value for one in found if one.labels["source"] == "none")

    with Client("portal.web", f"unix:{web.socket}") as client:
        view = client.shared()
        before = without()
        for lookups, lookup in enumerate((client.resolve, view.listeners), 1):
            for _ in range(5):
                with pytest.raises(NoneRegistered):
                    lookup("northeast.openuss")
            eventually(lambda number=lookups: without() == before + number, "the daemon has counted it")  # type: ignore[misc]
    assert without() == before + 2


def test_a_program_finds_the_view_and_sees_what_the_daemon_sees(deployment: Deployment) -> None:
    """A listener that comes and goes, a report of this host's own, and the death and the return of the daemon (P7)."""
    web, store = deployment.add_hosts("web", "store")
    with Client("portal.web", f"unix:{web.socket}") as client:
        view = client.shared()
        assert web.status() is not None
        one, two = deployment.register(store, "northeast.openuss"), deployment.register(store, "northeast.openuss")
        both = sorted((one.port, two.port))
        eventually(lambda: sorted(ports_of(view, "northeast.openuss")) == both, "both listeners are shared")
        assert sorted(peer.port for peer in client.resolve("northeast.openuss").listeners) == both
        web.saved()
        web.daemon.kill()
        assert sorted(ports_of(view, "northeast.openuss")) == both
        web.daemon.start()
        web.in_session()
        deployment.report(web, one)
        eventually(lambda: ports_of(view, "northeast.openuss") == [two.port], "the dead one is not given out")

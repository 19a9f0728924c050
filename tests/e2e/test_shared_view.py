"""Lookups that cost no call, on real daemons (protocols/shared-view.md)."""

from __future__ import annotations

from compass.client import Client, NoneRegistered, SharedView
from tests.e2e.deployment import Deployment
from tests.e2e.processes import eventually


def ports_of(view: SharedView, name: str) -> list[int]:
    """None registered: none."""
    try:
        return [peer.port for peer in view.listeners(name)]
    except NoneRegistered:
        return []


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

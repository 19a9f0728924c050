"""Views beyond a frame on real processes: one credential cuts no host off, and no tool stops working (B1)."""

from __future__ import annotations

import json

from compass.model.replies import Registered
from compass.model.requests import Register
from tests.e2e.deployment import Deployment
from tests.e2e.processes import eventually
from tests.storm.large import Pipeline

METADATA = {f"k{number:02}": "v" * 255 for number in range(32)}
"""All that a listener may have in ASCII: 2,000 such listeners were more than a frame."""
SERVICES = ("chinaserver.openuss", "northeast.openuss")
COUNT = 1_000


def test_two_thousand_listeners_with_full_metadata_cut_nobody_off(deployment: Deployment) -> None:
    """A host without a cache loads them all, hears of later changes, and administrators list all of them."""
    with deployment.link() as link:
        pipeline = Pipeline(link)
        for number, service in enumerate(SERVICES):
            places = [(f"10.{number}.{n // 250}.{n % 250 + 1}", 80) for n in range(COUNT)]
            replies = pipeline.ask_all([Register(service, "", *at, 1, metadata=METADATA) for at in places])
            assert all(isinstance(reply, Registered) for reply in replies)
    count = len(SERVICES) * COUNT
    host = deployment.add_host("web1", services=("portal.web",))

    def loaded() -> bool:
        status = host.status()
        return status is not None and status.listeners == count

    eventually(loaded, "web1 has loaded every listener")
    with deployment.link() as link:
        assert isinstance(link.ask(Register("account.openuso", "", "10.2.0.1", 80, 1)), Registered)
    eventually(lambda: host.resolved("account.openuso")[1] == [80], "web1 hears of a later change")
    categories = {view.category: view.services for view in host.api.dependencies("portal.web").categories}
    assert sum(len(service.listeners) for service in categories["openuss"]) == count
    listed = json.loads(deployment.opengnsadmin("--json", "listener", "list"))
    assert len({(row["service"], row["address"]) for row in listed["rows"]}) == count + 1
    log = json.loads(deployment.opengnsadmin("--json", "log", "updates", "--last", "500"))
    assert len(log["entries"]) == 500

"""A deployment that is watched: a server and a host with every gateway open, and what a scraper reads of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import dns.message
import dns.query
import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text_004
from prometheus_client.samples import Sample

from compass.pki.authority import Credentials
from tests.e2e.deployment import Deployment, Host, free_port, new_address
from tests.e2e.processes import eventually
from tests.e2e.test_https import client, token

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
WAY = '[[server.alert]]\nway = "command"\ncommand = ["true"]\n'
HOOK = '[[host.hook]]\non = ["openuss"]\ncommand = ["/bin/true"]\nquiet_seconds = 0.0\n'


class Watched:
    """Deployment of a server that serves DNS, and a host with DNS, a hook, and programs that use it."""

    def __init__(self, directory: Path, authority: Credentials, log: str = "") -> None:
        self.dns_place = new_address(), 0
        self.dns_place = self.dns_place[0], free_port(self.dns_place[0])
        settings = f'[server.dns]\nlisten = "{self.dns_place[0]}:{self.dns_place[1]}"\n{WAY}'
        self.deployment = Deployment(directory, authority, settings=settings + log)
        self._log = log
        self.token = ""

    def start(self) -> None:
        """Start both, and have something of everything happen."""
        deployment = self.deployment
        deployment.start()
        self.host = host = deployment.add_host("web1", dns=True, services=("portal.web",), sections=HOOK + self._log)
        host.in_session()
        outcome = deployment.register(host, "chinaserver.openuss")
        host.resolves("chinaserver.openuss", "service", [outcome.port])
        deployment.watch(host)
        deployment.report(host, outcome)
        host.resolves("chinaserver.openuss", "suspect", [outcome.port])
        for place in (self.dns_place, (host.address, host.dns_port)):
            for name in ("chinaserver.openuss.gns", "nobody.openuss.gns"):
                dns.query.udp(dns.message.make_query(name, "A"), place[0], port=place[1], timeout=10)
        self.token = token(deployment, "prometheus")
        with client(deployment) as stranger:
            assert stranger.get("/v1/status").status_code == 401

    def of_server(self, accept: str = "") -> str:
        """Return what a scraper with a viewer's token reads."""
        with client(self.deployment, token=self.token) as scraper:
            answer = scraper.get("/metrics", headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        return answer.text

    def of_host(self, accept: str = "") -> str:
        """Return what a scraper on the host reads."""
        return text_of(self.host, accept)

    def happened(self, name: str, **labels: str) -> None:
        """Wait until a counter or gauge of either daemon is not 0."""

        def there() -> bool:
            samples = [*samples_of(self.of_server()), *samples_of(self.of_host())]
            return any(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

        eventually(there, f"{name} {labels} is told")


def text_of(host: Host, accept: str = "") -> str:
    """The metrics of a host."""
    answer = httpx.get(f"{host.url}/metrics", headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    return answer.text


def samples_of(text: str) -> list[Sample]:
    """Every sample of a text in either format."""
    families = cast(Any, openmetrics)(text) if text.endswith("# EOF\n") else text_004(text)
    return [sample for family in families for sample in family.samples]


def labels_of(samples: Iterable[Sample]) -> dict[str, dict[str, set[str]]]:
    """Return, by name of a series, its labels with the values that were seen."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for sample in samples:
        series = found[sample.name]
        for label, value in sample.labels.items():
            series[label].add(value)
    return found

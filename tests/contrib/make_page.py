"""Writer of the tables of metrics in `docs/reference/metrics.md`: `python -m tests.contrib.make_page`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from compass.agent.metrics import AgentMetrics
from compass.gateway.metrics.exposition import GatewayMetrics
from compass.model.metrics import MetricSpec, Registry, specs_of
from compass.server.metrics import ServerMetrics
from tests.e2e.processes import ROOT

PATH = ROOT / "docs" / "reference" / "metrics.md"
_REGISTRY = Registry()
GatewayMetrics(_REGISTRY)
TABLES: dict[str, tuple[MetricSpec, ...]] = {
    "server": tuple(specs_of(ServerMetrics, "opengns_server_").values()),
    "host": tuple(specs_of(AgentMetrics, "opengns_host_").values()),
    "gateways": _REGISTRY.specs,
}
"""Metrics by the name of their table."""
VALUES_MAX = 8
"""Values of a label that are named in a table; refusals have as many as the protocol has codes."""


def table(specs: Sequence[MetricSpec]) -> str:
    """Return a table in Markdown."""
    rows = ["| metric | kind | labels | what it is |", "|---|---|---|---|"]
    for spec in specs:
        rows.append(f"| `{spec.shown}` | {spec.kind} | {_labels(spec)} | {spec.about} |")
    return "\n".join(rows)


def _labels(spec: MetricSpec) -> str:
    named = ", ".join(f"`{label}`" for label in spec.labels)
    known = spec.known if len(spec.known) <= VALUES_MAX else ()
    return f"{named}: {', '.join(known)}" if known else named


def drawn(document: str) -> str:
    """Return the document with the text between each pair of markers replaced."""
    for name, specs in TABLES.items():
        block = f"<!-- metrics:{name} -->\n{table(specs)}\n<!-- /metrics:{name} -->"
        marked = re.findall(rf"<!-- metrics:{name} -->.*?<!-- /metrics:{name} -->", document, flags=re.DOTALL)
        if len(marked) != 1:
            raise ValueError(f"{PATH}: {len(marked)} pairs of markers metrics:{name} instead of one")
        document = document.replace(marked[0], block)
    return document


if __name__ == "__main__":
    PATH.write_text(drawn(PATH.read_text()))
    print(f"{PATH}: tables written")

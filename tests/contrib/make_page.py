"""Write the tables of metrics in `docs/reference/metrics.md` from the code: `python -m tests.contrib.make_page`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from compass.gateway.metrics.agent_metrics import HOST
from compass.gateway.metrics.exposition import EDGES, MetricSpec
from compass.gateway.metrics.server_metrics import SERVER
from tests.e2e.processes import ROOT

PATH = ROOT / "docs" / "reference" / "metrics.md"
TABLES = {"server": SERVER, "host": HOST, "gateways": EDGES}
VALUES_MAX = 8
"""Values of a label that are named in a table; refusals have as many as the protocol has codes."""


def table(measures: Sequence[MetricSpec]) -> str:
    """Markdown."""
    rows = ["| metric | kind | labels | what it is |", "|---|---|---|---|"]
    for measure in measures:
        rows.append(f"| `{measure.shown}` | {measure.kind} | {_labels(measure)} | {measure.about} |")
    return "\n".join(rows)


def _labels(measure: MetricSpec) -> str:
    named = ", ".join(f"`{label}`" for label in measure.labels)
    known = measure.known if len(measure.known) <= VALUES_MAX else ()
    return f"{named}: {', '.join(known)}" if known else named


def drawn(document: str) -> str:
    """The document with what stands between each pair of markers replaced."""
    for name, measures in TABLES.items():
        block = f"<!-- metrics:{name} -->\n{table(measures)}\n<!-- /metrics:{name} -->"
        marked = re.findall(rf"<!-- metrics:{name} -->.*?<!-- /metrics:{name} -->", document, flags=re.DOTALL)
        if len(marked) != 1:
            raise ValueError(f"{PATH}: {len(marked)} pairs of markers metrics:{name} instead of one")
        document = document.replace(marked[0], block)
    return document


if __name__ == "__main__":
    PATH.write_text(drawn(PATH.read_text()))
    print(f"{PATH}: tables written")

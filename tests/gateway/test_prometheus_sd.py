"""Labels of Prometheus targets: each entry of the metadata has one of its own."""

from __future__ import annotations

import re

import pytest

from compass.gateway.http.prometheus_sd import target_groups
from compass.model.rows import Listener

META = "__meta_opengns_metadata_"


@pytest.mark.parametrize(
    "keys",
    [
        {"topic-name": "topic_name", "a.b/c": "a_b_c", "9lives": "9lives"},
        {"ü": "__c3bc", "é": "__c3a9"},
        {"a_b": "a_b", "a-b": "a_b_612d62", "a.b": "a_b_612e62"},
        {"straße": "stra_e"},
        {"a_b": "a_b", "a-b": "a_b_612d62_612d62", "a_b_612d62": "a_b_612d62"},
        {"_": "_", "-": "__2d"},
    ],
)
def test_no_entry_hides_another(keys: dict[str, str]) -> None:
    """Whatever the letters are; a key that is a label's name already keeps it."""
    (group,) = target_groups([Listener("a.b", "192.0.2.7", 1, "up", 1.0, 1, metadata={key: key for key in keys})])
    found = {name.removeprefix(META): key for name, key in group.labels.items() if name.startswith(META)}
    assert found == {name: key for key, name in keys.items()}
    assert all(re.fullmatch("[a-zA-Z0-9_]+", name) for name in group.labels)

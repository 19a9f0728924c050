"""Alert rules of `contrib/prometheus` in front of a real Prometheus and Alertmanager; `make alerting` prints more."""

from __future__ import annotations

import pytest

from tests.faults import alerting


def test_times_are_scaled_and_nothing_else() -> None:
    """The rules that are played are the shipped ones: the same expressions but for ranges, and the same order."""
    assert alerting.faster("1m") == "2000ms" and alerting.faster("15s") == "500ms" and alerting.faster("10ms") == "1ms"
    rules = [rule for group in alerting.scaled_rules()["groups"] for rule in group["rules"]]
    shipped = alerting.shipped_rules()
    assert [rule["alert"] for rule in rules] == [rule["alert"] for rule in shipped]
    assert [rule.get("for") is None for rule in rules] == [rule.get("for") is None for rule in shipped]
    assert sum(rule["expr"] == own["expr"] for rule, own in zip(rules, shipped, strict=True)) > len(rules) / 2


@pytest.mark.long
@pytest.mark.skipif(bool(alerting.missing()), reason=f"not installed: {', '.join(alerting.missing())}")
def test_an_outage_fires_the_right_rules_and_resolves() -> None:
    """Killed services, a killed server and a killed host: each pages by its rules and by no other, and is over."""
    assert alerting.main() == 0

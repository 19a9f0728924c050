"""Alert rules, scrape configurations and the dashboard: the metrics that they name are those of real daemons.

promtool and Prometheus itself are used where they are installed (Debian's package `prometheus`).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import yaml

from compass.admin.main import cli as admin_cli
from compass.cli.main import cli as host_cli
from compass.daemons import main as daemons
from tests.contrib import make_page
from tests.contrib.queries import Query
from tests.e2e.deployment import free_port, new_address
from tests.e2e.processes import ROOT, Program, eventually
from tests.e2e.scraping import Watched, labels_of, samples_of

CONTRIB = ROOT / "contrib"
RULES = CONTRIB / "prometheus" / "alerts.yml"
DASHBOARD = CONTRIB / "grafana" / "compass.json"
ADDED = {"job", "instance"}
"""Labels that Prometheus puts to every series."""
STATUS = re.compile(r"\d{3}|\[45\]\.\.")
LABEL = re.compile(r"{{ *(?:\$labels\.)?(\w+) *}}")
PROGRAMS: dict[str, click.Command] = {
    "opengnsadmin": admin_cli,
    "opengnsc": host_cli,
    "opengnssd": daemons.server,
    "opengnscd": daemons.host,
}
Series = dict[str, dict[str, set[str]]]


def rules() -> list[dict[str, Any]]:
    """Return all alert rules."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the panels with queries."""
    found: list[dict[str, Any]] = [one for one in json.loads(DASHBOARD.read_text())["panels"] if one["type"] != "row"]
    return found


def queries() -> list[tuple[str, str, str]]:
    """Return each query with its place, and the text that names labels of its result."""
    of_rules = [(rule["alert"], rule["expr"], " ".join(rule["annotations"].values())) for rule in rules()]
    of_panels = [
        (panel["title"], target["expr"], target["legendFormat"]) for panel in panels() for target in panel["targets"]
    ]
    return [*of_rules, *of_panels]


@pytest.fixture(scope="module")
def series(watched: Watched) -> Series:
    """Return the metrics of both daemons, and those that Prometheus adds."""
    text = watched.of_server(), watched.of_host()
    found = labels_of(sample for one in text for sample in samples_of(one))
    found["up"] = {}
    return found


@pytest.mark.parametrize(("where", "text", "named"), queries(), ids=lambda value: None)
def test_what_a_query_names_is_told(series: Series, where: str, text: str, named: str) -> None:
    """Each metric exists, each label belongs to it, and each value has occurred, or one that matches."""
    query = Query(text)
    labels: set[str] = set(ADDED)
    for selected in query.selected():
        assert selected.name in series, f"{where}: no daemon exposes {selected.name}"
        there = series[selected.name]
        labels |= set(there)
        for label, operator, value in selected.matchers:
            if label in ADDED:
                assert value.startswith("$") or set(value.split("|")) <= {"opengnssd", "opengnscd"}
            elif label == "status":
                assert STATUS.fullmatch(value)
            else:
                assert label in there, f"{where}: {selected.name} has no label {label}"
                assert operator in ("Equal", "NotEqual", "Re")
                assert set(value.split("|")) <= there[label], f"{where}: {label} is never {value}"
    assert query.grouped() <= labels, f"{where}: it groups by what there is not"
    left = query.grouped() if " by (" in text else labels
    assert set(LABEL.findall(named)) <= left | {"value"}, f"{where}: its words name a label that the result has not"


def test_every_rule_says_what_to_do() -> None:
    """Names are unique; each rule has a severity, a summary and a description that names existing commands."""
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) > 20
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert list(rule["annotations"]) == ["summary", "description", "cause", "scope", "next"], rule["alert"]
        for name in ("cause", "scope", "next"):
            text = rule["annotations"][name]
            assert len(text) > 10, (rule["alert"], name)
            for path in re.findall(r"docs/[a-z/-]+\.md", text):
                assert (ROOT / path).exists(), (rule["alert"], path)
            for line in re.findall(r"`([^`]+)`", text):
                assert exists(line.split()), (rule["alert"], line)


def exists(words: list[str]) -> bool:
    """Return whether a command line in an annotation names a program, commands and options that exist."""
    program, *rest = words
    if program == "journalctl":
        return rest in ([], ["-u", "opengnssd"], ["-u", "opengnscd"])
    command: click.Command = PROGRAMS[program]
    while rest and isinstance(command, click.Group) and not rest[0].startswith("--"):
        if rest[0] not in command.commands:
            return False
        command = command.commands[rest.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    runs = not isinstance(command, click.Group) or command.invoke_without_command
    return runs and {word for word in rest if word.startswith("--")} <= options


def test_the_dashboard_can_be_laid_out() -> None:
    """No panel overlaps another or exceeds the 24 columns; ids are unique, and each variable is declared."""
    dashboard = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?([a-z]+)", json.dumps(dashboard["panels"]))) <= variables
    for one in dashboard["templating"]["list"]:
        assert one["type"] == "datasource" or "opengns_build_info" in one["definition"]


def test_every_metric_of_ours_is_on_the_dashboard_or_in_a_rule() -> None:
    """A metric that no dashboard and no rule uses need not be counted."""
    used = {selected.name for _, text, _ in queries() for selected in Query(text).selected()}
    used = {re.sub("_(bucket|sum|count)$", "", name) for name in used}
    assert {spec.shown for table in make_page.TABLES.values() for spec in table} - used == {
        # Numbers of which the dashboard shows others instead.
        *("opengns_host_servers_known", "opengns_host_services", "opengns_host_listeners", "opengns_host_revision"),
        *("opengns_host_snapshots_total", "opengns_host_watchers"),
    }


def test_the_scrape_configurations_ask_for_what_is_served(watched: Watched) -> None:
    """Paths, ports and labels of discovered listeners are those that the daemons serve."""
    central = yaml.safe_load((CONTRIB / "prometheus" / "prometheus.yml").read_text())
    agent = yaml.safe_load((CONTRIB / "prometheus" / "agent.yml").read_text())
    servers, discovered = central["scrape_configs"]
    assert (servers["job_name"], servers["scheme"], servers["metrics_path"]) == ("opengnssd", "https", "/metrics")
    (host,) = agent["scrape_configs"]
    assert (host["job_name"], host["static_configs"]) == ("opengnscd", [{"targets": ["127.0.0.1:4866"]}])
    path = discovered["http_sd_configs"][0]["url"].partition(":4864")[2]
    groups = httpx.get(watched.host.url + path).json()
    known = set(groups[0]["labels"])
    assert {label for rule in discovered["relabel_configs"] for label in rule["source_labels"]} <= known


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package prometheus is not installed")
def test_promtool_accepts_rules_and_configurations(watched: Watched, tmp_path: Path) -> None:
    """promtool also accepts the names and types of the daemons' metrics."""
    at = CONTRIB / "prometheus"
    for arguments in (
        ("check", "rules", str(RULES)),
        ("check", "config", "--syntax-only", str(at / "prometheus.yml")),
        ("check", "config", "--syntax-only", "--agent", str(at / "agent.yml")),
        ("test", "rules", str(Path(__file__).with_name("rules.yml"))),
    ):
        ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    for text in (watched.of_server(), watched.of_host()):
        own = "".join(f"{line}\n" for line in text.splitlines() if "opengns_" in line)
        ran = subprocess.run(["promtool", "check", "metrics"], input=own, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture
def prometheus(watched: Watched, tmp_path: Path) -> Iterator[str]:
    """Start a Prometheus that scrapes both daemons and has the rules. Returns the address of its API."""
    deployment, host = watched.deployment, watched.host
    (tmp_path / "token").write_text(watched.token)
    scraped = yaml.safe_load((CONTRIB / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    scraped["authorization"]["credentials_file"] = str(tmp_path / "token")
    scraped["tls_config"]["ca_file"] = str(deployment.directory / "authority.crt")
    scraped["static_configs"] = [{"targets": [f"{deployment.address}:{deployment.https_port}"]}]
    local = {"job_name": "opengnscd", "static_configs": [{"targets": [f"{host.address}:{host.port}"]}]}
    seconds = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = {"global": seconds, "rule_files": [str(RULES)], "scrape_configs": [scraped, local]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = new_address()
    place = f"{address}:{free_port(address)}"
    files = f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"
    program = Program("prometheus", ["prometheus", *files, f"--web.listen-address={place}"], tmp_path / "log")
    program.start()
    yield f"http://{place}/api/v1"
    program.clear_away()


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's package prometheus is not installed")
def test_a_real_prometheus_scrapes_both_and_answers_every_query(prometheus: str) -> None:
    """Both targets are up, every rule is evaluated, and every query of the dashboard is answered."""

    def healths() -> list[str]:
        try:
            answer = httpx.get(f"{prometheus}/targets")
        except httpx.TransportError:
            return []
        found = answer.json()["data"]["activeTargets"] if answer.status_code == 200 else []
        return [f"{one['labels']['job']} {one['health']} {one['lastError']}" for one in found]

    eventually(lambda: sorted(healths()) == ["opengnscd up ", "opengnssd up "], "both are scraped")

    def evaluated() -> bool:
        groups = httpx.get(f"{prometheus}/rules").json()["data"]["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}

    eventually(evaluated, "every rule is evaluated")
    for where, text, _ in queries():
        text = text.replace("$__rate_interval", "1m").replace("$server|$host", ".*")
        text = text.replace("$server", ".*").replace("$host", ".*")
        answer = httpx.get(f"{prometheus}/query", params={"query": text}).json()
        assert answer["status"] == "success", (where, answer)
    ready = httpx.get(f"{prometheus}/query", params={"query": "opengns_server_ready"}).json()["data"]["result"]
    assert [one["value"][1] for one in ready] == ["1"] and ready[0]["metric"]["job"] == "opengnssd"


def test_the_page_lists_every_metric() -> None:
    """The tables of docs/reference/metrics.md are those of the code (`python -m tests.contrib.make_page`)."""
    page = make_page.PATH.read_text()
    assert make_page.drawn(page) == page


def test_no_table_can_be_lost() -> None:
    """A page without its markers is reported, not left unchanged."""
    with pytest.raises(ValueError, match="0 pairs of markers metrics:server"):
        make_page.drawn("nothing")

"""Metrics, health and logs of real daemons, read as an operator's tools read them."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from itertools import chain

import httpx
import pytest

from compass.pki.authority import Credentials
from tests.contrib.make_page import TABLES
from tests.e2e.conftest import Deploy, check_logs
from tests.e2e.processes import eventually
from tests.e2e.scraping import OPENMETRICS, Watched, labels_of, samples_of
from tests.e2e.test_https import client
from tests.support.installation import Installation, free_port

LOGGED = '[log]\nformat = "json"\n'
WORDS = ("web1", "openuss", "chinaserver", "portal", "127.")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, authority: Credentials) -> Iterator[Watched]:
    """A server and a host whose logs are JSON."""
    watched = Watched(tmp_path_factory.mktemp("gns"), authority, LOGGED)
    with watched.deployment as deployment:
        watched.start()
        yield watched
        check_logs(deployment)


def value(text: str, name: str, **labels: str) -> float:
    """The one sample with these labels."""
    (found,) = [one.value for one in samples_of(text) if one.name == name and labels.items() <= one.labels.items()]
    return float(found)


def two_free_ports() -> int:
    """Return the first of two neighbouring ports that are free."""
    while True:
        first = free_port()
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", first + 1)):
            return first


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_both_daemons_tell_what_the_tables_say(watched: Watched, accept: str) -> None:
    """Both formats are accepted by the parsers of Prometheus' own library, and no metric is missing or undeclared."""
    for text, table in ((watched.of_server(accept), "server"), (watched.of_host(accept), "host")):
        assert text.endswith("# EOF\n") == bool(accept)
        declared = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE opengns_")}
        known = {spec.name if accept else spec.shown for spec in (*TABLES[table], *TABLES["gateways"])}
        assert declared - {"opengns_build", "opengns_build_info"} == known
        assert value(text, "opengns_build_info") == 1.0
        assert value(text, "process_open_fds") > 5


def test_no_name_of_a_service_or_host_is_in_a_label(watched: Watched) -> None:
    """The number of series does not depend on what is registered."""
    for text in (watched.of_server(), watched.of_host()):
        for name, labels in labels_of(samples_of(text)).items():
            said = set(chain.from_iterable(labels.values()))
            assert not any(word in text for word in WORDS for text in said), (name, said)


def test_the_figures_are_those_of_what_happened(watched: Watched) -> None:
    """A registration, a report, a verdict, a lookup, a push, a query: each is seen where it belongs."""
    watched.happened("opengns_server_changes_total", operation="confirm")
    watched.happened("opengns_server_push_lag_seconds_count")
    server, host = watched.of_server(), watched.of_host()
    # The newest changes (a token, an alert) concern no host.
    assert value(server, "opengns_server_revision") >= value(host, "opengns_host_revision") > 15
    assert value(server, "opengns_server_listeners", state="down") == 1.0
    assert value(server, "opengns_server_incidents_open", kind="failure") == 1.0
    assert value(server, "opengns_server_probes_total", result="failed") >= 2.0
    assert value(server, "opengns_server_sessions", role="host") == value(server, "opengns_server_watching") == 1.0
    assert value(server, "opengns_server_commit_seconds_count") == value(server, "opengns_server_commits_total") > 3
    assert value(server, "opengns_server_push_lag_seconds_sum") < 30.0
    assert value(server, "opengns_http_requests_total", operation="/v1/status", status="401") == 1.0
    assert value(server, "opengns_http_connections") == 1.0
    assert value(host, "opengns_host_session", state="open") == value(host, "opengns_host_loaded") == 1.0
    assert value(host, "opengns_host_view_age_seconds") == 0.0
    assert value(host, "opengns_host_lookups_total", source="service") >= 1.0
    assert value(host, "opengns_host_registrations", state="registered") == 1.0
    assert value(host, "opengns_host_notices_total", result="applied") >= 2.0
    assert value(host, "opengns_host_reports_total", result="delivered") == 1.0
    for text in (server, host):
        assert value(text, "opengns_dns_answers_total", rcode="NOERROR") == 1.0
        assert value(text, "opengns_dns_answers_total", rcode="NXDOMAIN") == 1.0
    watched.happened("opengns_host_reactions_total", kind="hook", result="done")


def test_health_has_one_shape_on_both(watched: Watched) -> None:
    """A probe that is written for the one works for the other."""
    with client(watched.deployment) as stranger:
        for path, status in (("/healthz", "running"), ("/readyz", "ready")):
            for answer in (stranger.get(path), httpx.get(watched.host.url + path)):
                assert (answer.status_code, answer.json()) == (200, {"status": status, "store": "available"})


def test_every_line_of_both_logs_is_an_object(watched: Watched) -> None:
    """Each line has time, level, namespace, sentence and fields; no token is among them."""
    for program in (watched.deployment.server, watched.host.daemon):
        lines = program.log.read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        assert len(entries) > 2
        for entry in entries:
            assert (
                {"time", "level", "namespace", "text", "fields"}
                <= set(entry)
                <= {*("time", "level", "namespace", "text", "fields", "traceback")}
            )
        assert watched.token not in program.log.read_text()
    listens = next(one for one in entries if one["text"].startswith("opengnscd listens on"))
    assert listens["fields"]["where"] in listens["text"] and listens["level"] == "info"


def test_a_host_without_a_server_tells_how_old_its_view_is(deploy: Deploy) -> None:
    """The age counts from the session's end, after a restart from the file's time; without a view nothing is ready."""
    deployment = deploy()
    host = deployment.add_host("web2", services=("portal.web",))
    host.answers()
    assert httpx.get(f"{host.url}/readyz").status_code == 503
    assert httpx.get(f"{host.url}/healthz").json() == {"status": "running", "store": "away"}
    text = httpx.get(f"{host.url}/metrics").text
    assert value(text, "opengns_host_loaded") == 0.0
    assert not any(one.name == "opengns_host_view_age_seconds" for one in samples_of(text))
    deployment.start()
    host.in_session()
    host.saved()
    deployment.server.kill()

    def aged() -> bool:
        return value(httpx.get(f"{host.url}/metrics").text, "opengns_host_view_age_seconds") > 0.5

    eventually(aged, "the view grows old")
    host.restart()
    eventually(aged, "it is as old after a restart")
    assert httpx.get(f"{host.url}/readyz").json() == {"status": "ready", "store": "away"}


def test_a_host_that_keeps_no_session_is_not_alone(deploy: Deploy) -> None:
    """Session short: it leaves by itself, is dialled when there is news, and its view is as good meanwhile."""
    deployment = deploy()
    deployment.start()
    host = deployment.add_host("web3", short=True, services=("portal.web",))

    def left() -> bool:
        status = host.status()
        return status is not None and status.loaded and status.session == "waiting"

    eventually(left, "it has left the server")
    text = httpx.get(f"{host.url}/metrics").text
    assert value(text, "opengns_host_view_age_seconds") == 0.0
    assert httpx.get(f"{host.url}/readyz").json() == {"status": "ready", "store": "available"}


def test_metrics_can_be_opened_to_all(deploy: Deploy) -> None:
    """The configuration may open them; else a stranger reads what to show, and a host's certificate is not enough."""
    closed, opened = deploy(), deploy()
    path = opened.directory / "opengnssd.toml"
    path.write_text(path.read_text().replace("[server.https]\n", '[server.https]\nmetrics = "open"\n'))
    for deployment, status in ((closed, 401), (opened, 200)):
        deployment.start()
        with client(deployment) as stranger:
            assert stranger.get("/metrics").status_code == status
            assert stranger.get("/v1/status").status_code == 401
    with client(closed, closed.certify("host", "web7.example.net")) as host:
        refused = host.get("/metrics")
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    with client(closed, closed.admin) as alice:
        assert alice.get("/metrics").status_code == 200


def test_a_scrape_reaches_one_worker_and_hears_of_all(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Which one is a label of the build; what the others are doing stands in the roster. Each has a port of its own,
    too, where just this one answers."""
    installation = Installation(tmp_path_factory.mktemp("workers"))
    config = installation.server_config(workers=2)
    port, first = free_port(), two_free_ports()
    https = f'[server.https]\nlisten = ["127.0.0.1:{port}"]\nmetrics = "open"\nworker_ports = "127.0.0.1:{first}"\n'
    config.write_text(f"{config.read_text()}\n{https}{LOGGED}")
    daemon = installation.server(config)
    try:
        daemon.wait_for("with 2 workers")
        seen: dict[str, str] = {}

        def scraped(port: int) -> tuple[str, str]:
            with httpx.Client(verify=False) as scraper:
                text = scraper.get(f"https://127.0.0.1:{port}/metrics").text
            (worker,) = labels_of(samples_of(text))["opengns_build_info"]["worker"]
            return worker, text

        def all_seen() -> bool:
            worker, text = scraped(port)
            names = labels_of(samples_of(text))["opengns_server_roster_sessions"]["server"]
            if names == {"gns1#1", "gns1#2"}:
                seen[worker] = text
            return set(seen) == {"1", "2"}

        eventually(all_seen, "both workers were scraped, and each knows both")
        for _ in range(5):
            assert (scraped(first)[0], scraped(first + 1)[0]) == ("1", "2")
    finally:
        installation.stop()
    entries = [json.loads(line) for line in daemon.log.splitlines()]
    assert {entry["fields"].get("worker") for entry in entries} >= {1, 2}

"""A real Prometheus and Alertmanager watch real daemons: an outage fires the right rules, is notified, and resolves.

The files are those of `contrib/prometheus`, with this deployment's addresses and with all times divided by FASTER.
promtool checks them before and after. Processes are killed with SIGKILL; what arrives at a webhook is compared with
what each phase must cause, and with nothing else that pages.

    python -m tests.faults.alerting
"""

from __future__ import annotations

import http.server
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from compass.client.core.errors import ApiProblem
from compass.model.selection.unanswered import LOOKUPS_MIN, SPACING_SECONDS
from compass.pki.authority import create_authority
from tests.e2e.deployment import Deployment, Host, Service, free_port, new_address
from tests.e2e.processes import ROOT, Program, eventually
from tests.e2e.test_https import token

FILES = ROOT / "contrib" / "prometheus"
FASTER = 30
"""Factor by which all times of the files are divided: a minute is two seconds, 15 seconds are half a second."""
NEEDED = ("prometheus", "promtool", "prometheus-alertmanager")
LOST = "account.openuso"
"""Service that loses all of its listeners; it has no backup."""
PATIENCE_SECONDS = 90.0
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_DURATION = re.compile(r"\b(\d+)(ms|s|m|h)\b")


def missing() -> list[str]:
    """Return the programs that are needed and not installed."""
    return [name for name in NEEDED if shutil.which(name) is None]


def faster(text: str) -> str:
    """Return a duration, or an expression with durations, with all of them divided by FASTER."""
    return _DURATION.sub(lambda found: f"{max(1, int(found[1]) * _UNITS[found[2]] // FASTER)}ms", text)


def shipped_rules() -> list[dict[str, Any]]:
    """Return all alert rules as they are shipped."""
    return [rule for group in yaml.safe_load((FILES / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def scaled_rules() -> dict[str, Any]:
    """Return the alert rules with shorter times."""
    rules: dict[str, Any] = yaml.safe_load((FILES / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[(\w+)\]", lambda found: f"[{faster(found[1])}]", rule["expr"])
            if "for" in rule:
                rule["for"] = faster(rule["for"])
    return rules


class Receiver:
    """Webhook that keeps what Alertmanager sends."""

    def __init__(self) -> None:
        self.news: list[tuple[str, str, dict[str, Any]]] = []
        """Name of an alert, `firing` or `resolved`, and the whole alert."""
        receiver = self

        class Hook(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in message["alerts"]:
                    receiver.news.append((alert["labels"]["alertname"], alert["status"], alert))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.address = new_address()
        self._server = http.server.ThreadingHTTPServer((self.address, 0), Hook)
        self.url = f"http://{self.address}:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Receive nothing more."""
        self._server.shutdown()
        self._server.server_close()

    def waits_for(self, name: str, status: str, since: int = 0) -> dict[str, Any]:
        """Wait until an alert is notified with that status, after a number of notifications. Returns the alert."""

        def arrived() -> dict[str, Any] | None:
            found = (alert for one, state, alert in self.news[since:] if (one, state) == (name, status))
            return next(found, None)

        alert: dict[str, Any] = eventually(arrived, f"{name} is {status}: {self.summary(since)}", PATIENCE_SECONDS)
        return alert

    def pages(self, since: int = 0) -> set[str]:
        """Return the alerts that page and have been notified after a number of notifications."""
        news = self.news[since:]
        return {name for name, status, one in news if status == "firing" and one["labels"]["severity"] == "page"}

    def summary(self, since: int = 0) -> list[str]:
        """Return what was notified."""
        return [f"{name} {status}" for name, status, _ in self.news[since:]]


def promtool(*arguments: str) -> None:
    """Run promtool, which must find nothing."""
    ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


class Monitoring:
    """Prometheus and Alertmanager in front of a deployment."""

    def __init__(self, deployment: Deployment, directory: Path, receiver: Receiver) -> None:
        self._deployment = deployment
        self._directory = directory
        self._receiver = receiver
        address = new_address()
        self._place, self._alertmanager = f"{address}:{free_port(address)}", f"{address}:{free_port(address)}"
        self.programs: list[Program] = []

    def start(self) -> None:
        """Write the files, have promtool check them, and start both programs."""
        directory = self._directory
        (directory / "alerts.yml").write_text(yaml.safe_dump(scaled_rules()))
        (directory / "prometheus.yml").write_text(yaml.safe_dump(self._configuration()))
        (directory / "alertmanager.yml").write_text(yaml.safe_dump(self._routes()))
        for at in (FILES, directory):
            promtool("check", "rules", str(at / "alerts.yml"))
        promtool("check", "config", "--syntax-only", str(FILES / "prometheus.yml"))
        promtool("check", "config", str(directory / "prometheus.yml"))
        data = f"--storage.tsdb.path={directory}/data"
        self._begin("prometheus", f"--config.file={directory}/prometheus.yml", data, self._place)
        data = f"--storage.path={directory}/alertmanager"
        own = f"--config.file={directory}/alertmanager.yml", data, self._alertmanager, "--cluster.listen-address="
        self._begin("prometheus-alertmanager", *own)

    def stop(self) -> None:
        """End both programs."""
        for program in self.programs:
            program.clear_away()

    def _begin(self, name: str, config: str, data: str, place: str, *more: str) -> None:
        command = [name, config, data, f"--web.listen-address={place}", *more]
        program = Program(name, command, self._directory / f"{name}.log")
        program.start()
        self.programs.append(program)

    def _configuration(self) -> dict[str, Any]:
        """Return the shipped configuration with this deployment's addresses and files, and its hosts."""
        deployment = self._deployment
        config: dict[str, Any] = yaml.safe_load((FILES / "prometheus.yml").read_text())
        secret = self._directory / "token"
        secret.write_text(token(deployment, "prometheus"))
        servers, discovered = config["scrape_configs"]
        (discovery,) = discovered["http_sd_configs"]
        for part in (servers, discovery):
            part["authorization"]["credentials_file"] = str(secret)
            part["tls_config"]["ca_file"] = str(deployment.directory / "authority.crt")
        place = f"{deployment.address}:{deployment.https_port}"
        servers["static_configs"] = [{"targets": [place]}]
        discovery["url"] = discovery["url"].replace("gns1.example.org:4864", place)
        discovery["refresh_interval"] = faster(discovery["refresh_interval"])
        hosts = [
            {"targets": [f"{host.address}:{host.port}"], "labels": {"instance": name}}
            for name, host in deployment.hosts.items()
        ]
        config["scrape_configs"].append({"job_name": "opengnscd", "static_configs": hosts})
        times = {name: faster(config["global"][name]) for name in ("scrape_interval", "evaluation_interval")}
        config["global"] = times | {"scrape_timeout": times["scrape_interval"]}
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [self._alertmanager]}]}]}
        return config

    def _routes(self) -> dict[str, Any]:
        times = {"group_wait": "100ms", "group_interval": "500ms", "repeat_interval": "1h"}
        hook = {"url": self._receiver.url, "send_resolved": True}
        return {
            "route": {"receiver": "hook", "group_by": ["alertname"], **times},
            "receivers": [{"name": "hook", "webhook_configs": [hook]}],
        }

    def targets(self) -> dict[str, set[str]]:
        """Return the health of all targets by job."""
        try:
            answer = httpx.get(f"http://{self._place}/api/v1/targets")
        except httpx.TransportError:
            return {}
        found: dict[str, set[str]] = {}
        for one in answer.json()["data"]["activeTargets"] if answer.status_code == 200 else []:
            found.setdefault(one["labels"]["job"], set()).add(one["health"])
        return found


@contextmanager
def monitored() -> Iterator[tuple[Deployment, Monitoring, Receiver]]:
    """Start a server, a host that uses services and one that provides them, and what watches them."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("gns", "watch"):
            (directory / name).mkdir()
        authority = create_authority("authority", datetime.now(UTC))
        deployment = stack.enter_context(Deployment(directory / "gns", authority))
        deployment.start()
        receiver = Receiver()
        stack.callback(receiver.close)
        for name in ("web", "store"):
            deployment.add_host(name, services=("portal.web",)).in_session()
        monitoring = Monitoring(deployment, directory / "watch", receiver)
        stack.callback(monitoring.stop)
        monitoring.start()
        yield deployment, monitoring, receiver


class Asking:
    """Program that looks a service up again and again."""

    def __init__(self, host: Host, name: str) -> None:
        self._host, self._name = host, name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._ended.wait(1.0):
            try:
                self._host.api.resolve(self._name)
            except ApiProblem:
                continue

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


def services_lost(deployment: Deployment, receiver: Receiver) -> None:
    """Kill all listeners of a service, two of five: both pages come, say what to do, and are over with the service."""
    web, store = deployment.hosts.values()
    kept = [deployment.run(store, name) for name in ("chinaserver.openuss", "chinaserver.openuss", "northeast.openuss")]
    killed = [deployment.run(store, LOST) for _ in range(2)]
    web.resolves(LOST, "service", sorted(one.port for one in killed))
    # A person who types a name that has no listener: nothing may come of it.
    assert web.api.resolve("northwest.openuss").source == "none"
    asking, since = Asking(web, LOST), len(receiver.news)
    for one in killed:
        one.signal(signal.SIGKILL)
    lost = receiver.waits_for("OpenGnsManyListenersLost", "firing", since)
    assert lost["annotations"]["summary"].startswith("40% of all listeners")
    receiver.waits_for("OpenGnsServicesLost", "firing", since)
    asked = receiver.waits_for("OpenGnsNoListener", "firing", since)
    assert asked["annotations"]["summary"] == "Services without a listener that web is asked for: 1"
    assert f"missing   {LOST} has no listener" in deployment.opengnsc(web, "status").stdout
    assert receiver.pages(since) == {"OpenGnsManyListenersLost", "OpenGnsNoListener"}, receiver.summary(since)
    for one in killed:
        restart(deployment, one)
    for name in ("OpenGnsManyListenersLost", "OpenGnsServicesLost", "OpenGnsNoListener"):
        receiver.waits_for(name, "resolved", since)
    asking.stop()
    assert all(one.program.runs for one in kept)


def restart(deployment: Deployment, service: Service) -> None:
    """Run a service again at its port."""
    service.program.clear_away()
    deployment.run(service.host, service.name, service.port)


def server_lost(deployment: Deployment, receiver: Receiver) -> None:
    """Kill the only server: a page; over when it is back."""
    since = len(receiver.news)
    deployment.server.kill()
    receiver.waits_for("OpenGnsNoServer", "firing", since)
    receiver.waits_for("OpenGnsServerDown", "firing", since)
    assert receiver.pages(since) == {"OpenGnsNoServer"}, receiver.summary(since)
    deployment.server.start()
    for name in ("OpenGnsNoServer", "OpenGnsServerDown"):
        receiver.waits_for(name, "resolved", since)


def host_lost(deployment: Deployment, receiver: Receiver) -> None:
    """Kill the daemon of one of two hosts: two tickets, and a page, for it is half of all."""
    web, since = deployment.hosts["web"], len(receiver.news)
    web.in_session()
    web.daemon.kill()
    for name in ("OpenGnsHostDown", "OpenGnsHostsLost", "OpenGnsManyHostsLost"):
        receiver.waits_for(name, "firing", since)
    assert receiver.pages(since) == {"OpenGnsManyHostsLost"}, receiver.summary(since)
    assert " lost" in deployment.opengnsadmin("lag")
    web.daemon.start()
    for name in ("OpenGnsHostDown", "OpenGnsHostsLost", "OpenGnsManyHostsLost"):
        receiver.waits_for(name, "resolved", since)


PHASES = (services_lost, server_lost, host_lost)


def main() -> int:
    """Play all phases. Returns the exit status."""
    if absent := missing():
        print(f"skipped: not installed: {', '.join(absent)} (Debian: prometheus, prometheus-alertmanager)")
        return 0
    least = (LOOKUPS_MIN - 1) * SPACING_SECONDS
    print(f"times of the files divided by {FASTER}; a service is unanswered after {least:g} s, as always", flush=True)
    with monitored() as (deployment, monitoring, receiver):
        up = {"opengnssd": {"up"}, "opengnscd": {"up"}}
        eventually(lambda: {job: monitoring.targets().get(job) for job in up} == up, "all daemons are scraped")
        for phase in PHASES:
            began = time.monotonic()
            phase(deployment, receiver)
            print(f"{phase.__name__}: right, {time.monotonic() - began:.0f} s", flush=True)
        # The discovery with a token: refused by every refresh without `type: Bearer` (Prometheus 2.42).
        assert "openuss" in monitoring.targets(), "the listeners of openuss are discovered"
        print(*receiver.summary(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

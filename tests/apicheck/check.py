"""A real server and a real host daemon in front of schemathesis, a fuzzer that reads the OpenAPI document."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from compass.model.names import format_endpoint
from compass.pki.authority import create_authority
from tests.e2e.deployment import Deployment
from tests.e2e.processes import environment

HERE = Path(__file__).parent
SECONDS_MAX = 1800.0
"""The whole run; one that takes longer hangs."""


def check_host(directory: Path, examples: int, options: list[str]) -> int:
    """The host's API; the exit status of schemathesis, whose report goes to the standard output."""
    with Deployment(directory, create_authority("apicheck", datetime.now(UTC))) as deployment:
        deployment.start()
        host = deployment.add_host("web1")
        host.in_session()
        deployment.register(host, "portal.web")
        listener = deployment.register(host, "northeast.openuss")
        known = {
            "APICHECK_CREDENTIAL": deployment.token("northeast.openuss"),
            "APICHECK_LISTENER": format_endpoint(listener.address, listener.port),
        }
        # A stream has no end; it is checked by tests of its own.
        return run(directory, f"{host.url}/openapi.json", examples, ["--exclude-path", "/v1/watch", *options], known)


def check_server(directory: Path, examples: int, options: list[str]) -> int:
    """The server's API over TLS, with an administrator's token."""
    with Deployment(directory, create_authority("apicheck", datetime.now(UTC))) as deployment:
        deployment.start()
        host = deployment.add_host("web1")
        host.in_session()
        deployment.register(host, "portal.web")
        listener = deployment.register(host, "northeast.openuss")
        drained = deployment.register(host, "chinaserver.openuss")
        token = deployment.opengnsadmin("token", "add", "apicheck", "--role", "admin").split()[-1]
        known = {
            "APICHECK_CREDENTIAL": deployment.token("northeast.openuss"),
            "APICHECK_LISTENER": format_endpoint(listener.address, listener.port),
            "APICHECK_DRAINED": format_endpoint(drained.address, drained.port),
            "REQUESTS_CA_BUNDLE": str(deployment.directory / "authority.crt"),
        }
        own = ["--exclude-path", "/v1/events", "--header", f"Authorization: Bearer {token}"]
        return run(directory, f"{deployment.https}/openapi.json", examples, [*own, *options], known)


def run(directory: Path, document: str, examples: int, options: list[str], known: dict[str, str]) -> int:
    """schemathesis as a process."""
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        str(HERE / "schemathesis.toml"),
        "run",
        document,
    ]
    command += ["--max-examples", str(examples), "--checks", "all", "--continue-on-failure", "--no-color"]
    command += ["--request-timeout", "20", "--seed", "1", "--generation-database", "none", *options]
    settings = {"SCHEMATHESIS_HOOKS": "tests.apicheck.hooks"} | known
    return subprocess.run(command, cwd=directory, env=environment() | settings, timeout=SECONDS_MAX).returncode

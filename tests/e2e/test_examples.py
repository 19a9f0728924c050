"""Every example, run as a person would run it, against real daemons; and `make run` plays examples/scene."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import PATIENCE_SECONDS, ROOT, Program, environment, eventually

EXAMPLES = ROOT / "examples"
ELSEWHERE = {
    "scene": ".ci/run",
    "uss.toml": "tests/admin/topology/test_file.py",
    "reload-haproxy": "tests/e2e/balancers.py",
}
"""Examples that another file runs, and which file."""


class Stage:
    """Two hosts: `web` uses what `storage` serves."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.web, self.storage = deployment.add_hosts("web", "storage")
        self.told = deployment.watch(self.web)

    def serve(self, host: Host, service: str, *command: str) -> tuple[Program, int]:
        """Start a server from the examples; wait until its registration is known."""
        port = free_port(host.address)
        file = self.deployment.directory / f"{service}.token"
        file.touch(0o600)
        file.write_text(self.deployment.token(service))
        more = {
            "OPENGNS_API": f"unix:{host.socket}",
            "OPENGNS_SERVICE": service,
            "OPENGNS_CREDENTIAL_FILE": str(file),
            "ADDRESS": host.address,
            "PORT": str(port),
        }
        full = [sys.executable, *(argument.format(address=host.address, port=port) for argument in command)]
        program = Program(service, full, self.deployment.directory / f"{service}-{port}.log", more)
        self.deployment.programs.append(program)
        program.start()

        def registered() -> bool:
            assert program.runs, f"{command} has ended:\n{program.shown_log()}"
            row = self.deployment.listeners().get((service, port))
            return row is not None and row.state == "up"

        eventually(registered, f"{service} is registered by {command}")
        return program, port

    def ends(self, program: Program, service: str, port: int, status: int = 0) -> None:
        """SIGTERM: it deregisters and ends."""
        assert program.stop() == status, program.shown_log()
        row = self.deployment.listeners()[service, port]
        assert (row.state, row.cause) == ("offline", "deregistered"), row
        assert "Traceback" not in program.shown_log(), program.shown_log()

    def run(self, *command: str, status: int = 0, service: str = "portal.web") -> str:
        """The output of a script from the examples on the web host."""
        done = subprocess.run(
            [sys.executable, *command],
            env=environment() | {"OPENGNS_API": f"unix:{self.web.socket}", "OPENGNS_SERVICE": service},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            cwd=ROOT,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def stage(deployment: Deployment) -> Stage:
    """Shared by the module's tests."""
    return Stage(deployment)


def test_every_example_is_run() -> None:
    """ "Every example in `examples/` is run by a test": none is forgotten here."""
    here = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        if path.name.startswith("__"):
            continue
        where = (ROOT / ELSEWHERE[path.name]).read_text() if path.name in ELSEWHERE else here
        assert "make run ONCE=1" in where if path.name == "scene" else path.name in where, path.name


def test_services_and_scripts(stage: Stage) -> None:
    """An ASGI application on uvicorn serves; a script, httpx, requests and a Twisted web service ask it by name; one of
    two listeners is killed and no user notices; both servers deregister when they are ended.
    """
    # examples/asgi_app.py
    uvicorn = ("-m", "uvicorn", "examples.asgi_app:app", "--host", "{address}", "--port", "{port}", "--log-level=error")
    served = [stage.serve(stage.storage, "northeast.openuss", *uvicorn) for _ in range(2)]
    says = "northeast.openuss on port ({}|{}), an ASGI application\n".format(*(port for _, port in served))
    asking = (
        (str(EXAMPLES / "plain_script.py"), "openuss"),
        (str(EXAMPLES / "with_httpx.py"), "gns://northeast.openuss/"),
        (str(EXAMPLES / "with_requests.py"), "gns://openuss/"),
    )
    for command in asking:
        assert re.fullmatch(says, stage.run(*command)), command
    assert re.fullmatch(f"({says}){{3}}", stage.run(str(EXAMPLES / "with_httpx.py"), "gns://openuss/", "--asyncio"))
    portal, port = stage.serve(stage.web, "portal.web", str(EXAMPLES / "twisted_web.py"))
    url = f"http://{stage.web.address}:{port}/"

    def told() -> str:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            text: str = answer.read().decode()
        return text

    assert re.fullmatch(f"the portal was told: {says}", told())
    served[0][0].kill()
    for _ in range(10):
        assert f"port {served[1][1]}" in told()
    assert f"port {served[1][1]}" in stage.run(*asking[0])
    stage.ends(*_named(served[1], "northeast.openuss"), status=-signal.SIGTERM)
    stage.ends(portal, "portal.web", port)
    assert "nobody to ask: openuss: no usable listener is registered" in stage.run(asking[0][0], status=1)


def test_gunicorns_master_registers_for_its_workers(stage: Stage) -> None:
    """examples/gunicorn_conf.py and examples/wsgi_app.py: one listener, two workers that look up by themselves after
    the fork, and a worker that is killed is no change to anybody.
    """
    outcome = stage.deployment.register(stage.storage, "chinaserver.openuss")
    command = ("-m", "gunicorn", "--config", "examples/gunicorn_conf.py", "examples.wsgi_app:app")
    program, port = stage.serve(stage.web, "portal.web", *command)

    def answer() -> str:
        with urllib.request.urlopen(f"http://{stage.web.address}:{port}/", timeout=PATIENCE_SECONDS) as response:
            text: str = response.read().decode()
        return text

    expected = rf"portal\.web, process (\d+), would ask {stage.storage.address}:{outcome.port}\n"
    seen = set()

    def both() -> bool:
        found = re.fullmatch(expected, answer())
        assert found, answer()
        seen.add(int(found[1]))
        return len(seen) == 2

    eventually(both, "both workers answer")
    assert program.pid not in seen
    other = stage.deployment.register(stage.storage, "chinaserver.openuss")
    eventually(lambda: f":{other.port}" in answer() and f":{other.port}" in answer(), "the workers have been told")
    stage.ends(program, "portal.web", port)


def test_a_session_keeps_its_count(stage: Stage) -> None:
    """examples/stateful_session.py under `opengnsc run`: the listener in use is killed, and the count goes on."""
    script = str(EXAMPLES / "stateful_session.py")
    listeners = {}
    for _ in range(2):
        port = free_port(stage.storage.address)
        options = ["--port", str(port), "--address", stage.storage.address, "--", sys.executable, script, "serve"]
        command = ["-m", "compass.cli.main", "run", "account.openuso", *options, stage.storage.address, str(port)]
        secrets = {
            "OPENGNS_API": f"unix:{stage.storage.socket}",
            "OPENGNS_CREDENTIAL": stage.deployment.token("account.openuso"),
        }
        program = Program("run", [sys.executable, *command], stage.deployment.directory / f"run-{port}.log", secrets)
        stage.deployment.programs.append(program)
        mark = stage.told.mark()
        program.start()
        stage.told.told("account.openuso", "up", port, mark)
        listeners[port] = program
    counting = Program(
        "count",
        [sys.executable, script, "count", "account.openuso"],
        stage.deployment.directory / "count.log",
        {"OPENGNS_API": f"unix:{stage.web.socket}", "OPENGNS_SERVICE": "portal.web"},
    )
    stage.deployment.programs.append(counting)
    counting.start()

    def counted() -> list[tuple[int, int]]:
        found = re.findall(r"^(\d+) from account\.openuso at [\d.]+:(\d+)$", counting.shown_log(), re.MULTILINE)
        return [(int(number), int(port)) for number, port in found]

    eventually(lambda: len(counted()) >= 3, "it counts")
    used = counted()[0][1]
    listeners[used].clear_away()
    eventually(lambda: counted()[-1][1] != used, "it counts on elsewhere")
    numbers = [number for number, _ in counted()]
    assert numbers == list(range(1, len(numbers) + 1))
    counting.stop()


def _named(served: tuple[Program, int], service: str) -> tuple[Program, str, int]:
    return served[0], service, served[1]

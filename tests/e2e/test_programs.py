"""The programs as people start them: `.tac` files, commands that stay, a second daemon where there is one already."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host
from tests.e2e.processes import PATIENCE_SECONDS, ROOT, Program, environment, eventually, python


def twistd(name: str, config: str, deployment: Deployment) -> Program:
    """`twistd -ny NAME.tac` with the configuration that the environment names."""
    command = python("twisted.scripts.twistd:run", "--pidfile=", "-ny", str(ROOT / f"{name}.tac"))
    program = Program(name, command, deployment.directory / f"{name}-tac.log", {f"{name.upper()}_CONFIG": config})
    deployment.programs.append(program)
    return program


def test_both_daemons_serve_from_their_tac_files(deploy: Deploy) -> None:
    """G28 and issue 2, line 2: "`twistd -ny opengnssd.tac` and `twistd -ny opengnscd.tac` serve with a config given by
    environment". At SIGTERM both end in order; twistd then passes the signal on to itself, for its parent.
    """
    deployment = deploy()
    deployment.server = twistd("opengnssd", str(deployment.directory / "opengnssd.toml"), deployment)
    deployment.start()
    host = deployment.add_host("web")
    host.answers()
    host.daemon.stop()
    host.daemon = twistd("opengnscd", str(host.directory / "opengnscd.toml"), deployment)
    host.daemon.start()
    host.in_session()
    outcome = deployment.register(host, "account.openuso")
    assert outcome.state == "up"
    for program in (host.daemon, deployment.server):
        assert program.stop() == -signal.SIGTERM
        assert "Server Shut Down" in program.shown_log()


def test_a_tac_file_without_a_configuration_says_where_it_looked(deploy: Deploy) -> None:
    """Bad input gets its own clear refusal; no traceback."""
    deployment = deploy()
    program = twistd("opengnssd", "/nowhere/opengnssd.toml", deployment)
    program.start()
    assert program.ended() != 0
    said = program.shown_log()
    assert "/nowhere/opengnssd.toml" in said
    assert "OPENGNSSD_CONFIG" in said
    assert "Traceback" not in said


def test_a_second_daemon_on_the_same_ports_ends_and_the_first_goes_on(deploy: Deploy) -> None:
    """Bad input: "a port in use ... its own clear refusal, ... nothing is lost": of the server and of the host."""
    deployment = deploy()
    deployment.start()
    (host,) = deployment.add_hosts("web")
    server_port = f"cannot listen on {deployment.address}:{deployment.port}"
    for name, entry, config, why in (
        ("opengnssd", "server", deployment.directory / "opengnssd.toml", server_port),
        ("opengnscd", "host", host.directory / "opengnscd.toml", f"process {host.daemon.pid} uses {host.directory}"),
    ):
        again = python(f"compass.daemons.main:{entry}", "--config", str(config))
        second = Program(name, again, deployment.directory / f"{name}-second.log")
        deployment.programs.append(second)
        second.start()
        assert second.ended() == 1
        assert why in second.shown_log()
        assert "Traceback" not in second.shown_log()
    assert deployment.register(host, "account.openuso").state == "up"
    assert deployment.opengnsc(host, "status").returncode == 0
    # The host's Unix socket is still the first one's.
    assert host.status() is not None


def test_commands_that_stay_tell_what_happens_through_a_restart_of_the_server(deploy: Deploy) -> None:
    """`opengnsc watch` and `opengnsadmin log updates --follow`, as processes in a pipe: each change is a line as soon
    as it is there, and neither ends because a server does.
    """
    deployment = deploy()
    deployment.start()
    (host,) = deployment.add_hosts("web")
    who = deployment.admin
    settings = [f"--server={deployment.address}:{deployment.port}", f"--certificate={who.certificate}"]
    settings += [f"--key={who.key}", f"--authority={who.authority}"]
    watch = _start(deployment, "watch", python("compass.cli.main:main", "watch", "portal.web"), host)
    follow = python("compass.admin.main:main", *settings, "log", "updates", "--follow")
    log = _start(deployment, "log", follow, host)
    eventually(lambda: "snapshot" in watch.shown_log(), "the watch has begun")
    eventually(lambda: "northwest.openuss" in log.shown_log(), "the log has begun")
    for _ in range(2):
        outcome = deployment.register(host, "account.openuso")
        for program in (watch, log):
            eventually(lambda: f":{outcome.port}" in program.shown_log(), f"{program.name} tells it")  # noqa: B023
        deployment.server.stop()
        deployment.server.start()
        deployment.serves()
        host.in_session()
    assert watch.runs
    for program, status in ((watch, 130), (log, 0)):
        subprocess.run(["kill", f"-{signal.SIGINT.value}", str(program.pid)], check=True)
        assert program.ended() == status
        assert "Traceback" not in program.shown_log()


def test_the_administrators_program_teaches() -> None:
    """Issue 2, line 2: "`python opengnsadmin.py --help` teaches"."""
    asked = subprocess.run(
        [sys.executable, str(ROOT / "opengnsadmin.py"), "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert asked.returncode == 0
    for word in ("category", "credential", "export", "plan", "apply", "Exit status", "opengnsadmin doctor"):
        assert word in asked.stdout


def _start(deployment: Deployment, name: str, command: list[str], host: Host) -> Program:
    program = Program(name, command, deployment.directory / f"{name}.log", {"OPENGNS_API": host.url})
    deployment.programs.append(program)
    program.start()
    return program

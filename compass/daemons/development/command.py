"""Console script `opengns`, and the command `opengns dev`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from twisted.internet.error import CannotListenError
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

import compass
from compass.client.core.endpoint import DEFAULT_SOCKET
from compass.daemons.config.file import ConfigProblem
from compass.daemons.development.directory import DevelopmentDirectory, DevelopmentProblem
from compass.daemons.development.settings import (
    GREATEST_PORT,
    LEAST_PORT,
    Ports,
    check_socket,
    is_loopback,
    write_settings,
)
from compass.daemons.process.logging import observer
from compass.daemons.process.start import (
    EXIT_CONFIG,
    EXIT_START,
    CannotStart,
    begin_log,
    forbid_core_files,
    why_not,
)
from compass.model.interfaces import StoreUnavailable
from compass.model.names import SERVER_PORT
from compass.model.text import escape
from compass.pki.identity import IdentityError
from compass.system.command_line import CheckedGroup, print_text, version_option
from compass.system.development import ADMIN_CONFIG, SOCKET, default_directory

PROGRAM = "opengns"
_EXIT_STATUS = (
    "Exit status: 0 ended by Ctrl-C, SIGTERM or SIGHUP, 1 could not start (a port or the directory is in use), "
    "2 the command line is wrong, 78 the directory cannot be used (another version, another user, other files)."
)


class Development:
    """Development mode from its options to its end."""

    log = Logger("compass")

    def __init__(self, directory: Path, ports: Ports, verbose: bool = False) -> None:
        self._directory = DevelopmentDirectory(directory)
        self._ports = ports
        self._verbose = verbose
        self._has_failed = False

    def run(self) -> NoReturn:
        """Serve until a signal; ends the process."""
        forbid_core_files()
        path = self._directory.path
        try:
            check_socket(path)
            self._directory.hold()
            self._ports.check()
            self._directory.open()
            write_settings(path, self._ports)
        except DevelopmentProblem as problem:
            _complain(str(problem))
            sys.exit(EXIT_START if problem.is_temporary else EXIT_CONFIG)
        begin_log(self._verbose, observer("text", sys.stderr), least=LogLevel.warn)
        from twisted.internet import reactor as global_reactor

        from compass.daemons.development.service import DevelopmentService

        reactor: Any = global_reactor
        try:
            service = DevelopmentService(reactor, path)
        except (ConfigProblem, IdentityError) as problem:
            _complain(str(problem))
            sys.exit(EXIT_CONFIG)

        def start() -> None:
            # The terminal that closes ends this mode, too.
            signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reactor.stop))
            service.startService()
            service.started.addCallbacks(self._serves, self._fail, (service,), errbackArgs=(reactor, service))

        reactor.callWhenRunning(start)
        reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
        reactor.run()
        if not self._has_failed:
            _print(("Ended; the same command continues with what is there.",))
        sys.exit(EXIT_START if self._has_failed else 0)

    def _serves(self, _: object, service: Any) -> None:
        if service.running:
            _print(banner(self._directory.path, self._ports, dict(os.environ)))

    def _fail(self, failure: Failure, reactor: Any, service: Any) -> None:
        if not service.running:
            # A signal has ended the start.
            return
        self._has_failed = True
        if failure.check(CannotListenError, StoreUnavailable, CannotStart):
            _complain(why_not(failure))
        else:
            self.log.failure("development mode could not start", failure)
        reactor.stop()


def banner(directory: Path, ports: Ports, environment: dict[str, str]) -> list[str]:
    """Return what a person reads once both daemons serve: where everything is, and three lines to try."""
    lines = [
        f"OpenGNS {compass.__version__} in development mode: a server and a host daemon, for this machine only.",
        f"  directory  {directory} (remove it to start with an empty catalogue)",
        f"  console    https://{ports.at(ports.https)}/ (sign in with the token in {directory / 'console.token'})",
        f"  names      http://{ports.at(ports.api)} and DNS at {ports.at(ports.dns)}, zone gns",
        "",
        "Try this in another terminal:",
    ]
    is_default = directory == default_directory(environment, _home())
    if not is_default or Path(DEFAULT_SOCKET).parent.is_dir():
        lines += [f"  export OPENGNS_API=unix:{directory / SOCKET} OPENGNSADMIN_CONFIG={directory / ADMIN_CONFIG}"]
    return [
        *lines,
        f"  opengnsc run hello.web --port 8000 -- python3 -m http.server 8000 --bind {ports.address}",
        "  opengnsc resolve hello.web",
        f"  curl http://{ports.at(ports.api)}/v1/resolve/hello.web",
        "",
        "Ctrl-C ends both; the same command continues with what is there.",
    ]


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def _print(lines: Any) -> None:
    """Print lines; where no program reads the standard output any more, serving goes on without."""
    try:
        print_text("\n".join(map(escape, lines)))
        sys.stdout.flush()
    except OSError:
        # Otherwise the interpreter tries to write the rest at its end, and fails.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str) -> None:
    print_text("\n".join(f"{PROGRAM}: {escape(line)}" for line in text.split("\n")), err=True)


@click.group(PROGRAM, cls=CheckedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@version_option(compass.__version__)
def cli() -> None:
    """OpenGNS, the global name service. To try it: 'opengns dev'.

    The other programs: opengnsc registers and looks up services on a host, opengnsadmin administers, opengnssd is the
    server and opengnscd the host daemon.
    """


@cli.command("dev", epilog=_EXIT_STATUS)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of everything that is written. Default: $XDG_STATE_HOME/opengns/dev, else "
    "~/.local/state/opengns/dev.",
)
@click.option(
    "--port",
    type=click.IntRange(LEAST_PORT, GREATEST_PORT),
    default=SERVER_PORT,
    show_default=True,
    help="Port of the server; the console is 1 above, HTTP for programs 3 above, DNS 10 below.",
)
@click.option(
    "--address",
    envvar="OPENGNS_DEV_ADDRESS",
    show_envvar=True,
    default="127.0.0.1",
    show_default=True,
    help="Loopback address to serve; no other is served.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log everything that both daemons log.")
def dev(directory: Path | None, port: int, address: str, verbose: bool) -> None:
    """Run a server and a host daemon in this terminal, for development on this machine.

    Makes a directory with an authority, certificates, an empty catalogue and a token for the console, and serves on a
    loopback address. A service that registers is declared by that and needs no credential, and every name can be looked
    up. Programs find it without settings unless /run/opengns, the directory of an installed opengnscd, exists. Ctrl-C
    ends it; started again it continues with what is there.
    """
    run_development(directory, port, address, verbose)


def run_development(
    directory: Path | None = None, port: int = SERVER_PORT, address: str = "127.0.0.1", verbose: bool = False
) -> NoReturn:
    """Run development mode; ends the process. Raises UsageError for an address that is not a loopback address."""
    if not is_loopback(address):
        raise click.UsageError(
            f"{address!r} is not a loopback address, and development mode serves no other machine: leave --address "
            "out, and for several machines use 'opengnsadmin tls' (docs/tutorial.md)"
        )
    path = (directory or default_directory(os.environ, _home())).absolute()
    Development(path.resolve(), Ports(address, port), verbose).run()


def main() -> None:
    """Run the console script."""
    cli.main(prog_name=PROGRAM)

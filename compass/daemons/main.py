"""The programs opengnssd and opengnscd: arguments and environment to a running service."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from twisted.application.service import Application, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
)
from twisted.python.failure import Failure

import compass
from compass.daemons.config.reader import ConfigProblem, read_host_config, read_server_config
from compass.daemons.config.settings import HostConfig, ServerConfig, example
from compass.daemons.process.logging import observer
from compass.daemons.process.reload import Reload
from compass.model.interfaces import StoreUnavailable
from compass.model.names import format_endpoint
from compass.pki.identity import Identity, IdentityError
from compass.system.sd_notify import SdNotify

SERVER_CONFIG = ("OPENGNSSD_CONFIG", "/etc/opengns/opengnssd.toml")
HOST_CONFIG = ("OPENGNSCD_CONFIG", "/etc/opengns/opengnscd.toml")
EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: systemd and others know not to restart a daemon that cannot be configured."""
EXIT_START = 1
"""It was configured, and still could not begin to serve: a port in use, a store that does not answer."""

CORE_OCTETS = 1
"""Limit of a core file (core(5)): nothing fits into one octet, and Linux takes just this limit as a ban on handing the
memory to a collecting program, which it otherwise does whatever the limit is."""


class CannotStart(Exception):
    """Why a process that is part of a daemon could not begin to serve."""


MakeService = Callable[[Any, Path, bool], Service]
ReadConfig = Callable[[Path], ServerConfig | HostConfig]


def make_server(reactor: Any, path: Path, verbose: bool = False) -> Service:
    """The server daemon's service for a configuration file: one process, or the parent of several."""
    from compass.daemons.services.opengnssd import ServerService
    from compass.daemons.workers.supervisor import WorkersService

    config = read_server_config(path)
    if config.server.workers == 1:
        return ServerService(reactor, config)
    return WorkersService(reactor, config, verbose)


def make_host(reactor: Any, path: Path, verbose: bool = False) -> Service:
    """The client daemon's service for a configuration file."""
    from compass.daemons.services.opengnscd import HostService

    return HostService(reactor, read_host_config(path))


def application(name: str, make: MakeService, where: tuple[str, str]) -> Any:
    """What a .tac file defines: the daemon with the configuration that the environment or the default path gives."""
    from twisted.internet import reactor

    forbid_core_files()
    app = Application(name)
    path = config_path(None, where)
    try:
        service = make(reactor, path, False)
    except (ConfigProblem, IdentityError) as problem:
        raise SystemExit(explained(name, problem, path, where)) from None
    service.setServiceParent(app)
    watch_start(reactor, service, name)
    return app


def forbid_core_files() -> None:
    """A crash must not leave keys and credentials in a file. A hard limit stays, for whoever is allowed to debug."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    most = CORE_OCTETS if hard == resource.RLIM_INFINITY else min(CORE_OCTETS, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (most, hard))


def config_path(option: str | None, where: tuple[str, str]) -> Path:
    """The option, else the environment variable, else the default path."""
    variable, default = where
    return Path(option or os.environ.get(variable) or default)


def explained(name: str, problem: Exception, path: Path, where: tuple[str, str]) -> str:
    """A problem with the configuration or the certificates, and what to do when there is no configuration."""
    text = "\n".join(f"{name}: {line}" for line in str(problem).splitlines())
    if not path.exists():
        text += (
            f"\n{name}: name the file with --config or in {where[0]}; '{name} --print-config' writes one to begin with"
        )
    return text


def watch_start(reactor: Any, service: Service, name: str) -> None:
    """Watch the start of a service whose process is somebody else's, twistd's: it is not renewed."""
    _watch_start(reactor, service, name, [], SdNotify(os.environ))


def _watch_start(
    reactor: Any, service: Service, name: str, failed: list[str], manager: SdNotify, renewal: Reload | None = None
) -> None:
    """Stop the reactor when the service cannot start, and say why. SIGHUP renews; without `renewal` it does nothing."""
    log = Logger("compass")

    def started() -> None:
        outcome: Deferred[None] = service.started  # type: ignore[attr-defined]
        outcome.addCallbacks(serves, broken)

    def serves(_: object) -> None:
        if service.running:
            manager.ready()
            manager.start_watchdog(reactor.callLater)

    def broken(failure: Failure) -> None:
        if failure.check(CannotListenError, StoreUnavailable, CannotStart):
            failed.append(why_not(failure))
            log.critical("{name} could not start: {why}", name=name, why=failed[0])
        else:
            failed.append(failure.getErrorMessage())
            log.failure("{name} could not start", failure, name=name)
        reactor.stop()

    def nothing() -> None:
        log.info("SIGHUP changes nothing: start {name} again to read its files", name=name)

    def hung_up(signal_number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(renewal.on_sighup if renewal else nothing)

    reactor.callWhenRunning(reactor.callLater, 0, started)
    reactor.addSystemEventTrigger("before", "shutdown", manager.stopping)
    reactor.callWhenRunning(signal.signal, signal.SIGHUP, hung_up)


def why_not(failure: Failure) -> str:
    """Why a daemon could not start, in a sentence."""
    error = failure.value
    if not isinstance(error, CannotListenError):
        return failure.getErrorMessage()
    where = format_endpoint(error.interface, error.port) if isinstance(error.port, int) else os.fsdecode(error.port)
    reason = getattr(error.socketError, "strerror", None) or error.socketError
    return f"cannot listen on {where}: {reason}"


def begin_log(verbose: bool, written: Any) -> None:
    """Give `written`, an observer, what an operator wants to know, or everything."""
    shown: Any = LogLevelFilterPredicate(defaultLogLevel=LogLevel.debug if verbose else LogLevel.info)
    if not verbose:
        # Twisted tells of each factory and port.
        shown.setLogLevelForNamespace("log_legacy", LogLevel.warn)
    observer: Any = FilteringLogObserver(written, [shown])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def _run(
    name: str, role: str, read: ReadConfig, make: MakeService, path: Path, where: tuple[str, str], verbose: bool
) -> NoReturn:
    forbid_core_files()
    try:
        form = read(path).log.format
    except ConfigProblem as problem:
        click.echo(explained(name, problem, path, where), err=True)
        sys.exit(EXIT_CONFIG)
    begin_log(verbose, observer(form, sys.stderr))
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    try:
        service = make(reactor, path, verbose)
    except (ConfigProblem, IdentityError) as problem:
        click.echo(explained(name, problem, path, where), err=True)
        sys.exit(EXIT_CONFIG)
    failed: list[str] = []
    manager = SdNotify(os.environ)
    renewal = Reload(reactor, name, lambda: _readable(role, read, path), manager)
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    _watch_start(reactor, service, name, failed, manager, renewal)
    reactor.run()
    if renewal.wanted and not failed:
        renewal.reexec()
    sys.exit(EXIT_START if failed else 0)


def _readable(role: str, read: ReadConfig, path: Path) -> Identity:
    """The identity that the files give. Raises ConfigProblem or IdentityError."""
    from compass.daemons.net.listen import identity_of, own_name

    tls = read(path).tls
    identity = identity_of(tls)
    own_name(identity, tls, role)
    return identity


def _check(name: str, role: str, read: ReadConfig, path: Path, where: tuple[str, str]) -> NoReturn:
    try:
        identity = _readable(role, read, path)
    except (ConfigProblem, IdentityError) as problem:
        click.echo(explained(name, problem, path, where), err=True)
        sys.exit(EXIT_CONFIG)
    for warning in identity.warnings:
        click.echo(f"{name}: warning: {warning}", err=True)
    click.echo(f"{path} is good")
    sys.exit(0)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for decorate in (
        click.version_option(compass.__version__, message="%(prog)s %(version)s"),
        click.option("-v", "--verbose", is_flag=True, help="Log what happens to each session, too."),
        click.option("--print-config", is_flag=True, help="Print a configuration file with every key explained."),
        click.option("--check", is_flag=True, help="Read configuration and certificates, tell what is wrong, and end."),
        click.option("--config", metavar="FILE", help="The configuration file, TOML."),
    ):
        command = decorate(command)
    return command


@click.command(
    epilog="Exit status: 0 ended by SIGTERM or SIGINT, 1 could not start, 78 configuration or certificates are wrong."
)
@_options
def server(config: str | None, check: bool, print_config: bool, verbose: bool) -> None:
    """The OpenGNS server daemon: stores the catalogue and pushes every change to those who depend on it.

    Runs in the foreground and logs to standard error. The configuration file is --config, or the environment
    variable OPENGNSSD_CONFIG, or /etc/opengns/opengnssd.toml. Begin with:

    \b
      opengnsadmin tls init
      opengnsadmin tls server gns1.example.org
      opengnssd --print-config > opengnssd.toml

    With `workers` in its file it is the parent of so many processes that serve. SIGTERM and SIGINT end all in order,
    SIGHUP has the daemon read its files and begin anew, and systemd is told when all serve (Type=notify, WatchdogSec=).
    """
    path = config_path(config, SERVER_CONFIG)
    if print_config:
        click.echo(example(ServerConfig))
    elif check:
        _check("opengnssd", "server", read_server_config, path, SERVER_CONFIG)
    else:
        _run("opengnssd", "server", read_server_config, make_server, path, SERVER_CONFIG, verbose)


@click.command(
    epilog="Exit status: 0 ended by SIGTERM or SIGINT, 1 could not start, 78 configuration or certificates are wrong."
)
@_options
def host(config: str | None, check: bool, print_config: bool, verbose: bool) -> None:
    """The OpenGNS client daemon: one for each host; programs on the host ask it and register with it.

    It goes on answering when every server is down, and its own restart loses nothing. Runs in the foreground and
    logs to standard error; SIGHUP has it read its files and begin anew. The configuration file is --config, or the
    environment variable OPENGNSCD_CONFIG, or /etc/opengns/opengnscd.toml. Begin with:

    \b
      opengnsadmin tls host web1.example.org
      opengnscd --print-config > opengnscd.toml
    """
    path = config_path(config, HOST_CONFIG)
    if print_config:
        click.echo(example(HostConfig))
    elif check:
        _check("opengnscd", "host", read_host_config, path, HOST_CONFIG)
    else:
        _run("opengnscd", "host", read_host_config, make_host, path, HOST_CONFIG, verbose)

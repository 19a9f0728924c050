"""The programs opengnssd and opengnscd: arguments and environment to a running service."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
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
    textFileLogObserver,
)
from twisted.python.failure import Failure

import compass
from compass.assembly.config import (
    ConfigProblem,
    HostConfig,
    ServerConfig,
    example,
    read_host_config,
    read_server_config,
)
from compass.assembly.tls import IdentityError
from compass.model.names import show_endpoint
from compass.model.storage import StoreUnavailable

SERVER_CONFIG = ("OPENGNSSD_CONFIG", "/etc/opengns/opengnssd.toml")
HOST_CONFIG = ("OPENGNSCD_CONFIG", "/etc/opengns/opengnscd.toml")
EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h: systemd and others know not to restart a daemon that cannot be configured."""
EXIT_START = 1
"""It was configured, and still could not begin to serve: a port in use, a store that does not answer."""

MakeService = Callable[[Any, Path], Service]


def make_server(reactor: Any, path: Path) -> Service:
    """The server daemon's service for a configuration file."""
    from compass.assembly.serverd import ServerService

    return ServerService(reactor, read_server_config(path))


def make_host(reactor: Any, path: Path) -> Service:
    """The client daemon's service for a configuration file."""
    from compass.assembly.hostd import HostService

    return HostService(reactor, read_host_config(path))


def application(name: str, make: MakeService, where: tuple[str, str]) -> Any:
    """What a .tac file defines: the daemon with the configuration that the environment or the default path gives."""
    from twisted.internet import reactor

    app = Application(name)
    try:
        service = make(reactor, config_path(None, where))
    except (ConfigProblem, IdentityError, StoreUnavailable) as problem:
        raise SystemExit(f"{name}: {problem}") from None
    service.setServiceParent(app)
    _watch_start(reactor, service, name, [])
    return app


def config_path(option: str | None, where: tuple[str, str]) -> Path:
    """The option, else the environment variable, else the default path."""
    variable, default = where
    return Path(option or os.environ.get(variable) or default)


def _watch_start(reactor: Any, service: Service, name: str, failed: list[str]) -> None:
    """Stop the reactor when the service cannot start, and say why."""

    def started() -> None:
        outcome: Deferred[None] = service.started  # type: ignore[attr-defined]
        outcome.addErrback(broken)

    def broken(failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CannotListenError):
            where = show_endpoint(error.interface, error.port) if isinstance(error.port, int) else error.port
            failed.append(f"cannot listen on {where}: {error.socketError}")
        else:
            failed.append(failure.getErrorMessage() or repr(failure.value))
        Logger("compass").critical("{name} could not start: {why}", name=name, why=failed[0])
        reactor.stop()

    reactor.callWhenRunning(reactor.callLater, 0, started)


def _run(name: str, make: MakeService, path: Path, verbose: bool) -> NoReturn:
    level = LogLevel.debug if verbose else LogLevel.info
    shown: Any = LogLevelFilterPredicate(defaultLogLevel=level)
    written: Any = textFileLogObserver(sys.stderr)
    observer: Any = FilteringLogObserver(written, [shown])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    try:
        service = make(reactor, path)
    except (ConfigProblem, IdentityError) as problem:
        click.echo(f"{name}: {problem}", err=True)
        sys.exit(EXIT_CONFIG)
    except StoreUnavailable as problem:
        click.echo(f"{name}: {problem}", err=True)
        sys.exit(EXIT_START)
    failed: list[str] = []
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    _watch_start(reactor, service, name, failed)
    reactor.run()
    if failed:
        click.echo(f"{name}: {failed[0]}", err=True)
    sys.exit(EXIT_START if failed else 0)


def _check(name: str, read: Callable[[Path], ServerConfig | HostConfig], path: Path) -> NoReturn:
    from compass.assembly.parts import identity_of

    try:
        identity = identity_of(read(path).tls)
    except (ConfigProblem, IdentityError) as problem:
        click.echo(f"{name}: {problem}", err=True)
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
    """
    path = config_path(config, SERVER_CONFIG)
    if print_config:
        click.echo(example(ServerConfig))
    elif check:
        _check("opengnssd", read_server_config, path)
    else:
        _run("opengnssd", make_server, path, verbose)


@click.command(
    epilog="Exit status: 0 ended by SIGTERM or SIGINT, 1 could not start, 78 configuration or certificates are wrong."
)
@_options
def host(config: str | None, check: bool, print_config: bool, verbose: bool) -> None:
    """The OpenGNS client daemon: one for each host; programs on the host ask it and register with it.

    It goes on answering when every server is down, and its own restart loses nothing. Runs in the foreground and
    logs to standard error. The configuration file is --config, or the environment variable OPENGNSCD_CONFIG, or
    /etc/opengns/opengnscd.toml. Begin with:

    \b
      opengnsadmin tls host web1.example.org
      opengnscd --print-config > opengnscd.toml
    """
    path = config_path(config, HOST_CONFIG)
    if print_config:
        click.echo(example(HostConfig))
    elif check:
        _check("opengnscd", read_host_config, path)
    else:
        _run("opengnscd", make_host, path, verbose)

"""Console scripts `opengnssd` and `opengnscd`: from arguments and environment to a running service."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

import compass
from compass.daemons.certificates.join_command import join
from compass.daemons.config.file import ConfigProblem
from compass.daemons.config.reader import read_host_config, read_server_config
from compass.daemons.config.settings import HostConfig, ServerConfig, example
from compass.daemons.process.logging import observer
from compass.daemons.process.reload import Reload
from compass.daemons.process.repeated_lines import RepeatedLines
from compass.daemons.process.start import (
    EXIT_CONFIG,
    EXIT_START,
    CannotStart,
    begin_log,
    forbid_core_files,
    why_not,
)
from compass.daemons.process.state_directory import check_state_directory
from compass.model.interfaces import StoreUnavailable
from compass.model.rules.certificates import notices_of, problems_of
from compass.model.text import escape
from compass.pki.identity import Identity, IdentityError
from compass.system.command_line import CheckedCommand, CheckedGroup, print_text, version_option
from compass.system.systemd import SdNotify


class Program(msgspec.Struct, frozen=True):
    """Daemon as console scripts, `.tac` files and the twistd plugin start it."""

    name: str
    role: str
    """Role that the daemon's own certificate must have."""
    read: Callable[[Path], ServerConfig | HostConfig]
    """Reader of the configuration file. Raises ConfigProblem."""
    make: Callable[[Any, Path, bool], Service]
    """Maker of the service: reactor, configuration file, verbose. Raises ConfigProblem or IdentityError."""
    config: type[ServerConfig | HostConfig]
    """Class of the configuration."""

    @property
    def config_variable(self) -> str:
        """Environment variable that names the configuration file."""
        return f"{self.name.upper()}_CONFIG"

    def with_file(self, option: str | None = None) -> ConfiguredProgram:
        """Return the daemon with the file of the option, else of the environment variable, else the default file."""
        path = option or os.environ.get(self.config_variable) or f"/etc/opengns/{self.name}.toml"
        return ConfiguredProgram(self, Path(path))


class ConfiguredProgram(msgspec.Struct, frozen=True):
    """Daemon and its configuration file."""

    program: Program
    path: Path

    def explain(self, problem: Exception) -> str:
        """Return the text of a problem with files, with advice if there is no configuration file."""
        name = self.program.name
        text = "\n".join(f"{name}: {escape(line)}" for line in str(problem).split("\n"))
        if not self.path.exists():
            text += (
                f"\n{name}: name the file with --config or in {self.program.config_variable}; "
                f"'{name} --print-config' writes one to begin with"
            )
        return text

    def read_identity(self) -> Identity:
        """Read the configuration and return the daemon's identity. Raises ConfigProblem or IdentityError."""
        from compass.daemons.net.listen import identity_of, own_name

        tls = self.program.read(self.path).tls
        identity = identity_of(tls)
        own_name(identity, tls, self.program.role)
        return identity

    def state_directory(self) -> Path | None:
        """Return where the daemon keeps its files; None for a server. Raises ConfigProblem."""
        config = self.program.read(self.path)
        return Path(config.host.state_directory) if isinstance(config, HostConfig) else None

    @contextmanager
    def checked_files(self) -> Iterator[None]:
        """End the process with EXIT_CONFIG if the block raises a problem with the daemon's files."""
        try:
            yield
        except (ConfigProblem, IdentityError) as problem:
            print_text(self.explain(problem), err=True)
            sys.exit(EXIT_CONFIG)


def make_server(reactor: Any, path: Path, verbose: bool = False) -> Service:
    """Return the server daemon's service for a configuration file: one process, or the parent of several."""
    from compass.daemons.services.opengnssd import ServerService
    from compass.daemons.workers.supervisor import WorkersService

    config = read_server_config(path)
    if config.server.workers == 1:
        return ServerService(reactor, config)
    return WorkersService(reactor, config, verbose)


def make_host(reactor: Any, path: Path, verbose: bool = False) -> Service:
    """Return the host daemon's service for a configuration file."""
    from compass.daemons.services.opengnscd import HostService

    return HostService(reactor, read_host_config(path))


OPENGNSSD = Program("opengnssd", "server", read_server_config, make_server, ServerConfig)
OPENGNSCD = Program("opengnscd", "host", read_host_config, make_host, HostConfig)


class StartWatch:
    """Observer of a service's start: reports success to the service manager, or stops the reactor."""

    log = Logger("compass")

    def __init__(
        self, reactor: Any, service: Service, name: str, sd_notify: SdNotify, reload: Reload | None = None
    ) -> None:
        """`reload` handles SIGHUP; without it (under twistd, which owns the process) SIGHUP is ignored."""
        self._reactor = reactor
        self._service = service
        self._name = name
        self._sd_notify = sd_notify
        self._reload = reload
        self.has_failed = False
        reactor.callWhenRunning(reactor.callLater, 0, self._watch)
        reactor.addSystemEventTrigger("before", "shutdown", sd_notify.stopping)
        reactor.callWhenRunning(signal.signal, signal.SIGHUP, self._on_sighup)

    def _watch(self) -> None:
        started: Deferred[None] = self._service.started  # type: ignore[attr-defined]
        started.addCallbacks(self._serves, self._fail)

    def _serves(self, _: object) -> None:
        if self._service.running:
            self._sd_notify.ready()
            self._sd_notify.start_watchdog(self._reactor.callLater)

    def _fail(self, failure: Failure) -> None:
        self.has_failed = True
        if failure.check(CannotListenError, StoreUnavailable, CannotStart):
            self.log.critical("{name} could not start: {why}", name=self._name, why=why_not(failure))
        else:
            self.log.failure("{name} could not start", failure, name=self._name)
        self._reactor.stop()

    def _on_sighup(self, signal_number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._reload.on_sighup if self._reload is not None else self._ignore_sighup)

    def _ignore_sighup(self) -> None:
        self.log.info("SIGHUP changes nothing: start {name} again to read its files", name=self._name)


def _run(configured: ConfiguredProgram, verbose: bool) -> NoReturn:
    program, path = configured.program, configured.path
    forbid_core_files()
    with configured.checked_files():
        form = program.read(path).log.format
    lines: Any = observer(form, sys.stderr)
    # Any program on a host can make its daemon log; who may ask a server is known, and its limits count them.
    begin_log(verbose, RepeatedLines(lines) if program.name == "opengnscd" and not verbose else lines)
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    with configured.checked_files():
        service = program.make(reactor, path, verbose)
    sd_notify = SdNotify(os.environ)
    reload = Reload(reactor, program.name, configured, sd_notify)
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    start = StartWatch(reactor, service, program.name, sd_notify, reload)
    reactor.run()
    if reload.wanted and not start.has_failed:
        reload.reexec()
    sys.exit(EXIT_START if start.has_failed else 0)


def _check(configured: ConfiguredProgram) -> None:
    """Check the files, dates included: a daemon starts with a wrong date, but its connections fail."""
    now = datetime.now(UTC)
    with configured.checked_files():
        identity = configured.read_identity()
        check_state_directory(configured.path, configured.state_directory())
        certificates = identity.certificates(now)
        if problems := problems_of(certificates, now.timestamp()):
            raise IdentityError(problems)
    for warning in (*identity.warnings, *notices_of(certificates, now.timestamp())):
        print_text(f"{configured.program.name}: warning: {escape(warning)}", err=True)
    print_text(f"{escape(str(configured.path))} is good")


def _main(program: Program, config: str | None, check: bool, print_config: bool, verbose: bool) -> None:
    configured = program.with_file(config)
    if print_config:
        print_text(example(program.config))
    elif check:
        _check(configured)
    else:
        _run(configured, verbose)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for decorate in (
        version_option(compass.__version__),
        click.option("-v", "--verbose", is_flag=True, help="Log the events of each session, too."),
        click.option("--print-config", is_flag=True, help="Print a configuration file with every key explained."),
        click.option("--check", is_flag=True, help="Check configuration and certificates, print problems, and exit."),
        click.option("--config", metavar="FILE", help="Path of the configuration file (TOML)."),
    ):
        command = decorate(command)
    return command


_EXIT_STATUS = (
    "Exit status: 0 ended by SIGTERM or SIGINT, 1 could not start, 78 configuration or certificates are wrong."
)


@click.command(cls=CheckedCommand, epilog=_EXIT_STATUS)
@click.option("--dev", is_flag=True, help="Development mode with a host daemon: the same as 'opengns dev'.")
@_options
def server(dev: bool, **options: Any) -> None:
    """The OpenGNS server daemon: stores the catalogue and pushes every change to its dependants.

    Runs in the foreground and logs to standard error. The configuration file is --config, or the environment
    variable OPENGNSSD_CONFIG, or /etc/opengns/opengnssd.toml. To begin:

    \b
      opengnsadmin init server gns1.example.org

    Or, with certificates that you make elsewhere:

    \b
      opengnssd --print-config > opengnssd.toml

    With `workers` in the file, this process is the parent of that number of serving processes. SIGTERM and SIGINT stop
    all of them in order. SIGHUP reloads files and program. systemd is notified when all serve (Type=notify,
    WatchdogSec=).
    """
    if dev:
        from compass.daemons.development.command import run_development

        if any(value for name, value in options.items() if name != "verbose"):
            raise click.UsageError("--dev has settings of its own; use it without the other options, or 'opengns dev'")
        run_development(verbose=options["verbose"])
    _main(OPENGNSSD, **options)


@click.group(cls=CheckedGroup, epilog=_EXIT_STATUS, invoke_without_command=True)
@_options
@click.pass_context
def host(context: click.Context, /, **options: Any) -> None:
    """The OpenGNS client daemon: one for each host; programs on the host ask it and register with it.

    Continues to answer while every server is down; a restart of the daemon loses nothing. Runs in the foreground and
    logs to standard error. SIGHUP reloads files and program. The configuration file is --config, or the environment
    variable OPENGNSCD_CONFIG, or /etc/opengns/opengnscd.toml. To begin:

    \b
      opengnscd join --token-file web1.join

    Or, with certificates that you make elsewhere:

    \b
      opengnsadmin tls host web1.example.org
      opengnscd --print-config > opengnscd.toml
    """
    if context.invoked_subcommand is None:
        _main(OPENGNSCD, **options)
    elif any(options.values()):
        raise click.UsageError(f"write the options of {context.invoked_subcommand} behind it")


host.add_command(join)

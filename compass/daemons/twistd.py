"""Both daemons under twistd: applications for the `.tac` files, and targets of the twistd plugin.

The plugin (`contrib/twistd/opengns_plugin.py`) names `compass.daemons.twistd.opengnssd` and `.opengnscd` as text, so
that twistd imports this module only if one of the two is started.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from twisted.application.service import Application, Service
from twisted.python.usage import Options

from compass.daemons.config.file import ConfigProblem
from compass.daemons.main import OPENGNSCD, OPENGNSSD, Program, StartWatch
from compass.daemons.process.start import forbid_core_files
from compass.pki.identity import IdentityError
from compass.system.systemd import SdNotify


class ConfigOptions(Options):
    """Options of `twistd opengnssd` and `twistd opengnscd`: the configuration file."""

    optParameters: ClassVar[list[list[Any]]] = [  # noqa: N815
        ["config", "c", None, "Path of the configuration file (TOML); default: as for the daemon of that name."]
    ]


class _ServerOptions(ConfigOptions):
    longdesc = "The OpenGNS server daemon. Without --config, OPENGNSSD_CONFIG names the file. See opengnssd(1)."


class _HostOptions(ConfigOptions):
    longdesc = "The OpenGNS client daemon. Without --config, OPENGNSCD_CONFIG names the file. See opengnscd(1)."


class PluginTarget:
    """Target of a `twisted.application.service.ServiceMaker`, which asks it for the two attributes of a module."""

    def __init__(self, program: Program, options: type[ConfigOptions]) -> None:
        self._program = program
        self.Options = options

    def makeService(self, options: ConfigOptions) -> Service:
        """Return the daemon as a service. Raises SystemExit with the problems of its files."""
        return make_service(self._program, options["config"])


opengnssd = PluginTarget(OPENGNSSD, _ServerOptions)
opengnscd = PluginTarget(OPENGNSCD, _HostOptions)


def application(program: Program) -> Any:
    """Return the application that a `.tac` file defines; the environment names the configuration file."""
    app = Application(program.name)
    make_service(program).setServiceParent(app)
    return app


def make_service(program: Program, config: str | None = None) -> Service:
    """Return the daemon as a service in twistd's process. Raises SystemExit with the problems of its files."""
    from twisted.internet import reactor

    forbid_core_files()
    configured = program.with_file(config)
    try:
        service = program.make(reactor, configured.path, False)
    except (ConfigProblem, IdentityError) as problem:
        raise SystemExit(configured.explain(problem)) from None
    StartWatch(reactor, service, program.name, SdNotify(os.environ))
    return service

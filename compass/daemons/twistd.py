"""What `twistd opengnssd` and `twistd opengnscd` make of their options (twisted.application.service.IServiceMaker)."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.application.service import Service
from twisted.python.usage import Options

from compass.daemons.config.reader import ConfigProblem
from compass.daemons.main import MakeService, config_path, explained, forbid_core_files, watch_start
from compass.pki.identity import IdentityError


class ConfigOptions(Options):
    """Where the configuration file is; all else is in it."""

    optParameters: ClassVar[list[list[Any]]] = [  # noqa: N815
        ["config", "c", None, "The configuration file, TOML; else as the daemon of that name looks for it."]
    ]


def service(name: str, make: MakeService, where: tuple[str, str], options: ConfigOptions) -> Service:
    """The daemon as a service of twistd's application. Raises SystemExit with what is wrong with its files."""
    from twisted.internet import reactor

    forbid_core_files()
    path = config_path(options["config"], where)
    try:
        made = make(reactor, path, False)
    except (ConfigProblem, IdentityError) as problem:
        raise SystemExit(explained(name, problem, path, where)) from None
    watch_start(reactor, made, name)
    return made

"""`twistd opengnssd`: the module that its plugin names (`contrib/twistd/opengns_plugin.py`)."""

from twisted.application.service import Service

from compass.daemons.main import SERVER_CONFIG, make_server
from compass.daemons.twistd import ConfigOptions, service


class Options(ConfigOptions):
    """Options of `twistd opengnssd`."""

    longdesc = "The OpenGNS server daemon. Without --config, OPENGNSSD_CONFIG names the file. See opengnssd(1)."


def makeService(options: Options) -> Service:
    """The server daemon."""
    return service("opengnssd", make_server, SERVER_CONFIG, options)

"""`twistd opengnscd`: the module that its plugin names (`contrib/twistd/opengns_plugin.py`)."""

from twisted.application.service import Service

from compass.daemons.main import HOST_CONFIG, make_host
from compass.daemons.twistd import ConfigOptions, service


class Options(ConfigOptions):
    """Options of `twistd opengnscd`."""

    longdesc = "The OpenGNS client daemon. Without --config, OPENGNSCD_CONFIG names the file. See opengnscd(1)."


def makeService(options: Options) -> Service:
    """The client daemon."""
    return service("opengnscd", make_host, HOST_CONFIG, options)

"""`twistd opengnssd` and `twistd opengnscd`: installed as twisted.plugins.opengns_plugin, where twistd looks."""

from twisted.application.service import ServiceMaker

opengnssd = ServiceMaker("opengnssd", "compass.daemons.server_plugin", "The OpenGNS server daemon.", "opengnssd")
opengnscd = ServiceMaker("opengnscd", "compass.daemons.host_plugin", "The OpenGNS client daemon.", "opengnscd")

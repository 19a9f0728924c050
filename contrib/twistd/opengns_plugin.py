"""`twistd opengnssd` and `twistd opengnscd`: installed as twisted.plugins.opengns_plugin, where twistd looks."""

from twisted.application.service import ServiceMaker

opengnssd = ServiceMaker("opengnssd", "compass.daemons.twistd.opengnssd", "The OpenGNS server daemon.", "opengnssd")
opengnscd = ServiceMaker("opengnscd", "compass.daemons.twistd.opengnscd", "The OpenGNS client daemon.", "opengnscd")

"""twistd -ny opengnssd.tac: the OpenGNS server daemon. OPENGNSSD_CONFIG names its configuration file."""

from compass.daemons.twistd import OPENGNSSD, application as assembled

application = assembled(OPENGNSSD)

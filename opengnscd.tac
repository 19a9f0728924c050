"""twistd -ny opengnscd.tac: the OpenGNS client daemon. OPENGNSCD_CONFIG names its configuration file."""

from compass.daemons.twistd import OPENGNSCD, application as assembled

application = assembled(OPENGNSCD)

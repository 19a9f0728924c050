"""twistd -ny opengnscd.tac: the OpenGNS client daemon. OPENGNSCD_CONFIG names its configuration file."""

from compass.daemons.main import HOST_CONFIG, make_host, application as assembled

application = assembled("opengnscd", make_host, HOST_CONFIG)

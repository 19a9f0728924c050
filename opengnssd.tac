"""twistd -ny opengnssd.tac: the OpenGNS server daemon. OPENGNSSD_CONFIG names its configuration file."""

from compass.daemons.main import SERVER_CONFIG, make_server, application as assembled

application = assembled("opengnssd", make_server, SERVER_CONFIG)

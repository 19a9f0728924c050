"""For services and administrators: how to talk to a name server or to the daemon on this host."""

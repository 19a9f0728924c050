"""Session with one of several servers: discovery, selection, connection, pending requests."""

"""Network ground of both daemons: listening ports, transports, the database thread."""

"""Network of both daemons: listening ports, transports, and the database thread."""

"""Daemons: the one layer that sees configuration, TLS, the reactor, the clock and the environment."""

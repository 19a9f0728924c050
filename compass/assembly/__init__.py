"""The one place that sees everything: configuration, TLS, the reactor, the clock, the environment."""

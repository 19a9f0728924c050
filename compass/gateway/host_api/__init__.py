"""HTTP API of the host daemon, for programs on the same host."""

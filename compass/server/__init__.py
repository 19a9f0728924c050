"""The server daemon's shells: commit loop, push, sessions, failure desk. They own transports and timers, never rules.

A request goes one way: session -> commits -> (store) -> push and desk -> session. Nothing here imports SQL, TLS or
the global reactor; assembly hands in the storage, the endpoints, the clock and the probes.
"""

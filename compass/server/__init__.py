"""Server daemon without reactor, TLS and SQL: sessions, commit loop, push, failure detection, alerts.

A request goes one way: session -> router -> commit -> (store) -> push and failure detection -> session. Rules are in
`compass.model`; `compass.daemons` hands in the store, the endpoints, the clock and the probes.
"""

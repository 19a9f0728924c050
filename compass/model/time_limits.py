"""Time limits along the chain program, client library, agent, server, store, in one place, because they depend on each
other: a caller's limit is never shorter than that of whom it asks, so no one says "does not answer" of what will answer
(tests/model/test_time_limits.py proves the order)."""

from __future__ import annotations

STORE_WAIT_SECONDS = 3.0
"""Wait of a request for the store before it is refused, unless configured: longer than a database's restart or
a slow disk takes, and short enough for a person at a prompt."""
STORE_WAIT_SECONDS_MAX = 20.0
"""Longest configured wait: less than REPLY_SECONDS."""
LOG_WAIT_SECONDS_MAX = 20.0
"""Longest wait of a read-log for an entry: less than REPLY_SECONDS."""
ALERT_TEST_SECONDS = 20.0
"""Time of one attempt while an administrator waits for the outcome of a test: less than REPLY_SECONDS."""
REPLY_SECONDS = 30.0
"""Seconds from a request to its reply at the client: longer than any commit that can still succeed."""
ASK_PATIENCE_SECONDS = 3.0
"""Seconds that a request waits for a session that is being made, before it is answered `unreachable`."""
PENDING_SECONDS = 1.8
"""Seconds after which a program gets `pending`, or why there is no answer, for a request that the agent has on its disk
or repeats by itself: with the way to the program less than 2 s, whatever a server does."""
ANSWER_SECONDS = 40.0
"""Time limit of a program for one answer of the agent: longer than ASK_PATIENCE_SECONDS and REPLY_SECONDS together,
which a request without `pending` may take (a drain, another credential)."""
REPORT_SECONDS = 5.0
"""Time limit for the delivery of a report, longer than PENDING_SECONDS; it may delay the exit of the program by this
time."""
TURN_SECONDS = 9.0
"""Seconds for which a peer that has begun TLS waits for its turn at a server: less than GREETING_SECONDS, after which
it has given up."""
GREETING_SECONDS = 10.0
"""Seconds from the connection to the hello or welcome: two round trips and a TLS handshake on a slow network."""
ADMIN_CONNECT_SECONDS = 10.0
"""Time limit of an administrator's program for each step of making a session: longer than TURN_SECONDS."""

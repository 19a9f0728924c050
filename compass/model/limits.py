"""Limits of the domain: what a name, a listener, a category and a request may hold. Each limit has its reason."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

LABEL_MAX = 63
"""Longest label in octets (RFC 1035 section 2.3.4)."""
HOST_NAME_MAX = 253
"""Longest host name in characters (RFC 1035 section 2.3.4, without the root)."""
PORT_MAX = 65535
"""Largest TCP port (RFC 9293 section 3.1)."""
STEER_SECONDS_MAX = 3600.0
"""Longest time over which hosts are redirected: no maintenance of a machine waits longer."""
TOKEN_MAX = 256
"""Longest bearer token that is checked, in characters: the service's own tokens have 43."""
CERTIFICATE_REQUEST_OCTETS_MAX = 8 * 1024
"""Longest certificate request (PKCS #10, DER): one for an EC key with a few names has some 300 octets."""
INVITATION_SECONDS = 3600.0
"""Time for which a join token is valid unless an administrator says otherwise: a person carries it to a machine."""
INVITATION_SECONDS_MIN = 1.0
"""Shortest time for which a join token is valid."""
INVITATION_SECONDS_MAX = 7 * 86_400.0
"""Longest time for which a join token is valid: an image with a token in it is started within a week, and a token that
was lost is worth nothing a week later."""
INVITATION_NAMES_MAX = 16
"""Most further names and addresses of a host in its certificate: more than a machine has interfaces."""
INSTANCES_PER_MESSAGE_MAX = 128
"""Instances in one message of the comparison of rows and books: 32 kB, half of what a host may send at once."""
FETCH_LIMIT_MAX = 50_000
"""Most rows in one reply. Clients request the rest with `after` or `cursor`."""
PAGE_OCTETS_MAX = 1024 * 1024
"""Octets of rows or entries in one page of a list; the page ends with the row that reaches them."""
LOG_OCTETS_MAX = 16 * 1024 * 1024
"""Octets of log entries in a reply without pages, which has to fit into a frame."""
SUBJECT_MAX = 140
"""Longest subject in a log, in characters: more than a service id has, which is what it should be."""
PARAMETERS_MAX = 4096
"""Longest request text in a log, in characters: the size of a log row must not depend on an unknown client."""
HOLD_SECONDS_MAX = 3600.0
"""Longest time that a flapping listener is kept out at once."""
WEIGHT_MAX = 65535
"""Largest weight: what a DNS SRV record can carry (RFC 2782)."""
EPOCH_MAX = 2**63 - 1
"""Largest epoch: what SQL's BIGINT holds."""
EPOCHS_PER_SECOND = 1_000_000
"""Epochs in a second: the epoch of a new instance is UNIX time in microseconds (opengnsp.md, "Epochs")."""
EPOCH_AHEAD_SECONDS_MAX = 86_400.0
"""Time by which an epoch may be ahead of the server's clock: a day, which covers a wrong time zone and no date that was
set wrong. A larger epoch would block its listener until the clock gets there."""
METADATA_ENTRIES_MAX = 32
"""Most metadata entries of a listener. Metadata describes a listener to its users; larger data belongs into a store."""
METADATA_KEY_MAX = 63
"""Longest metadata key in characters."""
METADATA_VALUE_MAX = 255
"""Longest metadata value in characters: one DNS TXT string (RFC 1035 section 3.3.14)."""
METADATA_OCTETS_MAX = 10 * 1024
"""Octets of a listener's metadata as UTF-8: all entries of full length in ASCII."""
DETAIL_MAX = 255
"""Longest detail of a report in characters: tables and mails show the detail."""
CHECK_MAX = 160
"""Longest description of a host's own check in characters: a path and two numbers."""
LISTENERS_PER_SERVICE_MAX = 10_000
"""Most listeners of a service: more is a configuration error."""
SERVICE_OCTETS_MAX = 16 * 1024 * 1024
"""Octets that the listeners of a service hold, offline ones included: the most listeners with 1.2 kB of metadata each,
or 1,500 with full metadata. It is the share of a credential, too, which registers for one service."""
CATEGORY_OCTETS_MAX = 64 * 1024 * 1024
"""Octets that the listeners of a category hold: no single service fills it, and 100,000 listeners fit."""
VIEW_OCTETS_MAX = 256 * 1024 * 1024
"""Octets of the listeners that services of one category depend on, backups included: what a host holds in memory, on
disk and in its shared view. No single category fills it; 100,000 listeners with 2 kB of metadata fit."""
PURGE_OCTETS_MAX = 8 * 1024 * 1024
"""Octets of the listeners that one purge removes: its reply names them, and other requests wait for its commit."""
RENAME_OCTETS_MAX = 8 * 1024 * 1024
"""Octets of the rows that one renaming changes, for the same reason: some 20,000 rows without metadata."""
PURGE_AGE_SECONDS_MIN = 60.0
"""Minimum age of a purged row: the epoch of a younger row still guards against late messages of old instances (P6)."""
CREDENTIALS_PER_SERVICE_MAX = 8
"""Most credentials of a service. Rotation needs two; each registration is compared with all of them."""
OVERLAP_SECONDS_MAX = 10 * 365 * 86_400.0
"""Ten years: a longer overlap is a mistake for an overlap without an end."""
HOST_SERVICES_MAX = 256
"""Most services of one host: they are one row and one watch request."""
REPORTERS_NEEDED_MAX = 10
"""Most independent reporters that a policy may require: a probe is faster than a wait for more of them."""
WITNESSES_MAX = 5
"""Most hosts that are asked to probe one listener: each adds a connection to a listener that may be overloaded."""
GRACE_SECONDS_MAX = 600.0
"""Longest time that users receive the listeners of a lost host before these are probed."""
FLAPS_MAX = 30
"""Most failures before a listener is kept out; further failures are not counted."""
FLAP_SECONDS_MAX = 86_400.0
"""Longest window in which failures are counted, and longest first time of being kept out."""
POOLS_PER_CATEGORY_MAX = 1000
"""Most services of a category with a pool policy of their own: they are in one row, which is sent to all users of the
category."""
ALLOWED_HOSTS_MAX = 1000
"""Most names in all lists of hosts that may register the services of a category: they are in one row, which is sent to
all users of the category."""
PROBLEMS_MAX = 1000
"""Most problems of a topology in one refusal: more than a person reads, and the refusal must fit into a frame."""
PROBE_PATH_MAX = 255
"""Longest path of an HTTP probe, in characters."""
PROBE_TIMEOUT_SECONDS_MAX = 30.0
"""Longest probe: a later verdict is of no use."""
PROBE_ATTEMPTS_MAX = 10
"""Most failed probes before a verdict, for the same reason."""
RECOVERY_SECONDS_MAX = 60.0
"""Longest pause between two probes of a listener that is down."""
INSTEAD_MAX = 8
"""Most servers in place of a drained one, which a goodbye names: more than any deployment has."""

# Time limits along the chain program, client library, agent, server, store. They depend on each other: a caller's limit
# is never shorter than that of whom it asks, so no one says "does not answer" of what will answer
# (tests/model/test_time_limits.py proves the order).
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


def between(least: float, most: float) -> Meta:
    """Return the annotation of a number from `least` to `most`: in the JSON Schema of its message, but not enforced.

    The rules refuse a number outside this range, with a reason that names the limit.
    """
    return Meta(extra_json_schema={"minimum": least, "maximum": most})


def above_zero(most: float) -> Meta:
    """Return the annotation of a number above 0 up to `most`, like `between`."""
    return Meta(extra_json_schema={"exclusiveMinimum": 0, "maximum": most})


Share = Annotated[float, between(0, 1)]
Weight = Annotated[int, between(0, WEIGHT_MAX)]

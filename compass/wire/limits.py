"""Every limit of the protocol, with its reason (opengnsp.md, "Limits"). Each has a test at n and at n + 1."""

from __future__ import annotations

VERSIONS: tuple[int, ...] = (1,)
"""The protocol versions this program speaks, best last."""
VERSIONS_OFFERED_MAX = 16
"""Versions in one hello: a list, not a stream."""
SOFTWARE_MAX = 100
"""Characters of a peer's self-description: it ends up in log lines."""
UNREADABLE_MAX = 255
"""Characters said about a body that cannot be read: they quote what a stranger sent, and go into logs."""

FRAME_MAX_FROM_HOST = 64 * 1024
"""Octets of a body that a server takes from a host: a watch of 256 services is 33 kB."""
FRAME_MAX_FROM_ADMIN = 4 * 1024 * 1024
"""Octets of a body that a server takes from an administrator: a topology of 30,000 services."""
FRAME_MAX_FROM_SERVER = 16 * 1024 * 1024
"""Octets of a body that a client takes: a snapshot of some 100,000 listeners."""

GREETING_SECONDS = 10.0
"""Seconds from the connection to the hello or welcome: two round trips and a TLS handshake on a bad line."""
IDLE_SECONDS = 60.0
"""Seconds after which a session that neither watches nor waits for a reply is ended: connect, ask, disconnect."""
ACKNOWLEDGE_SECONDS = 10.0
"""Seconds from a notice, or from the last octets that a slow reader accepted, to the acknowledgement; then the session
is ended, and the host resumes: that is the retry."""
REPLY_SECONDS = 30.0
"""Seconds from a request to its reply, at the client: longer than any commit that can still succeed."""
LOG_WAIT_SECONDS_MAX = 20.0
"""Seconds that a server holds a read-log which waits for entries: less than REPLY_SECONDS."""
SUSPICION_SECONDS_MAX = 60.0
"""Seconds that a host believes a suspicion that is not repeated, whatever the suspicion says: the server may have
failed since."""
REQUESTS_IN_FLIGHT_MAX = 256
"""Requests of one session that are not answered yet; one more is refused as busy."""
SEND_QUEUE_MAX = 256 * 1024
"""Octets queued towards one session beyond what its transport has accepted: a second of 1,000 changes. A session that
reads more slowly gets no further notice; when it reads again it gets all that it missed at once."""
REPLIES_QUEUED_MAX = 1024 * 1024
"""Octets queued towards one session at which its next request is refused as busy: enough for the replies to one burst,
but not for a thousand copies of a large reply."""
SEND_BUFFER_MAX = 20 * 1024 * 1024
"""Octets queued towards one session in all: one snapshot and some replies; a peer that reads less is disconnected."""
WRITE_OCTETS = 64 * 1024
"""Written to a transport at once: what lies in a transport is a copy of one session's own, what waits is shared."""
SERVICES_PER_WATCH_MAX = 256
"""Services in one watch, as many as a host may have."""
INSTEAD_MAX = 8
"""Servers that a goodbye names and a client tries: more than any deployment has."""
ANNOUNCEMENT_OCTETS_MAX = 1024
"""Octets of an announcement: it never needs fragments, and reading one costs next to nothing."""
ANNOUNCED_ADDRESSES_MAX = 8
"""Addresses in one announcement: more networks than a machine has."""
ANNOUNCE_SECONDS_MIN = 1.0
"""Shortest interval between announcements: for a server that announces a shorter one this interval counts."""
ANNOUNCE_SECONDS_MAX = 300.0
"""The same for one that would be silent for longer: what it said is forgotten after three times as long."""

"""Limits of the protocol, with their reasons (opengnsp.md, "Limits"). Each has a test at n and at n + 1."""

from __future__ import annotations

from compass.model.limits import GREETING_SECONDS as GREETING_SECONDS
from compass.model.limits import INSTEAD_MAX as INSTEAD_MAX
from compass.model.limits import LOG_WAIT_SECONDS_MAX as LOG_WAIT_SECONDS_MAX
from compass.model.limits import REPLY_SECONDS as REPLY_SECONDS

VERSIONS: tuple[int, ...] = (1,)
"""Protocol versions of this program, best last."""
VERSIONS_OFFERED_MAX = 16
"""Versions in one hello: a list, not a stream."""
SOFTWARE_MAX = 100
"""Characters of a peer's self-description: log lines contain it."""
UNREADABLE_MAX = 255
"""Characters of the refusal of a body that cannot be read: the text quotes an unknown client and goes into logs."""

FRAME_MAX_FROM_HOST = 64 * 1024
"""Octets of a body that a server accepts from a host: a watch of 256 services is 33 kB."""
FRAME_MAX_FROM_ADMIN = 4 * 1024 * 1024
"""Octets of a body that a server accepts from an administrator: a topology of 30,000 services."""
FRAME_MAX_FROM_SERVER = 16 * 1024 * 1024
"""Octets of a body that a client accepts: a snapshot of some 100,000 listeners."""
PART_OCTETS_MAX = 64 * 1024
"""Octets in one part of a message that is longer than a frame: one write to a transport. A server makes one part at a
time for each session."""
MESSAGE_MAX = 1024 * 1024 * 1024
"""Octets of a message that a client puts together from parts: a view of 100,000 listeners with full metadata. A client
with less memory offers less."""
MESSAGES_QUEUED_MAX = 4
"""Messages in parts that wait for one client behind the one that it reads; a request with one more is refused as busy:
each keeps the revision that it is of."""
MESSAGE_SECONDS = 900.0
"""Seconds in which a client reads all of a message in parts: until then the server keeps the revision that the message
is of. A view of 256 MiB takes a fifth of this at 10 Mbit/s."""
APPLY_OCTETS_PER_SECOND_MIN = 16 * 1024 * 1024
"""Octets of a view for which a host has a second more until its acknowledgement: decoding and indexing 16 MiB takes a
tenth of this on a slow machine."""

IDLE_SECONDS = 60.0
"""Seconds after which a session that neither watches nor waits for a reply is ended: connect, ask, disconnect."""
ACKNOWLEDGE_SECONDS = 10.0
"""Seconds from a notice, or from the last octets that a slow reader accepted, to the acknowledgement; then the session
is ended, and the host resumes: that is the retry."""
SUSPICION_SECONDS_MAX = 60.0
"""Seconds for which a host believes a suspicion that is not repeated, even if the suspicion names more: the server may
have failed since."""
REQUESTS_IN_FLIGHT_MAX = 256
"""Unanswered requests of one session; one more is refused as busy."""
SEND_QUEUE_MAX = 256 * 1024
"""Octets queued for one session beyond those that its transport has accepted: a second of 1,000 changes. A session that
reads more slowly gets no further notice; when it reads again, it gets all missed changes at once."""
REPLIES_QUEUED_MAX = 1024 * 1024
"""Octets queued for one session at which its next request is refused as busy: enough for the replies to one burst, but
not for a thousand copies of a large reply."""
SEND_BUFFER_MAX = 20 * 1024 * 1024
"""Octets queued for one session in all: one snapshot and some replies; a peer that reads less is disconnected."""
WRITE_OCTETS = 64 * 1024
"""Octets of one write to a transport: a transport holds a copy for each session, the queues share their octets."""
SERVICES_PER_WATCH_MAX = 256
"""Services in one watch, equal to the services of a host."""
ANNOUNCEMENT_OCTETS_MAX = 1024
"""Octets of an announcement: it needs no fragments, and reading it costs next to nothing."""
ANNOUNCED_ADDRESSES_MAX = 8
"""Addresses in one announcement: more networks than a machine has."""
ANNOUNCE_SECONDS_MIN = 1.0
"""Shortest interval between announcements that a host accepts: it replaces a shorter one."""
ANNOUNCE_SECONDS_MAX = 300.0
"""Longest interval that a host accepts: it replaces a longer one. An announcement expires after three intervals."""

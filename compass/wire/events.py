"""Events of a session, which `Connection.receive` and `expire` return."""

from __future__ import annotations

import msgspec

from compass.model.replies import Reply
from compass.model.requests import Request
from compass.wire.messages import Acknowledge, Bookmark, Hello, Inquiry, Notice, Recorded, Resync, Suspicion, Welcome


class RequestReceived(msgspec.Struct, frozen=True):
    """Request, which the server answers with `reply(number, ...)`."""

    number: int
    request: Request


class ReplyReceived(msgspec.Struct, frozen=True):
    """Reply to the request with that number."""

    number: int
    reply: Reply


class PushReceived(msgspec.Struct, frozen=True):
    """Message other than a reply from the server."""

    message: Notice | Bookmark | Resync | Inquiry | Suspicion | Recorded


class AcknowledgementReceived(msgspec.Struct, frozen=True):
    """Acknowledgement: the host holds everything up to that revision, or reports a gap."""

    acknowledge: Acknowledge
    waited: float | None = None
    """Seconds from the commit of a notice to this acknowledgement; None: it acknowledges no timed notice."""


class SessionOpened(msgspec.Struct, frozen=True):
    """End of the greeting: the session is open."""

    peer: Hello | Welcome


class SessionEnded(msgspec.Struct, frozen=True):
    """End of the session, the last event: write the queued octets and close."""

    reason: str
    violation: bool = False
    """True if the peer violated the protocol."""
    retry_after_seconds: float = 0.0
    instead: tuple[str, ...] = ()
    """Servers to which the peer redirects this client, unparsed."""


Event = RequestReceived | ReplyReceived | PushReceived | AcknowledgementReceived | SessionOpened | SessionEnded

"""Events of a session: what `Connection.receive` and `expire` return."""

from __future__ import annotations

import msgspec

from compass.model.replies import Reply
from compass.model.requests import Request
from compass.wire.messages import Acknowledge, Bookmark, Hello, Inquiry, Notice, Resync, Suspicion, Welcome


class RequestReceived(msgspec.Struct, frozen=True):
    """A request to answer, with `reply(number, ...)`."""

    number: int
    request: Request


class ReplyReceived(msgspec.Struct, frozen=True):
    """The answer to the request of that number."""

    number: int
    reply: Reply


class PushReceived(msgspec.Struct, frozen=True):
    """A notice, a bookmark, a resync, an inquiry or a suspicion from the server."""

    message: Notice | Bookmark | Resync | Inquiry | Suspicion


class AcknowledgementReceived(msgspec.Struct, frozen=True):
    """Acknowledgement: the host holds everything up to that revision, or reports a gap."""

    acknowledge: Acknowledge
    waited: float | None = None
    """Seconds from the commit of a notice to this acknowledgement; None: no notice was timed that it acknowledges."""


class SessionOpened(msgspec.Struct, frozen=True):
    """The greeting is done."""

    peer: Hello | Welcome


class SessionEnded(msgspec.Struct, frozen=True):
    """Nothing more will come of this session; write what is left to send and close."""

    reason: str
    violation: bool = False
    """The peer broke the protocol."""
    retry_after_seconds: float = 0.0
    instead: tuple[str, ...] = ()
    """Servers that the peer sends us to, as it spelled them."""


Event = RequestReceived | ReplyReceived | PushReceived | AcknowledgementReceived | SessionOpened | SessionEnded

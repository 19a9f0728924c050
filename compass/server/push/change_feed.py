"""Visitors: those who ask without a session of their own, over HTTPS, and those of them who follow the changes.

They are asked for a role as everybody is. What they are told comes from memory: the last changes are kept, so that who
lost the connection goes on where it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import msgspec
from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue
from compass.model.limits import TOKEN_MAX
from compass.model.replies import Dependencies, FeedEvent, Position, Refusal, Reply, SecurityEntry
from compass.model.rows import Change, Credential
from compass.model.rules.draft import Principal
from compass.model.rules.tokens import principal_of
from compass.server.sessions.connection_limits import ConnectionLimits

RECENT_MAX = 2_000
"""Changes that a follower can resume from: a few seconds at full speed, hours as a rule; some 2 MB."""
FOLLOWERS_MAX = 200
"""At the same time: consoles and programs that feed other systems. Each change is encoded once for each of them."""

Deliver = Callable[[FeedEvent], None]


class Visit(msgspec.Struct, frozen=True):
    """What of a session there is without one: who asks."""

    asker: Principal


def plain(answer: Reply | bytes) -> Reply:
    """An answer that may be encoded already, as a session likes it: what is kept so is what a pull gives."""
    return msgspec.msgpack.decode(answer, type=Dependencies) if isinstance(answer, bytes) else answer


class ChangeFeed:
    """Who shows a token, and who follows."""

    _log = Logger()

    def __init__(
        self,
        now: Callable[[], float],
        gate: ConnectionLimits,
        note: Callable[[SecurityEntry], None],
        store: str,
        catalogue: Callable[[], Catalogue],
    ) -> None:
        self._now = now
        self._gate = gate
        self._note = note
        self._store = store
        self._catalogue = catalogue
        self._recent: deque[Change] = deque(maxlen=RECENT_MAX)
        self._after = catalogue().revision
        """All changes after this revision are in `_recent`."""
        self._followers: dict[int, Deliver] = {}
        self._last = 0

    @property
    def followers(self) -> int:
        """Who follows the changes now."""
        return len(self._followers)

    def bearer(self, token: str, origin: str) -> Principal | Refusal:
        """Who shows this token."""
        too_many = self._gate.token(origin)
        if too_many is not None:
            return too_many
        found = principal_of(self._catalogue(), token, origin, self._now()) if len(token) <= TOKEN_MAX else None
        if found is not None:
            return found
        self._gate.token_was_wrong(origin)
        text = "the bearer token is nobody's: it was never made, was removed, or has expired"
        self._note(SecurityEntry(0, self._now(), "authenticate", "", "{}", origin, "", text))
        return Refusal("bad-credential", f"{text}; an administrator can make one with 'opengnsadmin token add'")

    def recall(self, changes: Iterable[Change]) -> None:
        """What the log has up to now, oldest first and without a gap, to be resumed from."""
        for change in changes:
            self._keep(change)

    def follow(self, since: int | None, deliver: Deliver) -> Callable[[], None] | Refusal:
        """Deliver every change from now on, or after `since`; the first event says where that is.

        Those events that are due at once are delivered before this returns. The result ends it.
        """
        if len(self._followers) >= FOLLOWERS_MAX:
            text = f"{FOLLOWERS_MAX} follow the changes already; let one tell the others"
            return Refusal("busy", text, retry_after_seconds=1.0)
        revision = self._catalogue().revision
        resumes = since is not None and self._after <= since <= revision
        begin = since if resumes and since is not None else revision
        deliver(Position(self._store, begin, resumes or since is None))
        for change in self._recent:
            if change.revision > begin:
                deliver(change)
        self._last += 1
        number = self._last
        self._followers[number] = deliver

        def stop() -> None:
            self._followers.pop(number, None)

        return stop

    def committed(self, change: Change) -> None:
        """Tell a change to all."""
        self._tell(self._keep(change))

    def reloaded(self, revision: int) -> None:
        """What happened is not known one by one: all must read everything again."""
        self._recent.clear()
        self._after = revision
        self._tell(Position(self._store, revision, complete=False))

    def _keep(self, change: Change) -> Change:
        if isinstance(change.row, Credential):
            change = msgspec.structs.replace(change, row=msgspec.structs.replace(change.row, digest=""))
        if not self._recent:
            self._after = change.revision - 1
        elif len(self._recent) == RECENT_MAX:
            self._after = self._recent[0].revision
        self._recent.append(change)
        return change

    def _tell(self, event: FeedEvent) -> None:
        """One follower's trouble is not another's."""
        for deliver in list(self._followers.values()):
            try:
                deliver(event)
            except Exception:
                self._log.failure("a follower could not be told")

"""The lag of push: how long after a commit the last dependant has acknowledged its notice.

Not every notice is followed: one that is makes the next wait, longer the more hosts are told, so what this costs
grows neither with the number of changes nor with that of hosts. Hosts acknowledge by revision, so each has a line of
the notices it is awaited for, and the last one that leaves the line of a notice closes it. A host whose session ends is
awaited no more, for it comes back and is told everything anew; what it did not say counts for nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from compass.model.metrics import LAG_BOUNDS, Histogram

FOLLOW_EVERY_SECONDS = 0.05
"""Shortest time between two notices that are followed."""
FOLLOW_SECONDS_PER_HOST = 0.0001
"""After one that is told to so many hosts the next waits at least so long for each: a hundred times the microsecond
that it costs to await one host, so that following takes a hundredth of a server's time at most."""
AWAITED_MAX = 200_000
"""Acknowledgements awaited at once: some 20 MB. By the time above 10,000 hosts that say nothing make 10,000 a second,
and are let go after 10 s; beyond this no notice begins to be followed."""


class _Followed:
    __slots__ = ("began", "heard", "left", "revision")

    def __init__(self, revision: int, began: float, left: int) -> None:
        self.revision = revision
        self.began = began
        self.left = left
        self.heard = -1.0
        """When the last acknowledgement came; negative: none has come."""


class AckLatency:
    """Follows notices to those who are told. `seconds` is a clock that never jumps."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.spread = Histogram(LAG_BOUNDS)
        self._seconds = seconds
        self._next = seconds()
        self._lines: dict[str, deque[_Followed]] = {}
        """By host: the notices that it is awaited for, in order."""
        self._open: dict[_Followed, None] = {}
        self._awaited = 0

    @property
    def hosts(self) -> int:
        """Hosts that have not acknowledged a notice which is followed."""
        return len(self._lines)

    @property
    def open_seconds(self) -> float:
        """How long the oldest notice that is followed is on its way; 0: none is."""
        return self._seconds() - next(iter(self._open)).began if self._open else 0.0

    def begins(self) -> float | None:
        """A notice is about to be written: now, when it is to be followed; else None."""
        now = self._seconds()
        return None if now < self._next or self._awaited >= AWAITED_MAX else now

    def notices_sent(self, revision: int, began: float, names: Sequence[str]) -> None:
        """It was written to the hosts of these names, and is followed from then on."""
        if not names:
            return
        self._next = began + max(FOLLOW_EVERY_SECONDS, FOLLOW_SECONDS_PER_HOST * len(names))
        followed = _Followed(revision, began, len(names))
        self._open[followed] = None
        self._awaited += len(names)
        for name in names:
            line = self._lines.get(name)
            if line is None:
                self._lines[name] = deque((followed,))
            else:
                line.append(followed)

    def acknowledged(self, host: str, revision: int) -> None:
        """A host holds everything up to `revision`."""
        line = self._lines.get(host)
        if line is None or line[0].revision > revision:
            return
        now = self._seconds()
        while line and line[0].revision <= revision:
            followed = line.popleft()
            followed.heard = now
            self._leave(followed)
        if not line:
            del self._lines[host]

    def gone(self, host: str) -> None:
        """A host's session is over."""
        for followed in self._lines.pop(host, ()):
            self._leave(followed)

    def _leave(self, followed: _Followed) -> None:
        followed.left -= 1
        self._awaited -= 1
        if not followed.left:
            del self._open[followed]
            if followed.heard >= 0:
                self.spread.add(followed.heard - followed.began)

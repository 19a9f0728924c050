"""Failures of requests to `gns://NAME`: whose they are and what follows, by the same rules in each HTTP library.

    refused     the listener cannot have received the request: reported, the next listener is tried
    unanswered  no connection within the caller's time limit: the same
    broken      the connection ended before the response: perhaps an idle one, so the same listener is tried once more,
                then the next one; only if the request may be repeated
    hung        no response within the caller's time limit: reported; the next listener if the request may be repeated
    other       not the listener's: a proxy's, the pool's, the program's

The body of a response that breaks off or hangs is the caller's to handle, as with a host: its listener is reported.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Literal, Protocol

from compass.client.core.client import CoreClient
from compass.client.core.session import classify_failure, describe_failure
from compass.model.rows import Listener

BLAME_SECONDS_MIN = 0.1
"""Shortest time without an answer that is a listener's failure. A caller with a shorter time limit gets its timeout,
and no listener is reported: a round trip within a continent and the work of a healthy listener fit into this time."""

Kind = Literal["refused", "unanswered", "broken", "hung", "other"]
"""Kind of a failure."""


class TryNext(Exception):
    """Failure of a listener after which another one may be tried. `failure`: that of the library."""

    def __init__(self, failure: Exception, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure


class Judge(Protocol):
    """Knowledge of one HTTP library about its exceptions."""

    def judged(self, failure: Exception) -> tuple[Kind, str]:
        """Return the kind of a failure, and its description."""


class Exchange:
    """Request to one listener, and its response."""

    def __init__(self, core: CoreClient, peer: Listener, judge: Judge, *, repeatable: bool, direct: bool) -> None:
        """`repeatable`: the request may be sent twice. `direct`: there is no proxy whose failure looks like the
        listener's."""
        self._core = core
        self._peer = peer
        self._judge = judge
        self._repeatable = repeatable
        self._direct = direct
        self._is_first = True
        self._is_reported = False
        self._began = 0.0

    def begin(self) -> None:
        """Start the clock of one attempt, or of one piece of the response."""
        self._began = time.monotonic()

    def failed(self, failure: Exception) -> None:
        """Handle a failure before the response. Returns if the same listener is to be tried once more. Raises TryNext,
        or the failure if it is the caller's."""
        kind, detail = self._judged(failure)
        if kind in ("refused", "unanswered"):
            raise TryNext(failure, detail) from failure
        if kind == "hung" and not self._repeatable:
            self._report(failure, detail)
        if kind == "other" or not self._repeatable:
            raise failure
        if kind == "hung" or not self._is_first:
            raise TryNext(failure, detail) from failure
        self._is_first = False

    def failed_later(self, failure: Exception) -> None:
        """Handle a failure in the body of the response, which the caller raises."""
        kind, detail = self._judged(failure)
        if kind in ("broken", "hung"):
            self._report(failure, detail)

    def pieces(self, body: Iterator[bytes], failures: tuple[type[Exception], ...]) -> Iterator[bytes]:
        """Yield the pieces of a body. Raises the failure of a piece."""
        while True:
            self.begin()
            try:
                piece = next(body, None)
            except failures as failure:
                self.failed_later(failure)
                raise
            if piece is None:
                return
            yield piece

    async def pieces_async(
        self, body: AsyncIterator[bytes], failures: tuple[type[Exception], ...]
    ) -> AsyncIterator[bytes]:
        """Yield the pieces of a body. Raises the failure of a piece."""
        while True:
            self.begin()
            try:
                piece = await anext(body, None)
            except failures as failure:
                self.failed_later(failure)
                raise
            if piece is None:
                return
            yield piece

    def reader(self, read: Callable[..., bytes], failures: tuple[type[Exception], ...]) -> Callable[..., bytes]:
        """Return a method that reads a body, with its failures handled."""

        def watched(*arguments: object, **named: object) -> bytes:
            self.begin()
            try:
                return read(*arguments, **named)
            except failures as failure:
                self.failed_later(failure)
                raise

        return watched

    def _judged(self, failure: Exception) -> tuple[Kind, str]:
        kind, detail = self._judge.judged(failure)
        too_short = kind in ("unanswered", "hung") and time.monotonic() - self._began < BLAME_SECONDS_MIN
        return ("other" if too_short or not self._direct else kind), detail

    def _report(self, failure: Exception, detail: str) -> None:
        # One method of a response may read by another one.
        if not self._is_reported and classify_failure(failure) == "listener":
            self._is_reported = True
            self._core.report_failure(self._peer, describe_failure(TryNext(failure, detail)))

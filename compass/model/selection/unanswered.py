"""Names that programs ask for again and again and that have no listener: the outage that a person must know of.

One lookup that finds nothing is no outage: a person has typed a name, or a program has started before its service. So
a name counts after several lookups over half a minute, however many a resolver or a retry makes of each, and until it
has a listener or the lookups end. Pure: the time is an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from compass.model.catalogue.catalogue import Catalogue
from compass.model.host_api import UnansweredName
from compass.model.selection.selector import candidates

SPACING_SECONDS = 10.0
"""Time in which lookups of a name count as one: a program asks DNS for A and AAAA, with search domains, and retries."""
LOOKUPS_MIN = 4
"""Counted lookups within WINDOW_SECONDS from which a name is unanswered: half a minute of a program that retries, and
more than a person types who wonders about an answer."""
WINDOW_SECONDS = 300.0
"""Time for which a lookup counts: a program that asks less than once a minute is no sign of an outage by itself."""
NAMES_MAX = 1_000
"""Names that are remembered, of those that exist; beyond it the one that was asked for the longest ago is forgotten."""


class UnansweredLookups:
    """Lookups that found no listener, by name."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}

    def asked(self, name: str, now: float) -> None:
        """Count a lookup that found nothing. `name` exists."""
        times = self._times.pop(name, None)
        if times is None:
            times = deque(maxlen=LOOKUPS_MIN)
            if len(self._times) >= NAMES_MAX:
                del self._times[next(iter(self._times))]
        self._times[name] = times
        if not times or now - times[-1] >= SPACING_SECONDS:
            times.append(now)

    def names(self, now: float, has_none: Callable[[str], bool], rendered: Iterable[str]) -> list[UnansweredName]:
        """Return the names that are unanswered now. `rendered`: names that are asked for without lookups, because
        templates render them."""
        for name in [name for name, times in self._times.items() if now - times[-1] >= WINDOW_SECONDS]:
            del self._times[name]
        found = {name: UnansweredName(name, 0.0) for name in rendered if has_none(name)}
        for name, times in self._times.items():
            if len(times) == LOOKUPS_MIN and now - times[0] < WINDOW_SECONDS and has_none(name):
                found[name] = UnansweredName(name, now - times[0])
        return [found[name] for name in sorted(found)]


def is_without_listener(catalogue: Catalogue, name: str) -> bool:
    """Return whether a lookup of a service or category finds no listener of its own, its backup or in doubt."""
    return not candidates(catalogue, name)[0]

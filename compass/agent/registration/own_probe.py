"""Trial of the host's own registrations: what is registered has been tried at that very address.

Once a server has registered an instance, the agent connects to its address and port as the category's probe says. A
failure is a line in the log and the problem of the registration in the status, not a refusal: a service may listen
later, and from its own machine it may not be reached although others reach it (a container's published port). It is
tried again until it answers; other hosts and servers judge the listener by their own probes.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.agent.registration.journal import Instance, Registration, RegistrationJournal, format_key
from compass.agent.registration.probe_responder import Probe
from compass.agent.replica.replica import Replica
from compass.model.backoff import Backoff
from compass.model.interfaces import Clock
from compass.model.limits import DETAIL_MAX
from compass.model.names import category_of
from compass.model.rows import Policy
from compass.model.rules.networks import ProbeDenied
from compass.model.text import escape_line
from compass.system.timers import Timers

FIRST_SECONDS = 1.0
"""Seconds from the registration to the first trial: a program may register a moment before it listens."""
AGAIN_SECONDS_MAX = 300.0
"""Longest pause between two trials of a listener that has not answered: one connection costs nothing."""
TRIALS_MAX = 8
"""Trials under way at once: after a start of the agent all its registrations are tried."""


class OwnProbes:
    """Trials of all instances of this host."""

    _log = Logger()

    def __init__(self, clock: Clock, journal: RegistrationJournal, replica: Replica, probe: Probe | None) -> None:
        self._journal = journal
        self._replica = replica
        self._probe = probe
        self._timers = Timers(clock)
        self._under_way = 0
        self._backoff: dict[Instance, Backoff] = {}
        self._problems: dict[Instance, str] = {}

    def problem(self, entry: Registration) -> str:
        """Return why the instance did not answer at its address; empty: it did, or it has not been tried."""
        return self._problems.get(entry.instance, "")

    def registered(self, entry: Registration) -> None:
        """Try an instance that a server has registered, unless it is being tried or has answered."""
        if self._probe is None or entry.instance in self._backoff:
            return
        if len(self._backoff) > 2 * len(self._journal) + TRIALS_MAX:
            held = {one.instance for one in self._journal.all()}
            for gone in [one for one in self._backoff if one not in held]:
                self._forget(gone)
        self._backoff[entry.instance] = Backoff(first=FIRST_SECONDS, longest=AGAIN_SECONDS_MAX)
        self._timers.start(entry.instance, FIRST_SECONDS, self._try, entry)

    def stop(self) -> None:
        """Stop trying."""
        self._timers.cancel_all()

    def _try(self, entry: Registration) -> None:
        now = self._journal.get(entry.key)
        if now is None or now.epoch != entry.epoch or not now.lives:
            self._forget(entry.instance)
        elif self._under_way >= TRIALS_MAX or self._probe is None:
            self._timers.start(entry.instance, FIRST_SECONDS, self._try, entry)
        else:
            self._under_way += 1
            asked: Deferred[str] = self._probe(self._policy(entry), entry.address, entry.port)
            asked.addErrback(lambda failure: failure.getErrorMessage())
            asked.addCallback(self._tried, entry)

    def _policy(self, entry: Registration) -> Policy:
        category = self._replica.catalogue.categories.get(category_of(entry.service))
        return category.policy if category is not None else Policy()

    def _tried(self, problem: str, entry: Registration) -> None:
        self._under_way -= 1
        if not problem or isinstance(problem, ProbeDenied):
            if self._problems.pop(entry.instance, ""):
                self._log.info("{listener} answers at its address now", listener=format_key(entry.key))
            return
        text = escape_line(problem, DETAIL_MAX)
        if entry.instance not in self._problems:
            self._log.warn(
                "{listener} is registered, but does not answer there from this host: {problem}; bind the service to "
                "this address, or register the address at which it listens",
                listener=format_key(entry.key),
                problem=text,
            )
        self._problems[entry.instance] = f"does not answer at this address: {text}"
        self._timers.start(entry.instance, self._backoff[entry.instance].next(), self._try, entry)

    def _forget(self, instance: Instance) -> None:
        self._backoff.pop(instance, None)
        self._problems.pop(instance, None)

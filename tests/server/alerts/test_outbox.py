"""Outbox of one channel: each incident is sent once at its beginning and once at its end, whatever comes between."""

from __future__ import annotations

from random import Random

import pytest

from compass.model.rows import Alert, Category, Change
from compass.server.alerts.outbox import (
    DIGEST_NEWS_MAX,
    MINUTE_SECONDS,
    PAUSE_SECONDS_MAX,
    PAUSE_SECONDS_MIN,
    PENDING_MAX,
    Message,
    Outbox,
    message_id,
)

STORE = "5d41402abc4b2a76"
EPOCH = 1_800_000_000.0


class Fixed:
    """Randomness that returns one number."""

    def __init__(self, number: float) -> None:
        self._number = number

    def random(self) -> float:
        return self._number


class Told:
    """An outbox, the incidents that happen, and time. Message ids, events and counts are what a receiver sees."""

    def __init__(self, per_minute: int = 10) -> None:
        self.outbox = Outbox(STORE, Fixed(1.0), per_minute)
        self.now = 1_000.0
        self.revision = 0
        self.got: list[Message] = []

    def begins(self, *names: str) -> None:
        for name in names:
            self._change(name, removed=False)

    def ends(self, *names: str) -> None:
        for name in names:
            self._change(name, removed=True)

    def _change(self, name: str, *, removed: bool) -> None:
        self.revision += 1
        alert = Alert(name, "failure", EPOCH + int(name.rpartition(" ")[2] or 0), f"{name} is down")
        self.outbox.committed(Change(self.revision, 0, EPOCH + self.revision, "alert", alert, removed))

    def sent(self) -> Message | None:
        return self.outbox.next(self.now, EPOCH + self.now)

    def taken(self) -> None:
        self.outbox.delivered(self.now, EPOCH + self.now)

    def postponed(self, *, perhaps: bool = False) -> float:
        return self.outbox.retry_later(self.now, EPOCH + self.now, "nobody listens", perhaps=perhaps)

    def works_off(self) -> list[str]:
        """Everything that may be sent now arrives; what each message says."""
        said: list[str] = []
        while message := self.sent():
            self.taken()
            said.append(said_by(message))
        return said


def said_by(message: Message) -> str:
    if message.event == "digest":
        return "digest " + " ".join(f"{count} {event}" for event, count in message.counts.items())
    return f"{message.event} {message.news[0].alert.id}"


def test_an_incident_is_sent_when_it_begins_and_when_it_is_over() -> None:
    """Beginning and end are one message each, in this order, and nothing else is waiting."""
    told = Told()
    told.begins("a 1")
    assert told.works_off() == ["opened a 1"]
    told.ends("a 1")
    assert told.works_off() == ["resolved a 1"]
    assert told.outbox.deadline(told.now) is None and told.outbox.state().pending == 0


def test_other_changes_and_changes_seen_before_are_ignored() -> None:
    """A page of the log that is read twice sends nothing twice."""
    told = Told()
    told.begins("a 1")
    told.works_off()
    for row in (Category("web"), Alert("a 1", "failure", EPOCH + 1, "")):
        told.outbox.committed(Change(1, 0, EPOCH, "alert", row))
    assert told.works_off() == []


def test_an_incident_that_was_over_before_it_was_sent_is_one_message() -> None:
    """An operator learns of an incident that happened while mail was down, in one message."""
    told = Told()
    told.begins("a 1")
    assert told.sent() is not None
    told.ends("a 1")
    told.now += told.postponed()
    assert told.works_off() == ["passed a 1"]


def test_what_may_have_arrived_is_repeated_as_it_was() -> None:
    """The id is the same, so that the receiver recognizes it; the end follows in a message of its own."""
    told = Told()
    told.begins("a 1")
    first = told.sent()
    told.ends("a 1")
    told.now += told.postponed(perhaps=True)
    assert told.sent() == first
    told.taken()
    assert told.works_off() == ["resolved a 1"]


def test_an_incident_that_ends_while_its_beginning_is_being_sent_is_two_messages() -> None:
    """A message says that it began, another that it is over: the beginning arrives after all."""
    told = Told()
    told.begins("a 1", "b 2")
    assert told.sent() is not None
    told.ends("a 1")
    told.taken()
    assert told.works_off() == ["opened b 2", "resolved a 1"]


def test_an_incident_that_comes_back_is_another_one() -> None:
    """The incident has the same id and another beginning."""
    told = Told()
    told.begins("a 1")
    told.works_off()
    told.ends("a 1")
    told.revision += 1
    again = Alert("a 1", "failure", EPOCH + 99, "down again")
    told.outbox.committed(Change(told.revision, 0, EPOCH, "alert", again))
    assert told.works_off() == ["resolved a 1", "opened a 1"]


def test_a_rejected_message_is_dropped() -> None:
    """The next one has its chance."""
    told = Told()
    told.begins("a 1", "b 2")
    assert told.sent() is not None
    told.outbox.rejected(told.now, EPOCH, "550 no such user")
    assert told.works_off() == ["opened b 2"]
    standing = told.outbox.state()
    assert (standing.problem, standing.failed_at, standing.pending) == ("550 no such user", EPOCH, 0)


@pytest.mark.parametrize(("incidents", "said"), [(3, 3), (4, 1), (50, 1)])
def test_the_messages_within_a_minute_are_limited(incidents: int, said: int) -> None:
    """n fit, n + 1 become one: whatever is waiting when it would be too many."""
    told = Told(per_minute=3)
    told.begins(*(f"x {number}" for number in range(incidents)))
    assert len(told.works_off()) == said
    assert told.outbox.state().pending == 0


def test_beyond_the_limit_incidents_wait_and_become_one_message() -> None:
    """The message is sent a minute after the first one."""
    told = Told(per_minute=2)
    told.begins("a 1")
    assert told.works_off() == ["opened a 1"]
    told.now += 10
    told.begins("b 2")
    assert told.works_off() == ["opened b 2"]
    told.begins("c 3", "d 4")
    told.ends("a 1", "d 4")
    assert told.works_off() == []
    assert told.outbox.deadline(told.now) == told.now - 10 + MINUTE_SECONDS
    told.now += MINUTE_SECONDS - 10 - 0.001
    assert told.works_off() == []
    told.now += 0.001
    assert told.works_off() == ["digest 1 opened 1 passed 1 resolved"]


@pytest.mark.parametrize("incidents", [PENDING_MAX - 1, PENDING_MAX, PENDING_MAX + 1, 2 * PENDING_MAX])
def test_ten_thousand_at_once_are_few_messages_and_bounded_memory(incidents: int) -> None:
    """P10: those beyond the limit are counted. The first is on its way when the others come."""
    told = Told()
    told.begins("x 0")
    assert told.sent() is not None
    told.begins(*(f"x {number}" for number in range(1, incidents)))
    assert len(told.outbox._pending) <= PENDING_MAX
    assert told.outbox.state().pending == incidents
    told.taken()
    message = told.sent()
    assert message is not None and message.counts == {"opened": incidents - 1}
    assert len(message.news) == DIGEST_NEWS_MAX
    assert told.outbox.delivered_through(told.revision) == 1
    told.taken()
    assert told.outbox.state().pending == 0 and told.outbox.delivered_through(told.revision) == told.revision
    told.ends(*(f"x {number}" for number in range(incidents)))
    assert told.works_off() == [f"digest {incidents} resolved"]


@pytest.mark.parametrize(
    ("named", "waiting"), [(DIGEST_NEWS_MAX, DIGEST_NEWS_MAX), (DIGEST_NEWS_MAX, DIGEST_NEWS_MAX + 1)]
)
def test_a_digest_names_a_limited_number(named: int, waiting: int) -> None:
    """And counts all."""
    told = Told(per_minute=1)
    told.begins(*(f"x {number}" for number in range(waiting)))
    message = told.sent()
    assert message is not None and (len(message.news), message.counts) == (named, {"opened": waiting})


def test_pauses_double_up_to_a_limit_and_are_spread() -> None:
    """Attempts go on for hours: an hour has some twelve of them."""
    told = Told()
    told.begins("a 1")
    pauses = []
    while told.now < 1_000.0 + 4 * 3600:
        assert told.sent() is not None and told.sent() is None
        pauses.append(told.postponed())
        assert told.outbox.deadline(told.now) == told.now + pauses[-1]
        told.now += pauses[-1]
    assert pauses[:4] == [PAUSE_SECONDS_MIN * 2**number for number in range(4)]
    assert set(pauses[8:]) == {PAUSE_SECONDS_MAX} and 48 <= len(pauses) <= 60
    assert told.works_off() == ["opened a 1"]
    spread = Outbox(STORE, Fixed(0.0))
    spread.is_open(Alert("a", "failure", EPOCH, ""), 1)
    assert spread.next(0.0, EPOCH) is not None
    assert spread.retry_later(0.0, EPOCH, "", perhaps=False) == PAUSE_SECONDS_MIN / 2


def test_after_a_success_the_first_pause_is_short_again() -> None:
    """A receiver that is restarted now and then is not punished for the last time."""
    told = Told()
    told.begins("a 1", "b 2")
    for _ in range(5):
        told.sent()
        told.now += told.postponed()
    assert told.outbox.state().attempts == 5
    told.sent()
    told.taken()
    assert told.outbox.state().attempts == 0
    told.sent()
    assert told.postponed() == PAUSE_SECONDS_MIN


def test_ids_are_the_same_at_every_server_and_after_every_restart() -> None:
    """Ids depend only on the store, the incident and the event."""
    ids = []
    for revision in (1, 40):
        outbox = Outbox(STORE, Fixed(0.5))
        outbox.is_open(Alert("a", "failure", EPOCH, "as one server worded it"), revision)
        message = outbox.next(0.0, EPOCH + revision)
        assert message is not None
        ids.append(message.id)
    assert ids[0] == ids[1] == message_id(STORE, "opened", Alert("a", "failure", EPOCH, "as another one did"))
    others = [
        message_id(STORE, "resolved", Alert("a", "failure", EPOCH, "")),
        message_id("x", "opened", Alert("a", "failure", EPOCH, "")),
    ]
    assert len({ids[0], *others}) == 3


def test_the_end_of_an_incident_names_the_message_of_its_beginning() -> None:
    """Mail programs show the two messages together."""
    told = Told()
    told.begins("a 1")
    first = told.sent()
    told.taken()
    told.ends("a 1")
    second = told.sent()
    assert first is not None and second is not None and second.answers == first.id


@pytest.mark.parametrize("seed", range(40))
def test_a_server_that_continues_from_the_progress_sends_all_that_was_not_sent(seed: int) -> None:
    """A server may stop at any moment, and another one read the log after the progress: no incident is left out, each
    has a message at its beginning and at its end, or one for both. Only messages lost in between are sent twice."""
    random = Random(seed)
    told = Told(per_minute=random.choice([1, 2, 100]))
    log: list[Change] = []
    heard: dict[tuple[str, str], int] = {}
    open_now: set[str] = set()
    number = 0

    def hears(message: Message | None) -> None:
        for news in message.news if message else ():
            heard[news.alert.id, news.event] = heard.get((news.alert.id, news.event), 0) + 1

    for _ in range(60):
        told.now += random.choice([0.0, 1.0, 70.0])
        action = random.choice(["begin", "end", "send", "fail", "perhaps", "die"])
        if action == "begin":
            number += 1
            open_now.add(f"x {number}")
        if action in ("begin", "end") and open_now:
            name = f"x {number}" if action == "begin" else open_now.pop()
            told.revision += 1
            alert = Alert(name, "failure", EPOCH + int(name[2:]), "")
            log.append(Change(told.revision, 0, EPOCH, "alert", alert, action == "end"))
            told.outbox.committed(log[-1])
        elif action in ("send", "fail", "perhaps") and (message := told.sent()):
            if action == "send":
                hears(message)
                told.taken()
            else:
                told.postponed(perhaps=action == "perhaps")
        elif action == "die":
            after = told.outbox.delivered_through(told.revision)
            told.outbox = Outbox(STORE, random, told.outbox._per_minute)
            for change in log[after:]:
                told.outbox.committed(change)
    for _ in range(200):
        told.now += 400.0
        if message := told.sent():
            hears(message)
            told.taken()
    for incident in range(1, number + 1):
        name = f"x {incident}"
        over = name not in open_now
        told_of = {event for (id, event) in heard if id == name}
        assert told_of >= {"opened"} or "passed" in told_of or (over and told_of == {"resolved", "passed"})
        assert not over or told_of & {"resolved", "passed"}

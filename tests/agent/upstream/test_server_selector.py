"""Which way to a server a host takes, and when: as a pure rule, for one host and for a thousand."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from compass.agent.upstream import server_selector as limits
from compass.agent.upstream.server_selector import Candidate, ServerAddress, ServerSelector, in_order
from compass.model.names import SERVER_PORT

HOSTS = 1_000


def way(name: str, address: str = "") -> ServerAddress:
    return ServerAddress(name, address or name, SERVER_PORT)


def equal(*names: str, weights: tuple[int, ...] = ()) -> list[Candidate]:
    return [Candidate(way(name), (0,), weight) for name, weight in zip(names, weights or [1] * len(names), strict=True)]


def taken(choice: ServerSelector, now: float = 0.0, *besides: ServerAddress) -> str:
    """The address of the way that is taken now; nothing when none is."""
    following = choice.next(now, besides)
    return following.way.address if following is not None and following.seconds <= 0 else ""


def middling() -> float:
    return 0.5


def test_the_first_of_the_list_is_preferred() -> None:
    """Then the second, while the first is being tried or rests; with none left there is nothing to do."""
    choice = ServerSelector(middling, in_order(["a", "b"]))
    assert taken(choice) == "a"
    assert taken(choice, 0.0, way("a")) == "b"
    assert choice.next(0.0, [way("a"), way("b")]) is None
    choice.failed(way("a"), 0.0, "refused")
    assert taken(choice) == "b"
    assert ServerSelector(middling).next(0.0) is None


def test_each_way_rests_by_itself_twice_as_long_after_each_failure() -> None:
    """Many servers, 4: "A host MUST pause before it tries an address again that failed, twice as long after each
    failure, with randomness. Other addresses do not wait for that."
    """
    for chance, part in ((0.0, 0.5), (0.999999, 1.0)):
        choice = ServerSelector(lambda chance=chance: chance, in_order(["a", "b"]))  # type: ignore[misc]
        now, pauses = 0.0, []
        for _ in range(12):
            choice.failed(way("a"), now, "refused")
            assert taken(choice, now) == "b"
            following = choice.next(now, [way("b")])
            assert following is not None and following.way == way("a")
            pauses.append(following.seconds)
            now += following.seconds
        assert pauses[0] == pytest.approx(limits.BACK_OFF_SECONDS_MIN * part, rel=1e-3)
        assert pauses[1:4] == pytest.approx([2 * pauses[0], 4 * pauses[0], 8 * pauses[0]])
        assert pauses[-1] == pytest.approx(limits.BACK_OFF_SECONDS_MAX * part, rel=1e-3)
        choice.worked(way("a"))
        assert taken(choice, now) == "a"


def test_when_all_rest_the_one_that_has_rested_longest_is_next() -> None:
    """Also if another one is preferred: any server will do."""
    choice = ServerSelector(middling, in_order(["a", "b"]))
    for _ in range(5):
        choice.failed(way("a"), 0.0, "refused")
    choice.failed(way("b"), 0.0, "refused")
    following = choice.next(0.0)
    assert following is not None and following.way == way("b") and following.seconds == pytest.approx(0.15)


def test_a_server_that_asks_for_patience_is_not_dialled_before() -> None:
    """Many servers, 2: "A host MUST NOT come back to an address sooner than `retry_after_seconds` after the end of the
    session there, and SHOULD wait up to half as long again. It need not believe more than 300 seconds."
    """
    waits = []
    random = Random(1)
    for _ in range(HOSTS):
        choice = ServerSelector(random.random, in_order(["a"]))
        choice.retry_after(way("a"), 100.0, 20.0)
        following = choice.next(100.0)
        assert following is not None
        waits.append(following.seconds)
    assert min(waits) >= 20.0 and max(waits) <= 30.0 and max(waits) - min(waits) > 9.0
    choice = ServerSelector(lambda: 0.0, in_order(["a"]))
    choice.retry_after(way("a"), 0.0, 1e9)
    following = choice.next(0.0)
    assert following is not None and following.seconds == limits.RETRY_AFTER_SECONDS_MAX
    choice.reset_backoff()
    assert taken(choice) == ""


def test_equal_ways_share_by_their_weights() -> None:
    """RFC 2782: a target is chosen as often as its weight says; one of weight 0 hardly ever while there are others."""
    random = Random(2)
    chosen: Counter[str] = Counter()
    for _ in range(HOSTS):
        chosen[taken(ServerSelector(random.random, equal("a", "b", "c", weights=(60, 40, 0))))] += 1
    assert 550 < chosen["a"] < 650 and 350 < chosen["b"] < 450 and chosen["c"] < 5
    chosen = Counter(taken(ServerSelector(random.random, equal("a", "b", weights=(0, 0)))) for _ in range(HOSTS))
    assert 450 < chosen["a"] < 550


def test_a_smaller_priority_goes_before_any_weight() -> None:
    """RFC 2782: the others are for when those of the smallest priority cannot be reached."""
    offers = [Candidate(way("a"), (0, 10), 1), Candidate(way("b"), (0, 20), 65535), Candidate(way("c"), (0, 10), 0)]
    choice = ServerSelector(Random(3).random, offers)
    assert {taken(choice) for _ in range(100)} <= {"a", "c"}
    choice.failed(way("a"), 0.0, "refused")
    choice.failed(way("c"), 0.0, "refused")
    assert taken(choice) == "b"


def test_a_thousand_hosts_of_a_dead_server_spread() -> None:
    """Many servers, 3: "A host whose session has ended SHOULD go to another server at a random moment within a second.
    A thousand hosts of one server MUST NOT all come to the next in one moment."
    """
    random = Random(4)
    arrivals: Counter[tuple[str, int]] = Counter()
    for _ in range(HOSTS):
        choice = ServerSelector(random.random, equal("a", "b", "c"))
        choice.worked(way("a"))
        choice.lost(50.0, worked=True)
        choice.failed(way("a"), 50.0, "the connection was lost")
        following = choice.next(50.0)
        assert following is not None and 0 <= following.seconds < limits.JUMP_SECONDS
        arrivals[following.way.address, int(following.seconds * 10)] += 1
    to = Counter({name: sum(n for (at, _), n in arrivals.items() if at == name) for name in "abc"})
    assert to["b"] > 250 and to["c"] > 250
    # In no tenth of a second come more than twice as many as on average.
    count = round(limits.JUMP_SECONDS * 10)
    tenths = Counter({tenth: sum(n for (_, at), n in arrivals.items() if at == tenth) for tenth in range(count)})
    assert max(tenths.values()) < 2 * HOSTS / count and min(tenths.values()) > HOSTS / count / 2


def test_a_thousand_hosts_go_back_over_ten_minutes() -> None:
    """Many servers, 6: "A host that has a session with a server which it does not prefer SHOULD go back to one that it
    prefers only after some random time, of minutes rather than seconds".
    """
    random = Random(5)
    times = sorted(ServerSelector(random.random).return_seconds() for _ in range(HOSTS))
    assert times[0] >= limits.RETURN_SECONDS_MIN and times[-1] < limits.RETURN_SECONDS_MAX
    # The busiest ten seconds see fewer than a twentieth of the hosts.
    busiest = max(sum(at <= other < at + 10 for other in times) for at in times)
    assert busiest < HOSTS / 20


def test_only_a_preferred_way_that_may_work_is_gone_back_to() -> None:
    """Not one of the same rank, not one that rests, not from a session that a server dialled."""
    choice = ServerSelector(middling, [*in_order(["a", "b"]), Candidate(way("b2"), (1,))])
    assert choice.better(way("b"), 0.0) == way("a")
    assert choice.better(way("a"), 0.0) is None and choice.better(way("b2"), 0.0) == way("a")
    choice.failed(way("a"), 0.0, "refused")
    assert choice.better(way("b"), 0.0) is None and choice.better(way("b"), 1.0) == way("a")
    assert choice.better(None, 0.0) is None and choice.better(way("unknown"), 0.0) is None


def test_hosts_go_where_a_server_sends_them() -> None:
    """Many servers, 5: "The names in `instead` of a `goodbye` are preferred to all others for some time, one as good as
    another."
    """
    random = Random(6)
    chosen: Counter[str] = Counter()
    for _ in range(HOSTS):
        choice = ServerSelector(random.random, in_order(["a", "b", "c", "d"]))
        choice.redirected([("c", SERVER_PORT), ("new", 99)], 0.0)
        chosen[taken(choice)] += 1
    assert set(chosen) == {"c", "new"} and 450 < chosen["c"] < 550
    assert choice.source(ServerAddress("new", "new", 99)) == "steered"
    # After a while the order is what it was, and what a server has proposed comes last.
    later = limits.STEERED_SECONDS + 1
    assert taken(choice, later) == "a"
    assert taken(choice, later, *map(way, "abcd")) == "new"
    assert choice.better(way("c"), later) is not None and choice.better(way("c"), 0.0) is None


def test_a_server_known_at_several_addresses_is_steered_to_at_all_of_them() -> None:
    """By its name: how it is reached is better known here."""
    offers = [
        Candidate(way("a"), (0,)),
        Candidate(way("b", "10.0.0.2"), (1, 0)),
        Candidate(way("b", "10.1.0.2"), (1, 1)),
    ]
    choice = ServerSelector(middling, offers)
    choice.redirected([("b", SERVER_PORT)], 0.0)
    assert len(choice.ways) == 3 and taken(choice) == "10.1.0.2"
    choice.failed(way("b", "10.1.0.2"), 0.0, "no answer")
    assert taken(choice) == "10.0.0.2"
    choice.redirected([("a", SERVER_PORT)], 1.0)
    assert taken(choice, 1.0) == "a"


def test_what_is_proposed_does_not_touch_what_is_configured() -> None:
    """Announcements, 3: "It MUST prefer every server that it is configured with." One that is both stays configured."""
    choice = ServerSelector(middling, in_order(["a", "b"]))
    choice.offer(
        "announcements", [Candidate(w, (limits.ANNOUNCED_RANK,), source="announced") for w in (way("z"), way("b"))]
    )
    assert choice.source(way("b")) == "configured" and choice.source(way("z")) == "announced"
    assert taken(choice) == "a" and taken(choice, 0.0, way("a")) == "b"
    assert taken(choice, 0.0, way("a"), way("b")) == "z"
    choice.offer("announcements", [])
    assert choice.source(way("z")) is None and choice.source(way("b")) == "configured"


def test_how_a_way_has_fared_outlives_a_new_answer() -> None:
    """A name that is looked up again does not make a dead server fresh."""
    choice = ServerSelector(middling)
    choice.offer("dns", equal("a", "b"))
    choice.failed(way("a"), 0.0, "refused")
    choice.offer("dns", equal("b", "a", "c"))
    assert [(known.name, known.failures) for known in choice.known(0.0, None, ())] == [("b", 0), ("a", 1), ("c", 0)]


def test_ways_are_bounded_and_the_preferred_ones_stay() -> None:
    """At most so many are known, whatever is offered."""
    choice = ServerSelector(middling, in_order(f"s{n}" for n in range(limits.WAYS_MAX)))
    assert len(choice.ways) == limits.WAYS_MAX
    choice.offer("dns", [Candidate(way("best"), (-5,))])
    assert len(choice.ways) == limits.WAYS_MAX
    assert choice.source(way("best")) and choice.source(way(f"s{limits.WAYS_MAX - 1}")) is None


def test_a_proposal_that_never_worked_is_tried_less_and_less() -> None:
    """It may be somebody else's door: up to ten minutes; one that has worked is treated like any other."""
    stranger = Candidate(way("z"), (9,), source="announced")
    choice = ServerSelector(lambda: 0.999999, [stranger])
    for _ in range(20):
        choice.failed(way("z"), 0.0, "it is no server")
    following = choice.next(0.0)
    assert following is not None and following.seconds == pytest.approx(limits.DOUBTFUL_SECONDS_MAX, rel=1e-3)
    assert choice.doubtful(way("z")) and not choice.has_worked(way("z"))
    choice.worked(way("z"))
    choice.failed(way("z"), 0.0, "lost")
    assert choice.has_worked(way("z")) and not choice.doubtful(way("z"))


def test_there_is_hope_while_a_way_is_untried() -> None:
    """Whoever waits for a session waits on while there is, also while DNS is asked for the first time."""
    choice = ServerSelector(middling, in_order(["a", "b"]))
    choice.failed(way("a"), 0.0, "refused")
    assert choice.has_untried
    choice.failed(way("b"), 0.0, "refused")
    assert not choice.has_untried
    choice.expect("dns")
    assert choice.has_untried
    choice.offer("dns", [])
    assert not choice.has_untried
    # After a session that worked, what failed long ago counts as untried; after one that did not, nothing changes.
    choice.lost(0.01, worked=True)
    assert not choice.has_untried
    choice.lost(60.0, worked=False)
    assert not choice.has_untried
    choice.lost(60.0, worked=True)
    assert choice.has_untried


def test_an_operator_sees_how_each_way_fares() -> None:
    """Name, endpoint, source, state, when it is tried next, and the last error; the preferred first."""
    choice = ServerSelector(
        middling, [*in_order(["a", "b", "c"]), Candidate(way("d", "2001:db8::4"), (3,)), Candidate(way("e"), (4,))]
    )
    choice.failed(way("b"), 10.0, "connection refused")
    choice.retry_after(way("c"), 10.0, 20.0)
    shown = {known.name: known for known in choice.known(10.0, way("a"), [way("e")])}
    assert list(shown) == ["a", "b", "c", "d", "e"]
    assert [known.state for known in shown.values()] == ["open", "backing-off", "asked-to-wait", "ready", "connecting"]
    assert shown["b"].problem == "connection refused" and shown["b"].next_try_seconds == pytest.approx(0.15)
    assert shown["c"].next_try_seconds == pytest.approx(25.0)
    assert shown["d"].endpoint == "[2001:db8::4]:4863" and shown["d"].next_try_seconds == 0.0
    choice.redirected([("e", SERVER_PORT)], 10.0)
    assert [known.name for known in choice.known(10.0, None, ()) if known.steered] == ["e"]


def test_what_is_not_known_any_more_changes_nothing() -> None:
    """A session may outlast what DNS says of its server."""
    choice = ServerSelector(middling, in_order(["a"]))
    gone = way("gone")
    choice.worked(gone)
    choice.failed(gone, 0.0, "lost")
    choice.retry_after(gone, 0.0, 5.0)
    assert not choice.doubtful(gone) and not choice.has_worked(gone) and not choice.prefers(way("a"), gone, 0.0)
    assert list(choice.ways) == [way("a")]

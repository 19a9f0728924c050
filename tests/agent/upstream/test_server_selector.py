"""Which way to a server a host takes, and when: as a pure rule, for one host and for a thousand."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from compass.agent.upstream import server_selector as limits
from compass.agent.upstream.server_selector import Candidate, ServerAddress, ServerSelector, in_order
from compass.model.names import SERVER_PORT

HOSTS = 1_000


def server(name: str, address: str = "") -> ServerAddress:
    return ServerAddress(name, address or name, SERVER_PORT)


def equal(*names: str, weights: tuple[int, ...] = ()) -> list[Candidate]:
    return [
        Candidate(server(name), (0,), weight) for name, weight in zip(names, weights or [1] * len(names), strict=True)
    ]


def taken(selector: ServerSelector, now: float = 0.0, *without: ServerAddress) -> str:
    """The address of the way that is taken now; nothing when none is."""
    following = selector.next(now, without)
    return following.server.address if following is not None and following.seconds <= 0 else ""


def middling() -> float:
    return 0.5


def test_the_first_of_the_list_is_preferred() -> None:
    """Then the second, while the first is being tried or rests; with none left there is nothing to do."""
    selector = ServerSelector(middling, in_order(["a", "b"]))
    assert taken(selector) == "a"
    assert taken(selector, 0.0, server("a")) == "b"
    assert selector.next(0.0, [server("a"), server("b")]) is None
    selector.failed(server("a"), 0.0, "refused")
    assert taken(selector) == "b"
    assert ServerSelector(middling).next(0.0) is None


def test_each_way_rests_by_itself_twice_as_long_after_each_failure() -> None:
    """Choice of a server, 4: "A host MUST pause before it tries an address again that failed, twice as long after each
    failure, with randomness. Other addresses do not wait for that."
    """
    for chance, part in ((0.0, 0.5), (0.999999, 1.0)):
        selector = ServerSelector(lambda chance=chance: chance, in_order(["a", "b"]))  # type: ignore[misc]
        now, pauses = 0.0, []
        for _ in range(12):
            selector.failed(server("a"), now, "refused")
            assert taken(selector, now) == "b"
            following = selector.next(now, [server("b")])
            assert following is not None and following.server == server("a")
            pauses.append(following.seconds)
            now += following.seconds
        assert pauses[0] == pytest.approx(limits.BACK_OFF_SECONDS_MIN * part, rel=1e-3)
        assert pauses[1:4] == pytest.approx([2 * pauses[0], 4 * pauses[0], 8 * pauses[0]])
        assert pauses[-1] == pytest.approx(limits.BACK_OFF_SECONDS_MAX * part, rel=1e-3)
        selector.worked(server("a"))
        assert taken(selector, now) == "a"


def test_when_all_rest_the_one_that_has_rested_longest_is_next() -> None:
    """Also if another one is preferred: any server will do."""
    selector = ServerSelector(middling, in_order(["a", "b"]))
    for _ in range(5):
        selector.failed(server("a"), 0.0, "refused")
    selector.failed(server("b"), 0.0, "refused")
    following = selector.next(0.0)
    assert following is not None and following.server == server("b") and following.seconds == pytest.approx(0.15)


def test_a_server_that_asks_for_patience_is_not_dialled_before() -> None:
    """Choice of a server, 2: "A host MUST NOT come back to an address sooner than `retry_after_seconds` after the end
    of the session there, and SHOULD wait up to half as long again. It need not believe more than 300 seconds."
    """
    waits = []
    random = Random(1)
    for _ in range(HOSTS):
        selector = ServerSelector(random.random, in_order(["a"]))
        selector.retry_after(server("a"), 100.0, 20.0)
        following = selector.next(100.0)
        assert following is not None
        waits.append(following.seconds)
    assert min(waits) >= 20.0 and max(waits) <= 30.0 and max(waits) - min(waits) > 9.0
    selector = ServerSelector(lambda: 0.0, in_order(["a"]))
    selector.retry_after(server("a"), 0.0, 1e9)
    following = selector.next(0.0)
    assert following is not None and following.seconds == limits.RETRY_AFTER_SECONDS_MAX
    selector.reset_backoff()
    assert taken(selector) == ""


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
    candidates = [
        Candidate(server("a"), (0, 10), 1),
        Candidate(server("b"), (0, 20), 65535),
        Candidate(server("c"), (0, 10), 0),
    ]
    selector = ServerSelector(Random(3).random, candidates)
    assert {taken(selector) for _ in range(100)} <= {"a", "c"}
    selector.failed(server("a"), 0.0, "refused")
    selector.failed(server("c"), 0.0, "refused")
    assert taken(selector) == "b"


def test_a_thousand_hosts_of_a_dead_server_spread() -> None:
    """Choice of a server, 3: "A host whose session has ended SHOULD go to another server at a random moment within a
    second. A thousand hosts of one server MUST NOT all come to the next in one moment."
    """
    random = Random(4)
    arrivals: Counter[tuple[str, int]] = Counter()
    for _ in range(HOSTS):
        selector = ServerSelector(random.random, equal("a", "b", "c"))
        selector.worked(server("a"))
        selector.lost(50.0, worked=True)
        selector.failed(server("a"), 50.0, "the connection was lost")
        following = selector.next(50.0)
        assert following is not None and 0 <= following.seconds < limits.JUMP_SECONDS
        arrivals[following.server.address, int(following.seconds * 10)] += 1
    to = Counter({name: sum(n for (at, _), n in arrivals.items() if at == name) for name in "abc"})
    assert to["b"] > 250 and to["c"] > 250
    # In no tenth of a second come more than twice as many as on average.
    count = round(limits.JUMP_SECONDS * 10)
    tenths = Counter({tenth: sum(n for (_, at), n in arrivals.items() if at == tenth) for tenth in range(count)})
    assert max(tenths.values()) < 2 * HOSTS / count and min(tenths.values()) > HOSTS / count / 2


def test_a_thousand_hosts_go_back_over_ten_minutes() -> None:
    """Choice of a server, 6: "A host that has a session with a server which it does not prefer SHOULD go back to one
    that it prefers only after some random time, of minutes rather than seconds".
    """
    random = Random(5)
    times = sorted(ServerSelector(random.random).return_seconds() for _ in range(HOSTS))
    assert times[0] >= limits.RETURN_SECONDS_MIN and times[-1] < limits.RETURN_SECONDS_MAX
    # The busiest ten seconds see fewer than a twentieth of the hosts.
    busiest = max(sum(at <= other < at + 10 for other in times) for at in times)
    assert busiest < HOSTS / 20


def test_only_a_preferred_way_that_may_work_is_gone_back_to() -> None:
    """Not one of the same rank, not one that rests, not from a session that a server dialled."""
    selector = ServerSelector(middling, [*in_order(["a", "b"]), Candidate(server("b2"), (1,))])
    assert selector.better(server("b"), 0.0) == server("a")
    assert selector.better(server("a"), 0.0) is None and selector.better(server("b2"), 0.0) == server("a")
    selector.failed(server("a"), 0.0, "refused")
    assert selector.better(server("b"), 0.0) is None and selector.better(server("b"), 1.0) == server("a")
    assert selector.better(None, 0.0) is None and selector.better(server("unknown"), 0.0) is None


def test_hosts_go_where_a_server_sends_them() -> None:
    """Choice of a server, 5: "The names in `instead` of a `goodbye` are preferred to all others for some time, one as
    good as another."
    """
    random = Random(6)
    chosen: Counter[str] = Counter()
    for _ in range(HOSTS):
        selector = ServerSelector(random.random, in_order(["a", "b", "c", "d"]))
        selector.redirected([("c", SERVER_PORT), ("new", 99)], 0.0)
        chosen[taken(selector)] += 1
    assert set(chosen) == {"c", "new"} and 450 < chosen["c"] < 550
    assert selector.source(ServerAddress("new", "new", 99)) == "steered"
    # After a while the order is what it was, and what a server has proposed comes last.
    later = limits.STEERED_SECONDS + 1
    assert taken(selector, later) == "a"
    assert taken(selector, later, *map(server, "abcd")) == "new"
    assert selector.better(server("c"), later) is not None and selector.better(server("c"), 0.0) is None


def test_a_server_known_at_several_addresses_is_steered_to_at_all_of_them() -> None:
    """A redirection names a server; the selector uses each of the addresses that it knows for that name."""
    candidates = [
        Candidate(server("a"), (0,)),
        Candidate(server("b", "10.0.0.2"), (1, 0)),
        Candidate(server("b", "10.1.0.2"), (1, 1)),
    ]
    selector = ServerSelector(middling, candidates)
    selector.redirected([("b", SERVER_PORT)], 0.0)
    assert len(selector.servers) == 3 and taken(selector) == "10.1.0.2"
    selector.failed(server("b", "10.1.0.2"), 0.0, "no answer")
    assert taken(selector) == "10.0.0.2"
    selector.redirected([("a", SERVER_PORT)], 1.0)
    assert taken(selector, 1.0) == "a"


def test_what_is_proposed_does_not_touch_what_is_configured() -> None:
    """Announcements, 3: "It MUST prefer every server that it is configured with." One that is both stays configured."""
    selector = ServerSelector(middling, in_order(["a", "b"]))
    selector.update(
        "announcements",
        [Candidate(w, (limits.ANNOUNCED_RANK,), source="announced") for w in (server("z"), server("b"))],
    )
    assert selector.source(server("b")) == "configured" and selector.source(server("z")) == "announced"
    assert taken(selector) == "a" and taken(selector, 0.0, server("a")) == "b"
    assert taken(selector, 0.0, server("a"), server("b")) == "z"
    selector.update("announcements", [])
    assert selector.source(server("z")) is None and selector.source(server("b")) == "configured"


def test_how_a_way_has_fared_outlives_a_new_answer() -> None:
    """A name that is looked up again does not make a dead server fresh."""
    selector = ServerSelector(middling)
    selector.update("dns", equal("a", "b"))
    selector.failed(server("a"), 0.0, "refused")
    selector.update("dns", equal("b", "a", "c"))
    assert [(known.name, known.failures) for known in selector.known(0.0, None, ())] == [("b", 0), ("a", 1), ("c", 0)]


def test_ways_are_bounded_and_the_preferred_ones_stay() -> None:
    """The number of known servers is bounded, whatever is proposed."""
    selector = ServerSelector(middling, in_order(f"s{n}" for n in range(limits.WAYS_MAX)))
    assert len(selector.servers) == limits.WAYS_MAX
    selector.update("dns", [Candidate(server("best"), (-5,))])
    assert len(selector.servers) == limits.WAYS_MAX
    assert selector.source(server("best")) and selector.source(server(f"s{limits.WAYS_MAX - 1}")) is None


def test_a_proposal_that_never_worked_is_tried_less_and_less() -> None:
    """The pause grows to ten minutes: another program may listen there; a server that worked is not doubtful."""
    stranger = Candidate(server("z"), (9,), source="announced")
    selector = ServerSelector(lambda: 0.999999, [stranger])
    for _ in range(20):
        selector.failed(server("z"), 0.0, "it is no server")
    following = selector.next(0.0)
    assert following is not None and following.seconds == pytest.approx(limits.DOUBTFUL_SECONDS_MAX, rel=1e-3)
    assert selector.doubtful(server("z")) and not selector.has_worked(server("z"))
    selector.worked(server("z"))
    selector.failed(server("z"), 0.0, "lost")
    assert selector.has_worked(server("z")) and not selector.doubtful(server("z"))


def test_there_is_hope_while_a_way_is_untried() -> None:
    """A request waits for a session while there is a server to try, also during the first DNS query."""
    selector = ServerSelector(middling, in_order(["a", "b"]))
    selector.failed(server("a"), 0.0, "refused")
    assert selector.has_untried
    selector.failed(server("b"), 0.0, "refused")
    assert not selector.has_untried
    selector.expect("dns")
    assert selector.has_untried
    selector.update("dns", [])
    assert not selector.has_untried
    # After a session that worked, what failed long ago counts as untried; after one that did not, nothing changes.
    selector.lost(0.01, worked=True)
    assert not selector.has_untried
    selector.lost(60.0, worked=False)
    assert not selector.has_untried
    selector.lost(60.0, worked=True)
    assert selector.has_untried


def test_an_operator_sees_how_each_way_fares() -> None:
    """Name, endpoint, source, state, when it is tried next, and the last error; the preferred first."""
    selector = ServerSelector(
        middling,
        [*in_order(["a", "b", "c"]), Candidate(server("d", "2001:db8::4"), (3,)), Candidate(server("e"), (4,))],
    )
    selector.failed(server("b"), 10.0, "connection refused")
    selector.retry_after(server("c"), 10.0, 20.0)
    shown = {known.name: known for known in selector.known(10.0, server("a"), [server("e")])}
    assert list(shown) == ["a", "b", "c", "d", "e"]
    assert [known.state for known in shown.values()] == ["open", "backing-off", "asked-to-wait", "ready", "connecting"]
    assert shown["b"].problem == "connection refused" and shown["b"].next_try_seconds == pytest.approx(0.15)
    assert shown["c"].next_try_seconds == pytest.approx(25.0)
    assert shown["d"].endpoint == "[2001:db8::4]:4863" and shown["d"].next_try_seconds == 0.0
    selector.redirected([("e", SERVER_PORT)], 10.0)
    assert [known.name for known in selector.known(10.0, None, ()) if known.steered] == ["e"]


def test_what_is_not_known_any_more_changes_nothing() -> None:
    """A session may outlast what DNS says of its server."""
    selector = ServerSelector(middling, in_order(["a"]))
    gone = server("gone")
    selector.worked(gone)
    selector.failed(gone, 0.0, "lost")
    selector.retry_after(gone, 0.0, 5.0)
    assert (
        not selector.doubtful(gone) and not selector.has_worked(gone) and not selector.prefers(server("a"), gone, 0.0)
    )
    assert list(selector.servers) == [server("a")]

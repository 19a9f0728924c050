"""Ownership among the servers of a store: every server computes the same owner from the heartbeats."""

from __future__ import annotations

import pytest

from compass.model.cluster import SILENT_BEATS, ClusterView, Heartbeat, HeartbeatResult, PeerState, Presence, rendezvous
from compass.model.replies import HostLag
from compass.model.rows import Listener

HOSTS = [f"web{number}.example" for number in range(400)]


def line(id: str, *, able: bool = True, held: int = 7, behind: tuple[HostLag, ...] = ()) -> Heartbeat:
    return Heartbeat(id, f"{id}.example", "test", 1.0, 7, 3, 2, able, held, behind)


class Meeting:
    """Servers that hear each other's beats."""

    def __init__(self, *ids: str) -> None:
        self.beats = dict.fromkeys(ids, 1)
        self.able = dict.fromkeys(ids, True)
        self.one = ClusterView(ids[0])
        self.one.can_judge = True

    def hear(self, *presences: Presence, silent: tuple[str, ...] = (), beat: bool = True) -> object:
        """A beat of the first one; all but the silent ones have moved since the last."""
        for id in self.beats.keys() - set(silent):
            self.beats[id] += 1
        lines = tuple(PeerState(line(id, able=self.able[id]), beats, 0, 0.0) for id, beats in self.beats.items())
        return self.one.update(HeartbeatResult(lines, presences), beat=beat)


def test_a_subject_falls_to_the_same_server_wherever_one_asks() -> None:
    """Whatever the order in which the servers are known; and each has its share."""
    servers = ["a", "b", "c"]
    chosen = [rendezvous(host, servers) for host in HOSTS]
    assert chosen == [rendezvous(host, reversed(servers)) for host in HOSTS]
    assert all(80 < chosen.count(server) < 190 for server in servers)


def test_when_a_server_goes_only_what_it_had_moves() -> None:
    """The death of a server changes only the owner of its own subjects."""
    before = {host: rendezvous(host, ["a", "b", "c"]) for host in HOSTS}
    after = {host: rendezvous(host, ["a", "b"]) for host in HOSTS}
    assert all(after[host] == server for host, server in before.items() if server != "c")


def test_a_server_alone_keeps_everything() -> None:
    """A server that is alone owns everything, even without hosts and if it distrusts its own probes."""
    alone = ClusterView("a")
    assert alone.owns_host("web1") and alone.owns(Listener("s.c", "192.0.2.1", 1, "up", 1.0, 1))
    alone.update(HeartbeatResult((PeerState(line("a", able=False), 1, 0, 0.0),), ()), beat=True)
    assert alone.owns_host("web1") and alone.role("a") == "keeper"


@pytest.mark.parametrize("state", ["here", "left", "lost"])
def test_the_server_that_has_or_had_a_host_keeps_it(state: str) -> None:
    """Wherever the hash would put it."""
    meeting = Meeting("a", "b", "c")
    for host in HOSTS[:20]:
        meeting.hear(Presence(host, "b", state))  # type: ignore[arg-type]
        assert not meeting.one.owns_host(host)
        meeting.one.host_connected(host)
        assert meeting.one.owns_host(host)
        assert meeting.one.owns(Listener("s.c", "192.0.2.1", 1, "suspect", 1.0, 1, host))


def test_a_bystander_keeps_nothing_while_another_can() -> None:
    """A server that cannot judge others owns nothing: its own connection may be cut."""
    meeting = Meeting("a", "b")
    meeting.hear(Presence("web1", "b", "lost"))
    assert not meeting.one.owns_host("web1")
    meeting.able["b"] = False
    meeting.hear()
    assert meeting.one.role("b") == "bystander" and meeting.one.owns_host("web1")
    meeting.one.can_judge = False
    meeting.hear()
    assert meeting.one.role("b") == "keeper" and not meeting.one.owns_host("web1")


@pytest.mark.parametrize("silent", [SILENT_BEATS - 1, SILENT_BEATS])
def test_a_server_is_silent_after_so_many_of_our_own_beats(silent: int) -> None:
    """At n - 1 it lives, at n it is gone, and what it had is without a server; a look in between does not count."""
    meeting = Meeting("a", "b")
    meeting.hear(Presence("web1", "b", "here"))
    for _ in range(50):
        meeting.hear(silent=("b",), beat=False)
    for _ in range(silent):
        meeting.hear(silent=("b",))
    gone = silent == SILENT_BEATS
    assert meeting.one.is_alive("b") is not gone
    assert meeting.one.present_elsewhere("web1") is not gone
    assert meeting.one.owns_host("web1") is gone
    meeting.hear()
    assert meeting.one.present_elsewhere("web1")


def test_a_host_that_is_elsewhere_by_now_is_not_told_to_have_gone() -> None:
    """The end of a session here after its begin at another server does not change the host's presence."""
    meeting = Meeting("a", "b")
    meeting.one.host_connected("web1")
    meeting.hear(Presence("web1", "b", "here"))
    assert meeting.one.host_disconnected("web1", "lost", 3) is None
    meeting.one.host_connected("web2")
    assert meeting.one.host_disconnected("web2", "left", 3) == Presence("web2", "a", "left", 3)


def test_hosts_of_another_server_hold_what_that_said() -> None:
    """All of them everything, but for those that it names; of a silent one, what they held when it was not (P12)."""
    one = ClusterView("a")
    behind = (HostLag("web2", True, 5, 2),)
    roll = HeartbeatResult(
        (PeerState(line("b", behind=behind), 1, 2, 0.0),),
        (Presence("web1", "b", "here"), Presence("web2", "b", "here")),
    )
    one.update(roll, beat=True)
    assert one.lag_of("web1") == HostLag("web1", True, 7, 0, "ok", "b.example")
    assert one.lag_of("web2") == HostLag("web2", True, 5, 2, "ok", "b.example")
    assert one.lag_of("web3") is None
    for _ in range(SILENT_BEATS):
        one.update(msg_without_news(roll), beat=True)
    assert one.lag_of("web1") == HostLag("web1", False, 7, 0, "unknown", "b.example")


def test_of_too_many_that_are_behind_nothing_is_said() -> None:
    """A server that could not name all says nothing of the rest, rather than something wrong."""
    one = ClusterView("a")
    one.update(
        HeartbeatResult((PeerState(line("b", held=-1), 1, 1, 0.0),), (Presence("web1", "b", "here"),)), beat=True
    )
    assert one.lag_of("web1") == HostLag("web1", True, 0, 0, "unknown", "b.example")


def msg_without_news(roll: HeartbeatResult) -> HeartbeatResult:
    return HeartbeatResult(roll.lines, ())

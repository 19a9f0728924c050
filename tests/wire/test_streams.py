"""Large messages in pieces: the same message as encoded at once, of one revision."""

from __future__ import annotations

from immutables import Map

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.interest import dependencies_of, interest, snapshot, view_octets
from compass.model.replies import Dependencies, Watching
from compass.model.rows import Category, Change, Dependency, Listener, Policy, Row, Service, State
from compass.wire.messages import Resync, decode_from_server, encode
from compass.wire.streams import PIECE_ROWS, dependencies_pieces, resync_pieces, watching_pieces

STATES: tuple[State, ...] = ("up", "offline", "down", "draining")


def catalogue(listeners: int = 300) -> Catalogue:
    """Two services of one category, a backup of another one, and something that no category depends on."""
    rows: list[Row] = [Category("web"), Dependency("web", "uss"), Dependency("web", "none"), Dependency("web", "web")]
    rows += [Category("uss", "spare.help", Policy(pool="least-used", pools={"a": "priority"}, locality="zone"))]
    rows += [Category("help"), Service("a.uss"), Service("b.uss"), Service("spare.help"), Service("other.help")]
    rows += [Service("portal.web")]
    for number in range(listeners):
        service = ("a.uss", "b.uss", "spare.help", "other.help", "portal.web")[number % 5]
        state = STATES[number % 4]
        address = f"10.0.{number // 250}.{number % 250 + 1}"
        rows.append(Listener(service, address, 80, state, 5.0, number, metadata={"k": "é" * number}))
    topics = {row.name if isinstance(row, Category) else "a.uss": 9 for row in rows if isinstance(row, Category)}
    return catalogue_of(rows, topics, 41)


def sorted_rows(message: Watching | Resync) -> Watching | Resync:
    assert message.snapshot is not None
    message.snapshot.rows.sort(key=repr)
    return message


def test_a_snapshot_in_pieces_is_the_snapshot() -> None:
    """Each row once, the offline ones left out, the count in front of them right."""
    held = catalogue()
    for services in (["portal.web"], ["x.uss"], ["a.nothing"], ["portal.web", "spare.help", "x.uss"]):
        topics = interest(held, services)
        whole = snapshot(held, topics)
        watching = b"".join(watching_pieces("store", held, topics, ("gone.web",)))
        expected = Watching("store", 41, whole, ("gone.web",))
        read = decode_from_server(watching)
        assert isinstance(read, Watching)
        assert sorted_rows(read) == sorted_rows(expected)
        resync = decode_from_server(b"".join(resync_pieces(held, topics)))
        assert isinstance(resync, Resync)
        assert sorted_rows(resync) == sorted_rows(Resync(whole))


def test_a_pull_in_pieces_is_the_pull() -> None:
    """The pull has pools, backups and services without listeners."""
    held = catalogue()
    for service in ("portal.web", "a.uss", "a.nothing"):
        read = decode_from_server(b"".join(dependencies_pieces(held, service)))
        assert isinstance(read, Dependencies)
        assert read == dependencies_of(held, service)


def test_the_pieces_are_of_the_revision_at_which_they_began() -> None:
    """Changes meanwhile do not tear the view (P5), and pieces stay small."""
    held = catalogue(2000)
    topics = interest(held, ["portal.web"])
    before = sorted_rows(Resync(snapshot(held, topics)))
    pieces = resync_pieces(held, topics)
    made = [next(pieces) for _ in range(5)]
    row = Listener("a.uss", "10.9.9.9", 80, "up", 5.0, 1)
    held = held.apply(Change(42, 9, 5.0, "register", row))
    made += pieces
    read = decode_from_server(b"".join(made))
    assert isinstance(read, Resync) and sorted_rows(read) == before
    assert max(map(len, made)) <= PIECE_ROWS * 5000


def test_the_estimate_of_a_view_covers_its_octets() -> None:
    """The server counts no less than it sends, so that no view is beyond the bound of a client by surprise."""
    held = catalogue(2000)
    topics = interest(held, ["portal.web"])
    assert len(encode(Resync(snapshot(held, topics)))) <= view_octets(held, topics)


def test_an_empty_catalogue_has_pieces_too() -> None:
    read = decode_from_server(b"".join(resync_pieces(Catalogue(), ["a.b", "c"])))
    assert isinstance(read, Resync)
    assert (read.snapshot.topics, read.snapshot.rows, read.snapshot.revision) == ({"a.b": 0, "c": 0}, [], 0)
    assert Catalogue().octets == Map()

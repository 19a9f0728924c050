"""Join tokens in the store, on both engines: used once, whichever server asks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from compass.model.limits import LOG_OCTETS_MAX
from compass.model.rows import AdministrationEntry, Invitation, SecurityEntry
from compass.store.statements import INVITATION_KEPT_SECONDS
from compass.store.store import Store

TOKEN = Invitation("9f86d081884c", "9f86d081884c" + "0" * 52, "web1", ("192.0.2.7",), 1000.0, "alice", 2000.0)


def invite(store: Store, token: Invitation = TOKEN) -> None:
    """Store a token with its entry of the administration log."""
    store.invite(token, AdministrationEntry(0, token.created_at, "invite", "{}", "o", "alice", "done", 0))


def entry(time: float) -> SecurityEntry:
    return SecurityEntry(0, time, "join", "web1", "{}", "192.0.2.7", "alice", "joined")


def test_a_token_is_used_once_with_an_entry(store: Store) -> None:
    """The second use writes nothing, and the token says when and from where it was used."""
    invite(store)
    assert store.invitation(TOKEN.id) == TOKEN
    assert store.join(TOKEN.id, entry(1500.0))
    assert not store.join(TOKEN.id, entry(1600.0))
    assert store.invitation(TOKEN.id) == msgspec.structs.replace(TOKEN, used_at=1500.0, used_from="192.0.2.7")
    for log in ("security", "administration"):
        entries, _ = store.read_log(log, 0, 10, 0, LOG_OCTETS_MAX)
        assert len(entries) == 1, log


def test_a_token_ends_at_its_time(store: Store) -> None:
    """A moment before it is accepted, at its time it is not; an unknown one never."""
    invite(store)
    assert not store.join(TOKEN.id, entry(2000.0))
    assert not store.join("unknown", entry(1500.0)) and store.invitation("unknown") is None
    assert store.join(TOKEN.id, entry(1999.9))


def test_of_several_servers_one_uses_it(url: str, open_store: Callable[[str], Store]) -> None:
    """The servers use it at the same moment, each with its own connection."""
    stores = [open_store(url) for _ in range(4)]
    for number in range(5):
        token = msgspec.structs.replace(TOKEN, id=f"token{number}")
        invite(stores[0], token)
        with ThreadPoolExecutor(4) as pool:
            used = list(pool.map(lambda store, id=token.id: store.join(id, entry(1500.0)), stores))
        assert sum(used) == 1


def test_a_token_is_forgotten_some_time_after_its_end(store: Store) -> None:
    """The next invitation removes it; until then its use is refused with the reason."""
    invite(store)
    at_bound = msgspec.structs.replace(TOKEN, id="b", created_at=TOKEN.expires_at + INVITATION_KEPT_SECONDS)
    invite(store, at_bound)
    assert store.invitation(TOKEN.id) is not None
    invite(store, msgspec.structs.replace(at_bound, id="c", created_at=at_bound.created_at + 1))
    assert store.invitation(TOKEN.id) is None

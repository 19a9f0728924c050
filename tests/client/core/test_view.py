"""Views: changes by the daemon's events, and by failures here; without a daemon."""

from __future__ import annotations

import msgspec
import pytest

from compass.client.core import view as module
from compass.client.core.view import AVOID_SECONDS, FailedListeners, View, view_of
from compass.model.catalogue.catalogue import Catalogue
from compass.model.host_api import LocalEvent, Resolved
from compass.model.replies import CategoryView, Dependencies, Refusal, ServiceView
from compass.model.rows import Category, Change, Listener
from compass.model.selection.policies import Location
from compass.model.selection.selector import Selector

NEAR = Listener("a.store", "192.0.2.1", 1, "up", 1.0, 1, host="here")
FAR = Listener("a.store", "192.0.2.2", 1, "up", 1.0, 1, host="there")
SPARE = Listener("spare.rescue", "192.0.2.9", 1, "up", 1.0, 1)
TOLD = Dependencies(
    "portal.web",
    7,
    (
        CategoryView(
            "store",
            (ServiceView("a.store", (NEAR, FAR)), ServiceView("b.store")),
            "spare.rescue",
            (SPARE,),
            "round-robin",
            {"b": "random"},
            "host",
        ),
    ),
)


def resolved(
    view: View, name: str, failed: FailedListeners | None = None, now: float = 0.0, host: str = ""
) -> Resolved:
    """The answer, which must be none of the refusals."""
    answer = view.resolve(name, Selector(lambda: 0.5, Location(host)), failed or FailedListeners(), now)
    assert isinstance(answer, Resolved), answer
    return answer


def refused(view: View, name: str) -> str:
    """The code of the refusal."""
    answer = view.resolve(name, Selector(lambda: 0.5), FailedListeners(), 0.0)
    assert isinstance(answer, Refusal), answer
    return answer.code


def change(row: Listener, revision: int = 8) -> LocalEvent:
    """An event that changes one row."""
    return LocalEvent("change", revision, Change(revision, 0, 2.0, "report", row))


def test_a_view_holds_its_snapshot() -> None:
    """The whole of a pull comes back out of it, the pool policies included."""
    assert view_of(TOLD).dependencies() == TOLD
    assert resolved(view_of(TOLD), "store").policy == "round-robin"
    assert resolved(view_of(TOLD), "b.store").policy == "random"
    for host, first in (("here", NEAR), ("there", FAR)):
        assert resolved(view_of(TOLD), "a.store", host=host).listeners[0] == first


def test_names_are_refused_as_the_daemon_refuses_them() -> None:
    """P5: what is not depended on, what does not exist, and what has no listener are three answers."""
    view = view_of(TOLD)
    assert refused(view, "elsewhere") == refused(view, "c.elsewhere") == "unknown-dependency"
    assert refused(view, "c.store") == "unknown-service"
    assert refused(view, "under_score") == "bad-name"
    assert resolved(view, "b.store").listeners == (SPARE,)
    assert resolved(view, "spare.rescue").listeners == (SPARE,)
    nothing = view_of(Dependencies("portal.web", 7, (CategoryView("store", (ServiceView("b.store"),)),)))
    assert (resolved(nothing, "store").source, resolved(nothing, "STORE").listeners) == ("none", ())


def test_events_make_the_next_view() -> None:
    """A listener that is down is left, one that is offline is forgotten, a snapshot replaces all."""
    view = view_of(TOLD).after(change(msgspec.structs.replace(NEAR, state="down")))
    assert (resolved(view, "a.store").listeners, view.revision) == ((FAR,), 8)
    view = view.after(change(msgspec.structs.replace(FAR, state="offline"), 9))
    assert resolved(view, "a.store").source == "backup"
    assert view.catalogue.listener("a.store", FAR.address, FAR.port) is None
    shape = LocalEvent("change", 10, Change(10, 9, 2.0, "put", Category("store")))
    assert view.after(shape) is view
    assert view.after(LocalEvent("snapshot", 11, TOLD)).dependencies() == TOLD


def test_a_listener_that_failed_here_is_used_last_until_something_is_said_about_it() -> None:
    """A change of its row ends this, else AVOID_SECONDS do."""
    view, failed = view_of(TOLD), FailedListeners()
    failed.add(NEAR, 0.0)
    assert resolved(view, "a.store", failed, AVOID_SECONDS - 0.1).listeners == (FAR,)
    failed.add(FAR, 0.0)
    assert resolved(view, "a.store", failed).listeners == (SPARE,)
    again = view.after(change(msgspec.structs.replace(FAR, changed_at=2.0)))
    assert resolved(again, "a.store", failed).listeners == (msgspec.structs.replace(FAR, changed_at=2.0),)
    failed.remove(NEAR)
    assert len(resolved(again, "a.store", failed).listeners) == 2
    failed.add(NEAR, 0.0)
    assert len(resolved(again, "a.store", failed, AVOID_SECONDS).listeners) == 2


def test_the_avoided_listeners_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At AVOIDED_MAX all are avoided; one more, and the oldest is used again."""
    monkeypatch.setattr(module, "AVOIDED_MAX", 2)
    catalogue, failed = Catalogue(), FailedListeners()
    rows = [msgspec.structs.replace(NEAR, port=port) for port in (1, 2, 3)]
    for row in rows:
        catalogue = catalogue.with_row(row)

    def states() -> list[str]:
        over = failed.apply_to(catalogue, 1.0).listeners["a.store"]
        return [over[row.address, row.port].state for row in rows]

    for row in rows[:2]:
        failed.add(row, 0.0)
    assert states() == ["suspect", "suspect", "up"]
    failed.add(rows[2], 0.0)
    assert states() == ["up", "suspect", "suspect"]

"""The blocking client against a daemon that does as the test says: what it asks, when, and what failures lead to."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from compass import client
from compass.client.core.client import CoreClient
from compass.client.core.credential import CredentialProblem
from compass.client.core.errors import ApiProblem, refused
from compass.client.core.threads import ThreadRuntime, run_sync
from compass.model.replies import CODES, CategoryView, Dependencies, ServiceView
from compass.model.rows import Listener
from tests.support.fake_api import CREDENTIAL, SERVICE, LittleApi, outcome, refusal, wait_until

PEER = Listener(SERVICE, "127.0.0.1", 2028, "up", 1000.5, 7)
OTHER = Listener(SERVICE, "127.0.0.1", 2029, "up", 1000.5, 7)


def told(revision: int, *peers: Listener) -> bytes:
    """A snapshot event with these listeners."""
    view = Dependencies("portal.web", revision, (CategoryView("openuss", (ServiceView(SERVICE, peers),)),))
    return f"id: {revision}\nevent: snapshot\ndata: {msgspec.json.encode(view).decode()}\n\n".encode()


@pytest.fixture
def used(api: LittleApi) -> Iterator[client.Client]:
    """A client on behalf of portal.web, whose daemon watches."""
    api.answers["/v1/watch"] = (200, "stream")
    api.answers["/v1/status"] = refusal("not-ready", 503)
    with client.Client("portal.web", api.place, answer_seconds=10.0) as made:
        yield made


def ports(used: client.Client) -> list[int]:
    return sorted(peer.port for peer in used.resolve("openuss").listeners)


def test_lookups_ask_once_and_follow(api: LittleApi, used: client.Client) -> None:
    """All lookups share one watch; later events are in the next answers; after a closed connection, it resumes."""
    api.streams.put([told(5, PEER)])
    assert [ports(used) for _ in range(10)] == [[2028]] * 10
    api.wait_for("/v1/watch", 2)
    api.streams.put([told(6, PEER, OTHER)])
    wait_until(lambda: ports(used) == [2028, 2029])
    assert api.wait_for("/v1/watch", 3).headers["Last-Event-ID"] == "6"
    assert {path.split("?")[0] for path in api.paths()} == {"/v1/watch", "/v1/status"}
    assert used.dependencies().revision == 6
    api.streams.put([])


def test_a_watch_that_is_refused_later_ends_the_answers(api: LittleApi, used: client.Client) -> None:
    """The service was removed: the next lookup says so, rather than to answer from an old view for ever."""
    answers = [(200, "stream"), refusal("unknown-service", 404)]
    api.answers["/v1/watch"] = lambda asked: answers.pop(0) if len(answers) > 1 else answers[0]
    api.streams.put([told(5, PEER)])
    assert ports(used) == [2028]

    def gone() -> bool:
        try:
            return ports(used) == []
        except client.UnknownName:
            return True

    wait_until(gone)


def test_when_too_many_programs_watch_each_lookup_is_a_question(api: LittleApi, used: client.Client) -> None:
    """`busy` is no reason to leave a program without an answer, nor with an old one after a restart of the daemon."""
    api.answers["/v1/watch"] = refusal("busy", 503)
    found = {"name": "openuss", "revision": 5, "source": "service", "listeners": [msgspec.to_builtins(PEER)]}
    api.answers["/v1/resolve/openuss"] = (200, found)
    assert ports(used) == ports(used) == [2028]
    assert api.paths().count("/v1/resolve/openuss") == 2
    answers = [(200, "stream")]
    api.answers["/v1/watch"] = lambda asked: answers.pop(0) if answers else refusal("busy", 503)
    api.streams.put([told(5, OTHER)])
    assert ports(used) == [2029]
    wait_until(lambda: ports(used) == [2028])


def test_views_from_elsewhere_are_used_first(api: LittleApi) -> None:
    """If another source has the view, the daemon is not asked."""

    class Board:
        def view(self, service: str) -> client.View | None:
            shown = Dependencies(service, 9, (CategoryView("openuss", (ServiceView(SERVICE, (PEER,)),)),))
            return client.view_of(shown) if service == "portal.web" else None

    with client.Client("portal.web", api.place, views=Board()) as used:
        assert (ports(used), used.dependencies().revision) == ([2028], 9)
    assert api.asked == []


def test_a_failed_listener_is_reported_once_and_avoided(api: LittleApi, used: client.Client) -> None:
    """However often it is come across; the report names who found out and what happened."""
    api.answers["/v1/report"] = outcome("suspect")
    api.streams.put([told(5, PEER, OTHER)])

    def once(peer: Listener) -> int:
        if peer.port == PEER.port:
            raise ConnectionRefusedError("nobody home")
        return peer.port

    assert {used.attempt("openuss", once) for _ in range(30)} == {OTHER.port}
    report = api.wait_for("/v1/report").body
    assert report == {
        "service": SERVICE,
        "address": "127.0.0.1",
        "port": 2028,
        "reporter": "portal.web",
        "detail": "nobody home",
    }
    with pytest.raises(client.NoneAnswers):
        used.attempt("openuss", lambda peer: once(PEER))
    assert ports(used) == [2028, 2029]
    assert api.wait_for("/v1/report", 2).body["port"] == OTHER.port
    assert api.paths().count("/v1/report") == 2


def test_a_report_that_was_not_needed_is_no_news(
    api: LittleApi, used: client.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A listener that was deregistered or died needs no warning; any other failed report does."""

    def fail(peer: Listener) -> None:
        raise ConnectionResetError

    def listed(revision: int) -> bool:
        return used.resolve("openuss").listeners[0].epoch == revision

    for revision, code in ((5, "deregistered"), (6, "bad-value")):
        api.answers["/v1/report"] = refusal(code, 503)
        api.streams.put([told(revision, msgspec.structs.replace(PEER, epoch=revision))])
        wait_until(functools.partial(listed, revision))
        with pytest.raises(client.NoneAnswers):
            used.attempt("openuss", fail)
        api.wait_for("/v1/report", revision - 4)
    wait_until(lambda: "could not be reported: refusal: bad-value" in caplog.text)
    assert caplog.text.count("could not be reported") == 1


def test_a_registration_waits_for_a_daemon_that_is_being_restarted(api: LittleApi, used: client.Client) -> None:
    """The registration waits for `patience_seconds`; a wrong credential raises at once."""
    answers = [refusal("not-ready", 503), refusal("busy", 503), outcome()]
    api.answers["/v1/register"] = lambda asked: answers.pop(0)
    api.answers["/v1/deregister"] = outcome("offline")
    with used.register(SERVICE, 2028, credential=CREDENTIAL, zone="b", load=0.5) as registration:
        assert registration.outcome.epoch == 7
        api.answers["/v1/load"] = outcome()
        registration.report_load(0.75)
    expected = {"service": SERVICE, "port": 2028, "credential": CREDENTIAL}
    assert api.wait_for("/v1/register", 3).body == expected | {"pid": os.getpid(), "zone": "b", "load": 0.5}
    assert api.wait_for("/v1/load").body == expected | {"load": 0.75}
    assert api.wait_for("/v1/deregister").body == expected | {"epoch": 7}
    registration.end()
    assert api.paths().count("/v1/deregister") == 1
    api.answers["/v1/register"] = refusal("bad-credential")
    with pytest.raises(client.NotAllowed):
        used.register(SERVICE, 2028, credential="wrong")
    assert api.paths().count("/v1/register") == 4


def test_a_failure_at_the_end_is_logged_and_not_raised(
    api: LittleApi, used: client.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception of the block is not hidden by one of its end; that there is nothing to deregister is no news."""
    api.answers["/v1/register"] = outcome()
    for code, said in (("unreachable", True), ("deregistered", False)):
        api.answers["/v1/deregister"] = refusal(code, 503)
        caplog.clear()
        with pytest.raises(ZeroDivisionError), used.register(SERVICE, 2028, credential=CREDENTIAL):
            raise ZeroDivisionError
        assert ("could not be deregistered" in caplog.text) == said


def test_a_held_registration_that_is_refused_later_is_logged(
    api: LittleApi, used: client.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """If the credential was revoked during a restart of the daemon, a warning says so."""
    api.answers["/v1/register"] = (200, "stream")
    api.answers["/v1/deregister"] = refusal("unknown-listener", 404)
    api.streams.put([msgspec.json.encode(outcome()[1]) + b"\n"])
    with used.register(SERVICE, 2028, credential=CREDENTIAL, hold=True):
        api.answers["/v1/register"] = refusal("bad-credential")
        wait_until(lambda: "is not registered: refusal: bad-credential" in caplog.text)


def test_a_credential_is_found_where_it_is_said_to_be(
    used: client.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given, in a file, or where the environment says; else the problem says what to do."""
    monkeypatch.delenv("OPENGNS_CREDENTIAL", raising=False)
    monkeypatch.delenv("OPENGNS_CREDENTIAL_FILE", raising=False)
    with pytest.raises(CredentialProblem, match="opengnsadmin credential add SERVICE"):
        used.register(SERVICE, 2028)
    with pytest.raises(CredentialProblem, match="not both"):
        used.register(SERVICE, 2028, credential="T", credential_file=tmp_path)
    with pytest.raises(CredentialProblem, match="No such file"):
        used.register(SERVICE, 2028, credential_file=tmp_path / "none")


def test_every_refusal_is_an_exception_with_its_code() -> None:
    """Also one that a newer daemon invented."""
    for code in (*CODES, "invented-tomorrow"):
        problem = refused(code, "why", retry_after_seconds=2.0)
        assert isinstance(problem, ApiProblem)
        assert (problem.code, str(problem), problem.retry_after_seconds) == (code, "why", 2.0)
    kinds = {code: type(refused(code, "")) for code in CODES}
    assert kinds["not-ready"] is client.NotLoaded
    assert kinds["busy"] is client.Unavailable
    assert {kinds[f"unknown-{what}"] for what in ("category", "service", "dependency")} == {client.UnknownName}
    assert kinds["forbidden"] is kinds["bad-credential"] is client.NotAllowed


def test_a_child_restarts_watches_and_leaves_its_parents_registration_alone(
    api: LittleApi, used: client.Client
) -> None:
    """After a fork: the parent's connection is not the child's to read, and the child's end is not the parent's."""
    api.streams.put([told(5, PEER)])
    api.answers["/v1/register"], api.answers["/v1/deregister"] = outcome(), outcome("offline")
    assert ports(used) == [2028]
    registration = used.register(SERVICE, 2028, credential=CREDENTIAL)
    api.streams.put([told(6, OTHER)])
    wait_until(lambda: ports(used) == [2029])
    api.wait_for("/v1/watch", 3)
    api.streams.put([])
    api.wait_for("/v1/watch", 4)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            registration.end()
            # What the third and the fourth watch are given is not seen here; the fifth begins at the beginning.
            status = 0 if ports(used) == [2030] else 2
        finally:
            os._exit(status)
    for _ in range(2):
        api.streams.put([told(7, msgspec.structs.replace(PEER, port=2030))])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    wait_until(lambda: ports(used) == [2030])
    assert "/v1/deregister" not in api.paths()
    registration.end()


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    """Every name is importable, also lazily, and has a docstring; a misspelt name raises AttributeError."""
    assert set(client.__all__) <= set(dir(client))
    homes = [name for names in client._HOMES.values() for name in names]
    assert sorted(homes) == sorted(client.__all__)
    for name in client.__all__:
        assert getattr(client, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'resolv'"):
        client.resolv  # type: ignore[attr-defined]  # noqa: B018


def test_the_programs_own_functions(api: LittleApi) -> None:
    """`from compass import client`: one client for the whole program, which finds daemon and service by the
    environment; and nothing heavy is imported for it.
    """
    api.answers = {"/v1/watch": (200, "stream"), "/v1/status": refusal("not-ready"), "/v1/register": outcome()}
    api.answers["/v1/deregister"] = outcome("offline")
    api.streams.put([told(5, PEER)])
    script = """
import sys
from compass import client
with client.register("chinaserver.openuss", port=2028) as registration:
    print(registration.outcome.state, [peer.port for peer in client.resolve("openuss").listeners])
print([name for name in ("twisted", "asyncio", "sqlalchemy", "click") if name in sys.modules])
print(client.resolve.__doc__.split(";")[0])
"""
    environment = os.environ | {"OPENGNS_API": api.place, "OPENGNS_SERVICE": "portal.web"}
    environment["OPENGNS_CREDENTIAL"] = CREDENTIAL
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[:2] == ["up [2028]", "[]"], done.stderr
    assert "best first, at least one" in done.stdout
    assert api.wait_for("/v1/watch").path == "/v1/watch?service=portal.web"


def test_the_first_registered_service_is_the_one_that_asks(api: LittleApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first registered service is the default service of lookups."""
    monkeypatch.delenv("OPENGNS_SERVICE", raising=False)
    api.answers["/v1/register"] = outcome()
    core = CoreClient(ThreadRuntime(), api=api.place)
    assert core.service == ""
    run_sync(core.register(SERVICE, 2028, credential=CREDENTIAL))
    assert core.service == SERVICE

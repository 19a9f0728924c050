"""Clients in other languages, written from `protocols/` alone, do their rounds with a server over TLS."""

from __future__ import annotations

import pytest

from tests.interop.clients import FOLDER, LANGUAGES, PORT, Language, missing
from tests.interop.world import EPOCH, LARGE_COUNT, SERVICE, World

SESSIONS = 2
"""Sessions of a client, each with a bookmark after its watch."""


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    """Each client that can run here."""
    language = LANGUAGES[request.param]
    if why := missing(language.interpreter, *language.libraries):
        pytest.skip(why)
    return language


def test_a_client_in_another_language_lives_with_the_server(world: World, language: Language) -> None:
    """A wrong credential ends the client with what the server says. Then the whole session: greeting, watch, register,
    pull, notices and acknowledgements, a report and its verdict, a refusal that the session survives, deregister, the
    next session that resumes, a resync and a reply in parts."""
    with language.start(world, "wrong") as client:
        status, errors = client.end()
        assert status and f"bad-credential: register {SERVICE}" in errors
    world.register_many()
    with language.start(world) as client:
        assert client.step("welcome") == {"version": 1, "tls": "TLSv1.3"}
        watching = client.step("watching")
        assert watching == {"topics": [SERVICE, "openuss", "spare.emergency", "web"], "snapshot": True}
        assert client.step("registered") == {"state": "up"}
        pulled = client.step("pulled")
        assert (pulled["listeners"], pulled["parts"]) == (1, 0)
        own = pulled["own"]
        assert (own["address"], own["port"], own["state"]) == ("127.0.0.1", PORT, "up")
        assert own["metadata"] == {"by": language.program}
        assert client.notice()["row"] == own

        revision = world.register_another()
        notice = client.notice()
        assert (notice["revision"], notice["operation"], notice["row"]["epoch"]) == (revision, "register", EPOCH)
        assert client.step("reported") == {"state": "suspect"}
        suspect, down = client.notice(), client.notice()
        assert (suspect["row"]["state"], down["row"]["state"]) == ("suspect", "down")
        assert suspect["row"]["port"] == down["row"]["port"] == notice["row"]["port"]

        assert client.step("refused") == {"code": "unknown-service"}
        assert client.step("deregistered") == {"state": "offline"}
        gone = client.notice()
        assert (gone["row"]["port"], gone["row"]["state"]) == (PORT, "offline")

        assert client.step("welcome")["version"] == 1
        assert client.step("watching")["snapshot"] is False
        revision = world.depend_on_many()
        resync = client.step("resync")
        assert resync["rows"] > LARGE_COUNT and resync["parts"] > 1
        assert client.step("acknowledged")["revision"] >= revision
        pulled = client.step("pulled")
        assert pulled["listeners"] == LARGE_COUNT + 1
        assert pulled["parts"] > resync["parts"] + 1
        assert world.acknowledged() >= revision
        assert client.step("ended") == ({"digests": SESSIONS} if language.compares_digests else {})
        assert client.end() == (0, "")


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_client_in_another_language_is_short(name: str) -> None:
    """OpenGNSP is small enough for a client of a few hundred lines, MessagePack included."""
    language = LANGUAGES[name]
    files = [FOLDER / file for file in (language.program, *language.modules)]
    assert sum(len(file.read_text().splitlines()) for file in files) < language.lines_max

"""Reports of failures: none is lost for its wording or a restart of the daemon, in any variant of the client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import requests

import compass.client.asyncio
import compass.client.twisted
from compass import client
from compass.client.requests import Session
from compass.model.limits import DETAIL_MAX
from compass.model.rows import Listener
from tests.support.fake_api import SERVICE, LittleApi, Start, outcome, refusal
from tests.support.reactor_thread import ReactorThread

PEER = Listener(SERVICE, "127.0.0.1", 9, "up", 1.0, 1)
TEXTS = {
    "short": ("refused", "refused"),
    "limit": ("x" * DETAIL_MAX, "x" * DETAIL_MAX),
    "longer": ("x" * (DETAIL_MAX + 1), "x" * (DETAIL_MAX - 3) + "..."),
    "lines": ("line1\nline2\r\n", "line1\\u000aline2"),
    "terminal": ("\x1b[31mred\x1b[0m", "\\u001b[31mred\\u001b[0m"),
    "surrogate": ("octet \udcff", "octet \\udcff"),
    "letters": ("漢" * (DETAIL_MAX + 1), "漢" * (DETAIL_MAX - 3) + "..."),
    "cut in an escape": ("x" * (DETAIL_MAX - 1) + "\ny", "x" * (DETAIL_MAX - 3) + "..."),
    "empty": ("", "ConnectionResetError"),
    "blank": (" \n ", "ConnectionResetError"),
}


@pytest.fixture(autouse=True)
def ready(api: LittleApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that knows one listener, and accepts reports as a daemon does."""
    monkeypatch.delenv("OPENGNS_SERVICE", raising=False)
    found = {"name": "openuss", "revision": 5, "source": "service", "listeners": [msgspec.to_builtins(PEER)]}
    api.answers["/v1/resolve/openuss"] = (200, found)
    api.answers["/v1/report"] = lambda asked: (
        outcome("suspect") if accepted(asked.body["detail"]) else refusal("bad-value", 400)
    )


def accepted(detail: str) -> bool:
    return len(detail) <= DETAIL_MAX and detail.isprintable()


def on_threads(place: str, failure: Exception) -> None:
    def once(peer: Listener) -> None:
        raise failure

    with client.Client(api=place) as used, pytest.raises(client.NoneAnswers):
        used.attempt("openuss", once)


def on_asyncio(place: str, failure: Exception) -> None:
    async def once(peer: Listener) -> None:
        raise failure

    async def main() -> None:
        async with compass.client.asyncio.Client(api=place) as used:
            with pytest.raises(client.NoneAnswers):
                await used.attempt("openuss", once)

    asyncio.run(main())


def on_twisted(place: str, failure: Exception) -> None:
    async def once(peer: Listener) -> None:
        raise failure

    thread = ReactorThread()
    used = thread.call(lambda: compass.client.twisted.Client(thread.reactor, api=place))
    with pytest.raises(client.NoneAnswers):
        thread.call(lambda: used.attempt("openuss", once, (OSError,)))
    thread.call(used.close)
    thread.stop()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("attempt", [on_threads, on_asyncio, on_twisted])
def test_a_report_is_not_lost_for_its_wording(
    api: LittleApi, attempt: Callable[[str, Exception], None], text: str
) -> None:
    """The detail is cut in the unit of its limit, characters, and is one printable line."""
    said, reported = TEXTS[text]
    attempt(api.place, ConnectionResetError(said))
    assert api.wait_for("/v1/report").body["detail"] == reported


def test_a_report_of_the_program_s_own_is_cut_too(api: LittleApi) -> None:
    with client.Client(api=api.place) as used:
        assert used.report(SERVICE, "127.0.0.1", 9, detail="a\nb" + "x" * 300).state == "suspect"
    assert api.wait_for("/v1/report").body["detail"].startswith("a\\u000abx")


def test_the_command_cuts_its_detail(api: LittleApi, start: Start) -> None:
    """`opengnsc report --detail "$(tail log)"` has line ends and is long."""
    run = start("report", SERVICE, "127.0.0.1:9", "--detail", "first\nsecond" + "x" * 300)
    assert run.wait(10) == 0, run.communicate()
    assert (0, len(api.wait_for("/v1/report").body["detail"])) == (0, DETAIL_MAX)


def test_a_long_url_does_not_hide_the_cause(api: LittleApi) -> None:
    """The text of requests holds the URL; the report says what happened."""
    with Session(client.Client(api=api.place)) as session, pytest.raises(requests.ConnectionError, match="refused"):
        session.get("gns://openuss/" + "p" * 1000, timeout=3)
    assert "Connection refused" in api.wait_for("/v1/report").body["detail"]


def test_a_report_survives_a_restart_of_the_daemon(api: LittleApi, caplog: pytest.LogCaptureFixture) -> None:
    """Delivery is repeated for REPORT_SECONDS; a permanent refusal is logged at once."""
    answers: list[Any] = [refusal("not-ready", 503), outcome("suspect")]
    api.answers["/v1/report"] = lambda asked: answers.pop(0)
    on_threads(api.place, ConnectionResetError("gone"))
    assert api.wait_for("/v1/report", 2).body["detail"] == "gone"
    assert "could not be reported" not in caplog.text


def test_a_failure_at_the_end_of_the_interpreter_is_reported(api: LittleApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread can be started there; the report is delivered without one."""

    usual = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "opengns":
            raise RuntimeError("can't create new thread at interpreter shutdown")
        usual(thread)

    with client.Client(api=api.place) as used:
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(client.NoneAnswers):
            used.attempt("openuss", lambda peer: (_ for _ in ()).throw(ConnectionResetError("gone")))
        monkeypatch.undo()
    assert api.wait_for("/v1/report").body["detail"] == "gone"

"""Conveniences of the host API: entity tags, HEAD, long polls, Prometheus targets, readable refusals."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from compass.gateway.host_api import operations
from compass.gateway.http import prometheus_sd
from compass.gateway.http.sse import REVISION_MAX
from compass.model.host_api import LocalEvent, Resolved
from compass.model.replies import CategoryView, Dependencies, Refusal, ServiceView
from compass.model.rows import Listener
from tests.support.fake_host_api import CHANGE, LISTENER, Api

VIEW = CategoryView(
    "b",
    (
        ServiceView("a.b", (LISTENER,)),
        ServiceView(
            "c.b", (Listener("c.b", "2001:db8::1", 81, "down", 1.0, 5, "web1", 7, {"http path": "/x", "a": "b"}),)
        ),
    ),
)


def test_who_has_the_answer_is_not_sent_it_again(api: Api) -> None:
    """A matching tag gets 304 without a body; another answer has another tag."""
    api.daemon.answer = Dependencies("a.b", 7)
    first = api.open("GET", "/v1/dependencies/a.b")
    tag = first.getheader("ETag")
    assert first.read() and tag.startswith('"')
    for held in (tag, f'"other", W/{tag}', "*"):
        again = api.open("GET", "/v1/dependencies/a.b", If_None_Match=held)
        assert (again.status, again.read(), again.getheader("ETag")) == (304, b"", tag)
    api.daemon.answer = Dependencies("a.b", 8)
    changed = api.open("GET", "/v1/dependencies/a.b", If_None_Match=tag)
    assert changed.status == 200 and changed.getheader("ETag") != tag
    api.daemon.answer = Refusal("not-ready", "no", 1.0)
    assert api.open("GET", "/v1/dependencies/a.b", If_None_Match="*").status == 503


def test_head_is_get_without_the_body(api: Api) -> None:
    """HEAD also works for a stream, which would never end."""
    api.daemon.answer = Resolved("a.b", 7, "service", (LISTENER,))
    got, head = api.open("GET", "/v1/resolve/a.b"), api.open("HEAD", "/v1/resolve/a.b")
    assert head.status == 200 and head.read() == b""
    for name in ("Content-Length", "Content-Type", "ETag"):
        assert head.getheader(name) == got.getheader(name)
    stream = api.open("HEAD", "/v1/watch?service=a.b")
    assert (stream.status, stream.getheader("Content-Type"), stream.read()) == (200, "text/event-stream", b"")
    assert not [asked for asked in api.daemon.asked if asked[0] == "watch"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/watch?service=a.b&sicne=3", "'sicne'; known fields: service, since"),
        ("/v1/watch?service=a.b&service=c.b", "'service' twice"),
        ("/v1/watch?service=%ff", "UTF-8"),
        ("/v1/watch?service=a.b&since=x", "$.since"),
        ("/v1/watch", "service"),
        ("/v1/resolve/a.b?all=1", "'all'; this path has no query"),
        ("/v1/status?verbose", "this path has no query"),
        ("/v1/dependencies/a.b?wait=long", "$.wait"),
        ("/v1/watch?" + "&".join(f"x{n}=" for n in range(65)), "at most 64"),
    ],
)
def test_questions_that_cannot_be_used(api: Api, path: str, said: str) -> None:
    """The refusal names the invalid field; the daemon is not called."""
    status, refusal = api.ask("GET", path)
    assert (status, refusal["code"]) == (400, "malformed") and said in refusal["message"]
    assert api.daemon.asked == []


def test_the_largest_revision(api: Api) -> None:
    """A larger revision is refused in a query, and ignored in a Last-Event-ID, as the standard demands."""
    for since, status in ((REVISION_MAX, 200), (REVISION_MAX + 1, 400), (-1, 400)):
        response = api.open("GET", f"/v1/watch?service=a.b&since={since}")
        response.close()
        assert response.status == status
    for last in (str(REVISION_MAX), str(10 * REVISION_MAX)):
        api.open("GET", "/v1/watch?service=a.b", Last_Event_ID=last).close()
    assert api.daemon.asked == [("watch", "a.b", REVISION_MAX), ("watch", "a.b", REVISION_MAX), ("watch", "a.b", None)]


def ask_waiting(api: Api, wait: str = "30") -> Any:
    """Send a request that waits. Returns the response to come, once the daemon has been called; the watch has no
    event yet."""
    api.daemon.watches_silently = True
    api.daemon.answer = Dependencies("a.b", 8)
    connection = api.connection()
    connection.request("GET", f"/v1/dependencies/a.b?since=7&wait={wait}")
    until = time.monotonic() + 10
    while not api.daemon.asked and time.monotonic() < until:
        time.sleep(0.005)
    return connection


def test_an_answer_waits_for_the_next_change(api: Api) -> None:
    """The whole answer is sent after the first change since `since`; then the watch ends."""
    connection = ask_waiting(api)
    assert api.daemon.asked == [("watch", "a.b", 7)]
    api.thread.call(api.daemon.deliver, LocalEvent("change", 8, CHANGE))
    assert json.loads(connection.getresponse().read())["revision"] == 8
    assert api.daemon.stopped.wait(10)
    api.thread.call(api.daemon.deliver, LocalEvent("change", 8, CHANGE))


def test_a_waiting_answer_comes_in_the_end(api: Api) -> None:
    """Without a change, the unchanged answer is sent after the requested time."""
    connection = ask_waiting(api, "0.05")
    assert json.loads(connection.getresponse().read())["revision"] == 8
    assert api.daemon.stopped.wait(10)


def test_who_waits_and_leaves_is_forgotten(api: Api) -> None:
    """The watch ends with the connection."""
    connection = ask_waiting(api)
    connection.close()
    assert api.daemon.stopped.wait(10)


def test_waiting_for_what_there_is_not(api: Api) -> None:
    """A refusal is sent at once, and so is the answer if a change has already happened."""
    api.daemon.answer = Refusal("unknown-service", "no")
    assert api.ask("GET", "/v1/dependencies/a.b?since=7&wait=30")[0] == 404
    api.daemon.answer = Dependencies("a.b", 7)
    assert api.ask("GET", "/v1/dependencies/a.b?since=3&wait=30")[1]["revision"] == 7
    # Without a revision, or without a time, nothing is waited for.
    assert api.ask("GET", "/v1/dependencies/a.b?wait=30")[0] == 200
    assert api.ask("GET", "/v1/dependencies/a.b?since=7")[0] == 200
    assert [asked[0] for asked in api.daemon.asked[-2:]] == ["dependencies", "dependencies"]


def test_the_longest_wait(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request to wait for a year waits for the longest allowed time."""
    monkeypatch.setattr(operations, "WAIT_SECONDS_MAX", 0.05)
    connection = ask_waiting(api, "31536000")
    assert connection.getresponse().status == 200


def test_targets_for_prometheus(api: Api) -> None:
    """Every registered listener appears in the form of http_sd_configs, whatever its state; the answer is stable."""
    api.daemon.answer = VIEW
    response = api.open("GET", "/v1/prometheus/b")
    assert response.status == 200 and response.getheader("Content-Type") == "application/json"
    first, second = json.loads(response.read())
    assert first == {
        "targets": ["10.0.0.1:80"],
        "labels": {
            "__meta_opengns_service": "a.b",
            "__meta_opengns_category": "b",
            "__meta_opengns_state": "up",
            "__meta_opengns_host": "",
            "__meta_opengns_weight": "1",
        },
    }
    assert second["targets"] == ["[2001:db8::1]:81"]
    assert second["labels"]["__meta_opengns_state"] == "down"
    assert second["labels"]["__meta_opengns_metadata_http_path"] == "/x"
    tag = response.getheader("ETag")
    assert api.open("GET", "/v1/prometheus/b", If_None_Match=tag).status == 304
    turned = msgspec.structs.replace(VIEW, services=VIEW.services[::-1])
    listeners = [peer for service in turned.services for peer in service.listeners]
    assert prometheus_sd.target_groups(listeners)[0].targets == ("10.0.0.1:80",)


def test_prometheus_never_takes_silence_for_emptiness(api: Api) -> None:
    """P5: "not loaded yet", "no such name" and "none registered" are three answers; only the last one is a list."""
    for answer, status in (
        (Refusal("not-ready", "no view yet", 1.0), 503),
        (Refusal("unknown-dependency", "no"), 404),
        (Refusal("bad-name", "no"), 400),
    ):
        api.daemon.answer = answer
        assert api.ask("GET", "/v1/prometheus/b")[0] == status
    api.daemon.answer = CategoryView("b", (ServiceView("a.b"),))
    assert api.ask("GET", "/v1/prometheus/b") == (200, [])


def test_a_lookup_that_nobody_waits_for(api: Api) -> None:
    """The answer to a closed connection is dropped, and nothing fails."""
    waiting: Deferred[Any] = Deferred()
    api.daemon.answer = waiting
    connection = api.connection()
    connection.request("GET", "/v1/dependencies/a.b")
    while not api.daemon.asked:
        time.sleep(0.005)
    connection.close()
    assert api.ask("GET", "/v1/status")[0] == 200
    api.thread.call(waiting.callback, Dependencies("a.b", 7))
    assert api.ask("GET", "/v1/status")[0] == 200


def test_lookups_are_not_told_one_by_one(api: Api) -> None:
    """Requests are logged at level debug only, and without their query."""
    levels: list[LogLevel] = []

    def look(event: LogEvent) -> None:
        if "GET" in str(formatEvent(event)):
            levels.append(event["log_level"])
            assert "since" not in str(formatEvent(event))

    observe: Any = look
    globalLogPublisher.addObserver(observe)
    try:
        for path, status in (("/v1/status", 200), ("/v1/dependencies/a.b?since=x", 400)):
            assert api.ask("GET", path)[0] == status
    finally:
        globalLogPublisher.removeObserver(observe)
    assert levels == [LogLevel.debug, LogLevel.debug]

"""HAProxy's agent check: the answer for every state, over real sockets, and the reaction of a real HAProxy."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from twisted.internet.endpoints import TCP4ServerEndpoint

from compass.gateway import haproxy_agent
from compass.gateway.haproxy_agent import LINE_OCTETS_MAX, PAUSE_SECONDS, REASON_MAX, AgentCheck, answer_for
from compass.model.replies import Refusal, ServiceView
from compass.model.rows import Listener, State
from tests.support.reactor_thread import ReactorThread


def listener(port: int, state: State = "up", weight: int = 1, cause: str = "", draining: bool = False) -> Listener:
    return Listener("a.b", "192.0.2.7", port, state, 1.0, 5, weight=weight, cause=cause, draining=draining)


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (listener(1), "up ready 100%"),
        (listener(1, "slow"), "up ready 100%"),
        (listener(1, "draining"), "up drain 100%"),
        (listener(1, "draining", draining=True), "up drain 100%"),
        (listener(1, "suspect", cause="reported"), "down ready #suspect: reported"),
        (listener(1, "down", cause="no answer", draining=True), "down drain #down: no answer"),
        (listener(2), "stopped #not registered"),
    ],
)
def test_the_answer_for_each_state(peer: Listener, words: str) -> None:
    """`up` and `down` mean health, `ready` and `drain` new users; an unregistered listener is stopped."""
    assert answer_for(ServiceView("a.b", (peer,)), "192.0.2.7", 1) == words


@pytest.mark.parametrize(
    ("weight", "share"), [(0, "0%"), (1, "1%"), (2, "1%"), (500, "50%"), (999, "100%"), (1000, "100%")]
)
def test_the_share_is_that_of_the_heaviest(weight: int, share: str) -> None:
    """A weight of 0 drains, and nothing else does."""
    view = ServiceView("a.b", (listener(1, weight=weight), listener(2, weight=1000)))
    assert answer_for(view, "192.0.2.7", 1).endswith(share)


def test_a_reason_is_one_short_line() -> None:
    """Whatever a reason contains, the line ends where HAProxy's line ends."""
    words = answer_for(ServiceView("a.b", (listener(1, "down", cause="a\nup\r" + "x" * 200),)), "192.0.2.7", 1)
    reason = words.partition("#")[2]
    assert "\n" not in words and "\r" not in words and len(reason) == REASON_MAX


class Scene:
    """Port of the agent check, with one service."""

    def __init__(self, thread: ReactorThread) -> None:
        self.thread = thread
        self.view: ServiceView | Refusal = ServiceView("a.b", (listener(1),))
        self.check = AgentCheck(self, thread.reactor)
        endpoint = TCP4ServerEndpoint(thread.reactor, 0, interface="127.0.0.1")
        self.listening = thread.call(endpoint.listen, self.check)

    def service(self, id: str) -> ServiceView | Refusal:
        """Return the view, for every service."""
        return self.view

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.listening.getHost().port), 10)

    def ask(self, question: bytes) -> bytes:
        with self.connect() as connection:
            connection.sendall(question)
            try:
                return b"".join(iter(lambda: connection.recv(4096), b""))
            except ConnectionError:
                return b""


@pytest.fixture
def scene(thread: ReactorThread) -> Iterator[Scene]:
    scene = Scene(thread)
    yield scene
    thread.call(scene.listening.stopListening)


def test_a_question_is_answered_and_the_connection_ends(scene: Scene) -> None:
    """A query may arrive in pieces, with either end of line, and in any case of the name."""
    for question in (b"a.b 192.0.2.7:1\n", b"A.B 192.0.2.7:1\r\n", b"  a.b   192.0.2.7:1 \nmore"):
        assert scene.ask(question) == b"up ready 100%\n"


def test_a_question_without_a_line_end_is_answered(scene: Scene) -> None:
    """`agent-send` without `\\n`: after a pause, or when the peer ends its side; a longer line than any is not read."""
    assert scene.ask(b"a.b 192.0.2.7:1") == b"up ready 100%\n"
    with scene.connect() as connection:
        connection.sendall(b"a.b 192.0.2.7:1")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b"up ready 100%\n"
    with scene.connect() as connection:
        for piece in (b"a.b 192", b".0.2.7:", b"1"):
            connection.sendall(piece)
            time.sleep(PAUSE_SECONDS / 3)
        assert connection.recv(100) == b"up ready 100%\n"
    question = b"a.b 192.0.2.7:1"
    assert scene.ask(question + b" " * (LINE_OCTETS_MAX - len(question))) == b"up ready 100%\n"
    assert scene.ask(question + b" " * (LINE_OCTETS_MAX + 1 - len(question))) == b""
    with scene.connect() as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""


def test_what_is_not_known_gets_no_word(scene: Scene) -> None:
    """P5: "not loaded yet" and "no such name" change nothing in HAProxy; "none registered" stops the server."""
    for code in ("not-ready", "unknown-dependency", "unknown-service"):
        scene.view = Refusal(code, "why")
        assert scene.ask(b"a.b 192.0.2.7:1\n") == b""
    scene.view = ServiceView("a.b")
    assert scene.ask(b"a.b 192.0.2.7:1\n") == b"stopped #not registered\n"


@pytest.mark.parametrize("question", [b"\n", b"a.b\n", b"a.b 192.0.2.7\n", b"a 192.0.2.7:1\n", b"\xff\xfe \xff:1\n"])
def test_questions_that_are_none(scene: Scene, question: bytes) -> None:
    """An invalid query gets no answer, and the next one is answered."""
    assert scene.ask(question) == b""
    assert scene.ask(b"a.b 192.0.2.7:1\n")


def test_the_longest_question(scene: Scene) -> None:
    """An octet above the limit is not read."""
    question = b"a.b 192.0.2.7:1"
    assert scene.ask(question + b" " * (LINE_OCTETS_MAX - len(question)) + b"\n") == b"up ready 100%\n"
    assert scene.ask(question + b" " * (LINE_OCTETS_MAX + 1 - len(question)) + b"\n") == b""


def test_who_asks_nothing_is_let_go(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: a silent connection is closed, and connections are limited; a closed one makes room."""
    monkeypatch.setattr(haproxy_agent, "QUERY_SECONDS", 0.05)
    assert scene.ask(b"") == b""
    monkeypatch.setattr(haproxy_agent, "QUERY_SECONDS", 30.0)
    monkeypatch.setattr(haproxy_agent, "CONNECTIONS_MAX", 2)
    idle = [scene.connect() for _ in range(2)]
    while scene.check.open < 2:
        scene.thread.call(lambda: None)
    assert scene.ask(b"a.b 192.0.2.7:1\n") == b""
    idle.pop().close()
    while not scene.ask(b"a.b 192.0.2.7:1\n"):
        pass
    idle.pop().close()

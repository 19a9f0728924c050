"""A registration whose caller is cancelled or interrupted leaves nothing behind, in any variant of the client."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

import compass.client.asyncio
import compass.client.twisted
from compass import client
from compass.client.asgi import Registered
from tests.support.fake_api import CREDENTIAL, SERVICE, Answer, Asked, LittleApi, outcome, refusal, wait_until
from tests.support.reactor_thread import ReactorThread

SLOW_SECONDS = 0.03
"""The time that a registration takes: longer than some of the cuts, shorter than others."""
CUTS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.028, 0.03, 0.032, 0.04)


class Book:
    """The daemon's book of listeners: what is registered, by epoch."""

    def __init__(self, api: LittleApi) -> None:
        self.api = api
        self.registered: set[int] = set()
        self._epoch = 0
        self._lock = threading.Lock()
        api.answers |= {"/v1/register": self._register, "/v1/deregister": self._deregister}

    def _register(self, asked: Asked) -> Answer:
        # A daemon handles requests in the order of their arrival.
        with self._lock:
            time.sleep(SLOW_SECONDS)
            self._epoch += 1
            self.registered = {self._epoch}
            return outcome(epoch=self._epoch)

    def _deregister(self, asked: Asked) -> Answer:
        with self._lock:
            if asked.body["epoch"] not in self.registered:
                return refusal("stale-epoch", 409)
            self.registered = set()
            return outcome("offline")

    def is_empty(self) -> None:
        """Wait until all requests are answered, and nothing is registered."""
        asked = self.api.paths().count("/v1/register")
        wait_until(lambda: self._epoch >= self.api.paths().count("/v1/register") and not self.registered)
        assert asked <= self._epoch


@pytest.fixture
def book(api: LittleApi) -> Book:
    """A daemon that takes its time."""
    return Book(api)


@pytest.mark.parametrize("is_closed", [True, False])
def test_on_asyncio(book: Book, is_closed: bool) -> None:
    """At any moment, whether the client is closed afterwards or the loop just ends."""

    async def main(seconds: float) -> bool:
        used = compass.client.asyncio.Client("portal.web", book.api.place)
        try:
            async with asyncio.timeout(seconds), used.register(SERVICE, 2028, credential=CREDENTIAL):
                return True
        except TimeoutError:
            return False
        finally:
            if is_closed:
                await used.close()

    entered = []
    # At the end of the loop the call is repeated; that this one comes first is certain once it is there, or if it was
    # never sent.
    for seconds in CUTS if is_closed else (0.0, 0.015, 0.04):
        entered.append(asyncio.run(main(seconds)))
        book.is_empty()
    assert not entered[0]


def test_a_cancelled_task_is_cancelled_at_once(book: Book) -> None:
    """The caller does not wait for the daemon."""

    async def main() -> float:
        async with compass.client.asyncio.Client("portal.web", book.api.place) as used:
            task = asyncio.ensure_future(used.register(SERVICE, 2028, credential=CREDENTIAL))
            await asyncio.sleep(0.005)
            task.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.monotonic() - began

    assert asyncio.run(main()) < SLOW_SECONDS / 2
    book.is_empty()


def test_on_twisted(book: Book) -> None:
    """`cancel` of the Deferred; `close` waits until nothing is left."""
    thread = ReactorThread()
    used = thread.call(lambda: compass.client.twisted.Client(thread.reactor, "portal.web", book.api.place))
    for seconds in CUTS[1:6]:

        def cut(seconds: float = seconds) -> Any:
            waiting = used.register(SERVICE, 2028, credential=CREDENTIAL)
            thread.reactor.callLater(seconds, waiting.cancel)
            return waiting

        try:
            registration = thread.call(cut)
        except CancelledError:
            thread.call(used.close)
        else:
            thread.call(registration.end)
        book.is_empty()
    thread.stop()


class _Interrupted(BaseException):
    pass


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Interrupts this thread by a signal, as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise _Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)

    def set_alarm(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield set_alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_on_threads(book: Book, alarm: Callable[[float], None]) -> None:
    """An exception of a signal handler, KeyboardInterrupt for one, at any moment of the call."""
    interrupted = 0
    with client.Client("portal.web", book.api.place) as used:
        for seconds in CUTS[1:6]:
            try:
                alarm(seconds)
                registration = used.register(SERVICE, 2028, credential=CREDENTIAL)
                alarm(0)
            except _Interrupted:
                interrupted += 1
            else:
                registration.end()
            book.is_empty()
    assert interrupted


def test_a_problem_is_raised_as_ever(book: Book) -> None:
    """The thread of the caller gets it, of its own kind."""
    book.api.answers["/v1/register"] = refusal("bad-credential")
    with client.Client("portal.web", book.api.place) as used, pytest.raises(client.NotAllowed):
        used.register(SERVICE, 2028, credential=CREDENTIAL)


@pytest.mark.parametrize("is_own", [True, False])
def test_an_application_that_is_told_to_end_while_it_starts(book: Book, is_own: bool, tmp_path: Path) -> None:
    """uvicorn that gets SIGTERM at once: the registration is under way."""

    async def main() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        events: asyncio.Queue[Any] = asyncio.Queue()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return

        used = compass.client.asyncio.Client(SERVICE, book.api.place)
        served = Registered(application, SERVICE, port, used, credential=CREDENTIAL)
        served._is_own = is_own

        async def send(message: Any) -> None:
            pass

        serving = asyncio.create_task(served({"type": "lifespan"}, events.get, send))
        await events.put({"type": "lifespan.startup"})
        while "/v1/register" not in book.api.paths():
            await asyncio.sleep(0.001)
        await events.put({"type": "lifespan.shutdown"})
        await serving
        assert not book.registered and book.api.paths().count("/v1/deregister") == 1
        server.close()

    asyncio.run(main())
    book.is_empty()

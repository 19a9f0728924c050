"""The calls of the host API (mission section 5), one exchange each, on whatever runtime.

Every call answers with a value of `compass.model.host_api` or raises `ApiProblem`, whose text says what to do next.
A call has a connection of its own and leaves nothing behind, so threads may share one object.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

import msgspec

from compass.client.core.endpoint import ApiEndpoint
from compass.client.core.errors import ApiProblem, DaemonUnreachable, NotAllowed, refused
from compass.client.core.http import ANSWER_OCTETS_MAX, ConnectionBroken, Events, HttpExchange, InvalidResponse, Lines
from compass.client.core.runtime import Connection, Runtime
from compass.model.host_api import (
    HostStatus,
    LocalDeregister,
    LocalDrain,
    LocalEvent,
    LocalLoad,
    LocalRegister,
    LocalReport,
    LocalRequest,
    Outcome,
    Resolved,
)
from compass.model.replies import Dependencies

ANSWER_SECONDS = 30.0
"""For one answer: longer than the daemon itself waits for a server."""
SILENCE_SECONDS = 45.0
"""Without an event or a heartbeat, a watch is dead: three times the daemon's heartbeat."""

T = TypeVar("T", bound=msgspec.Struct)


class HostApiCalls:
    """What can be asked of the daemon at `place`."""

    def __init__(self, runtime: Runtime, endpoint: ApiEndpoint, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.endpoint = endpoint
        self._runtime = runtime
        self._answer_seconds = answer_seconds

    async def dependencies(self, service: str) -> Dependencies:
        """Function 2.3: what `service` depends on."""
        return await self._ask(Dependencies, "GET", f"/v1/dependencies/{quote(service, safe='')}")

    async def resolve(self, name: str) -> Resolved:
        """The listeners to use for a service or a category, best first; none is an answer, too."""
        return await self._ask(Resolved, "GET", f"/v1/resolve/{quote(name, safe='')}")

    async def register(self, request: LocalRegister) -> Outcome:
        """Function 2.1. For one with `hold` there is the method of that name."""
        return await self._ask(Outcome, "POST", "/v1/register", request)

    async def deregister(self, request: LocalDeregister) -> Outcome:
        """Function 2.2."""
        return await self._ask(Outcome, "POST", "/v1/deregister", request)

    async def report_load(self, request: LocalLoad) -> Outcome:
        """How busy a listener of this host is."""
        return await self._ask(Outcome, "POST", "/v1/load", request)

    async def drain(self, request: LocalDrain) -> Outcome:
        """A listener takes no new users, or takes them again."""
        return await self._ask(Outcome, "POST", "/v1/drain", request)

    async def report(self, request: LocalReport) -> Outcome:
        """Function 2.5."""
        return await self._ask(Outcome, "POST", "/v1/report", request)

    async def status(self) -> HostStatus:
        """The daemon in figures."""
        return await self._ask(HostStatus, "GET", "/v1/status")

    async def hold(self, request: LocalRegister) -> HoldStream:
        """A registration with `hold`: over as soon as the result is closed, however that comes about."""
        stream = await self._start_exchange("POST", "/v1/register", request)
        lines = Lines()
        try:
            while not (whole := [line for piece in await stream.read() for line in lines.split(piece)]):
                if stream.ended:
                    raise _connection_broken(self.endpoint)
            with map_errors(self.endpoint):
                return HoldStream(stream, msgspec.json.decode(whole[0], type=Outcome))
        except BaseException:
            stream.close()
            raise

    async def watch(self, service: str, last_event_id: int | None = None) -> WatchStream:
        """The dependencies of `service` and then each change of them, until the connection ends.

        With the revision of the last event seen, only what came later.
        """
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        stream = await self._start_exchange("GET", f"/v1/watch?service={quote(service, safe='')}", headers=headers)
        return WatchStream(stream)

    async def _ask(self, kind: type[T], method: str, path: str, request: LocalRequest | None = None) -> T:
        stream = await self._start_exchange(method, path, request)
        try:
            data = await stream.read_all()
        finally:
            stream.close()
        with map_errors(self.endpoint):
            return msgspec.json.decode(data, type=kind)

    async def _start_exchange(
        self, method: str, path: str, request: LocalRequest | None = None, headers: dict[str, str] | None = None
    ) -> ResponseStream:
        """The response to a request, once it is known not to be a refusal."""
        body = None if request is None else msgspec.json.encode(request)
        exchange = HttpExchange(method, path, self.endpoint.host, body, headers)
        with map_errors(self.endpoint):
            line = await self._runtime.open(self.endpoint, self._answer_seconds)
        stream = ResponseStream(self.endpoint, line, exchange, self._answer_seconds)
        try:
            with map_errors(self.endpoint):
                await line.send(exchange.request)
            await stream.read_status()
            if exchange.status not in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
                raise self._refused(exchange.status, await stream.read_all())
        except BaseException:
            stream.close()
            raise
        return stream

    def _refused(self, status: int, body: bytes) -> ApiProblem:
        try:
            said = msgspec.json.decode(body, type=_Refused)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return _invalid_response(self.endpoint, error)
            text = f"opengnscd at {self.endpoint} failed (HTTP status {status}); its log says why"
            return DaemonUnreachable("unreachable", text)
        return refused(said.code, said.message, retry_after_seconds=said.retry_after_seconds, epoch=said.epoch)


class ResponseStream:
    """A response that is being received. Whoever has it closes it."""

    def __init__(self, endpoint: ApiEndpoint, line: Connection, exchange: HttpExchange, seconds: float) -> None:
        self.endpoint = endpoint
        self.patience_seconds: float | None = seconds
        """For the next piece."""
        self.endless = False
        """Of a response that goes on until the connection ends: that is then no accident."""
        self._connection = line
        self._exchange = exchange
        self._ahead: list[bytes] = []
        self._closed_by_daemon = False

    @property
    def ended(self) -> bool:
        """The response is over."""
        return self._closed_by_daemon or self._exchange.ended

    async def read_status(self) -> None:
        """Until its status is known."""
        while not self._exchange.status:
            self._ahead += await self._receive()

    async def read(self) -> list[bytes]:
        """Some of the body: what is here, else what comes next."""
        if self._ahead or self.ended:
            ahead, self._ahead = self._ahead, []
            return ahead
        return await self._receive()

    async def read_all(self) -> bytes:
        """All of the body."""
        body = bytearray()
        while True:
            body += b"".join(await self.read())
            if len(body) > ANSWER_OCTETS_MAX:
                raise _invalid_response(self.endpoint, InvalidResponse(f"more than {ANSWER_OCTETS_MAX} octets"))
            if self.ended:
                return bytes(body)

    def close(self) -> None:
        """End it at once."""
        self._connection.close()

    async def _receive(self) -> list[bytes]:
        with map_errors(self.endpoint):
            data = await self._connection.receive(self.patience_seconds)
            try:
                return self._exchange.receive(data)
            except ConnectionBroken:
                if not self.endless:
                    raise
                self._closed_by_daemon = True
                return []


class HoldStream:
    """A registration that lasts as long as its connection."""

    def __init__(self, stream: ResponseStream, outcome: Outcome) -> None:
        self.outcome = outcome
        self._stream = stream
        stream.patience_seconds, stream.endless = None, True

    async def wait_closed(self) -> None:
        """Comes back when the daemon ends it."""
        try:
            while not self._stream.ended:
                await self._stream.read()
        except DaemonUnreachable:
            pass
        finally:
            self._stream.close()

    def close(self) -> None:
        """The registration is over."""
        self._stream.close()


class WatchStream:
    """The events of one connection."""

    def __init__(self, stream: ResponseStream) -> None:
        self._stream = stream
        self._events = Events()
        self._ready: deque[LocalEvent] = deque()
        stream.patience_seconds, stream.endless = SILENCE_SECONDS, True

    async def next(self) -> LocalEvent | None:
        """The next event, or None when the daemon has ended the connection. Raises ApiProblem."""
        while not self._ready:
            if self._stream.ended:
                return None
            for piece in await self._stream.read():
                with map_errors(self._stream.endpoint):
                    self._ready.extend(self._events.split(piece))
        return self._ready.popleft()

    def close(self) -> None:
        """No more."""
        self._stream.close()


class _Refused(msgspec.Struct, frozen=True):
    """A refusal whose code may be newer than this program."""

    code: str
    message: str
    retry_after_seconds: float = 0.0
    epoch: int = 0


@contextmanager
def map_errors(endpoint: ApiEndpoint) -> Iterator[None]:
    """Turn what goes wrong between here and the daemon into words: raises ApiProblem in place of it."""
    where = f"opengnscd at {endpoint}"
    try:
        yield
    except TimeoutError:
        raise DaemonUnreachable("unreachable", f"{where} does not answer; its log may say why") from None
    except PermissionError:
        text = f"{where} may not be asked by this user: become one that the permissions of its socket admit"
        raise NotAllowed("forbidden", text) from None
    except ConnectionBroken:
        raise _connection_broken(endpoint) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        advice = "start it, or say where it listens with --api or OPENGNS_API"
        raise DaemonUnreachable("unreachable", f"{where} cannot be reached ({reason}): {advice}") from None
    except (msgspec.MsgspecError, InvalidResponse, UnicodeDecodeError) as error:
        raise _invalid_response(endpoint, error) from None


def _connection_broken(endpoint: ApiEndpoint) -> ApiProblem:
    return DaemonUnreachable("unreachable", f"opengnscd at {endpoint} broke off; it may be restarting")


def _invalid_response(endpoint: ApiEndpoint, error: Exception) -> ApiProblem:
    text = f"what answers at {endpoint} is no opengnscd that this version of compass understands ({error})"
    return ApiProblem("malformed", text)

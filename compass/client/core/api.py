"""Calls of the host API (mission section 5), one HTTP exchange each, on any runtime.

Every call returns a value of `compass.model.host_api` or raises `ApiProblem`, whose text says what to do next.
A call uses its own connection and keeps no state, so threads may share one object.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypedDict, TypeVar
from urllib.parse import quote

import msgspec

from compass.client.core.endpoint import ApiEndpoint, check_before_connecting, check_peer
from compass.client.core.errors import ApiProblem, DaemonUnreachable, NotAllowed, refused
from compass.client.core.http import ANSWER_OCTETS_MAX, ConnectionBroken, Events, HttpExchange, InvalidResponse, Lines
from compass.client.core.runtime import Connection, Runtime
from compass.model.host_api import (
    PROCESSES_HEADER,
    HostStatus,
    LocalCheckResult,
    LocalDeregister,
    LocalDrain,
    LocalEvent,
    LocalLoad,
    LocalRegister,
    LocalReport,
    LocalRequest,
    Outcome,
    OwnCheck,
    Resolved,
)
from compass.model.limits import ANSWER_SECONDS as ANSWER_SECONDS
from compass.model.limits import DETAIL_MAX
from compass.model.replies import Dependencies
from compass.model.text import escape_line
from compass.system.forks import keep_from_forks
from compass.system.machine import this_machine

SILENCE_SECONDS = 45.0
"""Seconds without an event or a heartbeat after which a watch is dead: three of the daemon's heartbeats."""

T = TypeVar("T", bound=msgspec.Struct)


class Options(TypedDict, total=False):
    """Options of a registration."""

    address: str
    """Address at which this process listens; default: the one that the daemon is configured with."""
    credential: str
    """Token of the service."""
    credential_file: str | os.PathLike[str]
    """File with the token (preferred). Default: OPENGNS_CREDENTIAL_FILE, else OPENGNS_CREDENTIAL."""
    zone: str
    """Zone of the listener, a label; default: the zone that the daemon is configured with."""
    load: float
    degradation: float
    """Share of the capacity in use, and the amount that one more user adds, for policies that depend on load."""
    weight: int
    """Relative share of users, 1 by default; 0: used only if nothing else is up."""
    metadata: dict[str, str]
    """Metadata for its users."""
    check: OwnCheck | str
    """Check that the daemon repeats while the listener is registered: a path for GET, or an OwnCheck."""
    hold: bool
    """True: the daemon notices the end of this process by a connection, instead of by the process's number. This is
    done without being asked for where the daemon cannot see this process, as in a container."""
    shared: bool
    """True: further processes of this host may share the registration, such as the workers of one server; it ends with
    the last one. Where the daemon cannot see these processes, the newest one counts."""
    patience_seconds: float
    """Seconds to wait for an unreachable daemon; PATIENCE_SECONDS by default."""


class HostApiCalls:
    """Calls to the daemon at `endpoint`."""

    def __init__(self, runtime: Runtime, endpoint: ApiEndpoint, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.endpoint = endpoint
        self.runtime = runtime
        self._answer_seconds = answer_seconds

    async def dependencies(self, service: str) -> Dependencies:
        """Return the dependencies of `service` (function 2.3)."""
        return await self._ask(Dependencies, "GET", f"/v1/dependencies/{quote(service, safe='', errors='replace')}")

    async def resolve(self, name: str) -> Resolved:
        """Return the listeners to use for a service or a category, best first; there may be none."""
        return await self._ask(Resolved, "GET", f"/v1/resolve/{quote(name, safe='', errors='replace')}")

    async def register(self, request: LocalRegister) -> Outcome:
        """Register a listener (function 2.1). A request with `hold` needs `hold` instead."""
        return await self._ask(Outcome, "POST", "/v1/register", request, _numbered(request))

    async def deregister(self, request: LocalDeregister) -> Outcome:
        """Deregister a listener (function 2.2)."""
        return await self._ask(Outcome, "POST", "/v1/deregister", request, _numbered(request))

    async def report_load(self, request: LocalLoad) -> Outcome:
        """Report the load of a listener of this host."""
        return await self._ask(Outcome, "POST", "/v1/load", request)

    async def report_check(self, request: LocalCheckResult) -> Outcome:
        """Report the result of a check of a listener of this host."""
        return await self._ask(Outcome, "POST", "/v1/check", request)

    async def drain(self, request: LocalDrain) -> Outcome:
        """Start or end the draining of a listener."""
        return await self._ask(Outcome, "POST", "/v1/drain", request)

    async def report(self, request: LocalReport) -> Outcome:
        """Report a failed or slow listener (function 2.5). The detail is cut to DETAIL_MAX and made one printable line:
        a report must not be lost for the wording of an exception."""
        request = msgspec.structs.replace(request, detail=escape_line(request.detail, DETAIL_MAX))
        return await self._ask(Outcome, "POST", "/v1/report", request)

    async def status(self) -> HostStatus:
        """Return the daemon's status."""
        return await self._ask(HostStatus, "GET", "/v1/status")

    async def hold(self, request: LocalRegister) -> HoldStream:
        """Register a listener with `hold`. The registration ends with the connection, for any reason."""
        stream = await self._start_exchange("POST", "/v1/register", request)
        lines = Lines()
        try:
            while not (whole := [line for piece in await stream.read() for line in lines.split(piece)]):
                if stream.ended:
                    raise _connection_broken(self.endpoint)
            with map_errors(self.endpoint):
                return HoldStream(stream, _DECODERS[Outcome].decode(whole[0]))
        except BaseException:
            stream.close()
            raise

    async def watch(self, service: str, last_event_id: int | None = None) -> WatchStream:
        """Start a watch of the dependencies of `service`: a snapshot, then each change, until the connection ends.

        `last_event_id`: revision of the last event seen; then only later changes.
        """
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        stream = await self._start_exchange(
            "GET", f"/v1/watch?service={quote(service, safe='', errors='replace')}", headers=headers
        )
        return WatchStream(stream)

    async def _ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        request: LocalRequest | None = None,
        headers: dict[str, str] | None = None,
    ) -> T:
        stream = await self._start_exchange(method, path, request, headers)
        try:
            data = await stream.read_all()
        finally:
            stream.close()
        with map_errors(self.endpoint):
            answer: T = _DECODERS[kind].decode(data)
        return answer

    async def _start_exchange(
        self, method: str, path: str, request: LocalRequest | None = None, headers: dict[str, str] | None = None
    ) -> ResponseStream:
        """Send a request. Returns the response once its status is known, raises ApiProblem for a refusal."""
        body = None if request is None else _encoded(request)
        exchange = HttpExchange(method, path, self.endpoint.host, body, headers)
        has_credential = bool(getattr(request, "credential", ""))
        check_before_connecting(self.endpoint, has_credential)
        with map_errors(self.endpoint):
            line = await self.runtime.open(self.endpoint, self._answer_seconds)
        keep_from_forks(line)
        stream = ResponseStream(self.endpoint, line, exchange, self._answer_seconds)
        try:
            with map_errors(self.endpoint):
                check_peer(line.socket, self.endpoint, has_credential)
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
            refusal = _DECODERS[_Refused].decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return _invalid_response(self.endpoint, error)
            text = f"opengnscd at {self.endpoint} failed (HTTP status {status}); its log says why"
            return DaemonUnreachable("unreachable", text)
        return refused(
            refusal.code, refusal.message, retry_after_seconds=refusal.retry_after_seconds, epoch=refusal.epoch
        )


def _encoded(request: LocalRequest) -> bytes:
    try:
        return msgspec.json.encode(request)
    except UnicodeEncodeError:
        # Python makes lone surrogates of octets that are not UTF-8, in arguments and in the environment.
        raise refused("bad-value", "a text of the request has a character that UTF-8 cannot encode") from None


class ResponseStream:
    """Response that is being received. The caller closes it."""

    def __init__(self, endpoint: ApiEndpoint, line: Connection, exchange: HttpExchange, seconds: float) -> None:
        self.endpoint = endpoint
        self.patience_seconds: float | None = seconds
        """Time limit for the next bytes; None: unlimited."""
        self.endless = False
        """Flag of a response that lasts until the connection ends, so that this end is not an error."""
        self._connection = line
        self._exchange = exchange
        self._ahead: list[bytes] = []
        self._closed_by_daemon = False

    @property
    def ended(self) -> bool:
        """True once the response is complete."""
        return self._closed_by_daemon or self._exchange.ended

    async def read_status(self) -> None:
        """Receive until the status is known."""
        while not self._exchange.status:
            self._ahead += await self._receive()

    async def read(self) -> list[bytes]:
        """Return received parts of the body, or wait for the next ones."""
        if self._ahead or self.ended:
            ahead, self._ahead = self._ahead, []
            return ahead
        return await self._receive()

    async def read_all(self) -> bytes:
        """Return the whole body."""
        body = bytearray()
        while True:
            body += b"".join(await self.read())
            if len(body) > ANSWER_OCTETS_MAX:
                raise _invalid_response(self.endpoint, InvalidResponse(f"more than {ANSWER_OCTETS_MAX} octets"))
            if self.ended:
                return bytes(body)

    def close(self) -> None:
        """Close the connection at once."""
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
    """Registration that lasts as long as its connection."""

    def __init__(self, stream: ResponseStream, outcome: Outcome) -> None:
        self.outcome = outcome
        self._stream = stream
        stream.patience_seconds, stream.endless = None, True

    async def wait_closed(self) -> None:
        """Wait until the daemon closes the connection."""
        try:
            while not self._stream.ended:
                await self._stream.read()
        except DaemonUnreachable:
            pass
        finally:
            self._stream.close()

    def close(self) -> None:
        """End the registration."""
        self._stream.close()


class WatchStream:
    """Events of one connection."""

    def __init__(self, stream: ResponseStream) -> None:
        self._stream = stream
        self._events = Events()
        self._ready: deque[LocalEvent] = deque()
        stream.patience_seconds, stream.endless = SILENCE_SECONDS, True

    async def next(self) -> LocalEvent | None:
        """Return the next event, or None once the daemon has closed the connection. Raises ApiProblem."""
        while not self._ready:
            if self._stream.ended:
                return None
            for piece in await self._stream.read():
                with map_errors(self._stream.endpoint):
                    self._ready.extend(self._events.split(piece))
        return self._ready.popleft()

    def close(self) -> None:
        """End the watch."""
        self._stream.close()


class _Refused(msgspec.Struct, frozen=True):
    """Refusal whose code may be newer than this program."""

    code: str
    message: str
    retry_after_seconds: float = 0.0
    epoch: int = 0


@contextmanager
def map_errors(endpoint: ApiEndpoint) -> Iterator[None]:
    """Turn errors of the connection to the daemon into ApiProblem."""
    where = f"opengnscd at {endpoint}"
    try:
        yield
    except TimeoutError:
        raise DaemonUnreachable("unreachable", f"{where} does not answer; its log may say why") from None
    except PermissionError:
        text = f"{where} does not allow this user: use one that has access to its socket"
        raise NotAllowed("forbidden", text) from None
    except ConnectionBroken:
        raise _connection_broken(endpoint) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        advice = "start it, or set its address with --api or OPENGNS_API"
        raise DaemonUnreachable("unreachable", f"{where} cannot be reached ({reason}): {advice}") from None
    except (msgspec.MsgspecError, InvalidResponse, UnicodeDecodeError) as error:
        raise _invalid_response(endpoint, error) from None


def _connection_broken(endpoint: ApiEndpoint) -> ApiProblem:
    return DaemonUnreachable("unreachable", f"opengnscd at {endpoint} closed the connection; it may be restarting")


def _invalid_response(endpoint: ApiEndpoint, error: Exception) -> ApiProblem:
    text = f"the peer at {endpoint} is not an opengnscd that this version of compass understands ({error})"
    return ApiProblem("malformed", text)


_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (Dependencies, Resolved, Outcome, HostStatus, _Refused)
}
"""Decoders of answers, made at the import: two threads must not be the first to decode one type (`http._EVENTS`)."""


def _numbered(request: LocalRegister | LocalDeregister) -> dict[str, str] | None:
    """Return the header with what the process number of a request counts in. The daemon compares that with its own, and
    refuses a number that means another process there."""
    return {PROCESSES_HEADER: this_machine().processes} if request.pid else None

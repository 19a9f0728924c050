"""The blocking library for programs on a host: the API of the host's daemon (mission section 5), typed.

    api = HostApi(place_of("unix:/run/opengns/opengnscd.sock"))
    for peer in api.resolve("openuss").listeners:
        ...

Every call answers with a value of `compass.model.local` or raises `ApiProblem`, whose text says what to do next.
It uses nothing but the standard library's HTTP, so that a program that asks once starts and ends quickly.
"""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Literal, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from compass.model.local import (
    HostStatus,
    LocalDeregister,
    LocalEvent,
    LocalLoad,
    LocalRegister,
    LocalReport,
    LocalRequest,
    Outcome,
    Resolved,
)
from compass.model.replies import Dependencies
from compass.model.rows import Change

DEFAULT_SOCKET = "/run/opengns/opengnscd.sock"
DEFAULT_URL = "http://127.0.0.1:4866"
API_PORT = 4866

ANSWER_SECONDS = 30.0
"""For one answer: longer than the daemon itself waits for a server."""
SILENCE_SECONDS = 45.0
"""Without an event or a heartbeat, a watch is dead: three times the daemon's heartbeat."""
ANSWER_OCTETS_MAX = 64 * 1024 * 1024
"""Of one answer: four times the largest view that a server's frame can carry, spelled as JSON."""
LINE_OCTETS_MAX = ANSWER_OCTETS_MAX
"""Of one line of a watch, which holds a whole answer."""

T = TypeVar("T", bound=msgspec.Struct)


class ApiProblem(Exception):
    """Why there is no answer. `code`: the refusal's, or `unreachable` when the daemon itself does not answer."""

    def __init__(self, code: str, message: str, *, retry_after_seconds: float = 0.0, epoch: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.epoch = epoch


class PlaceProblem(ValueError):
    """An address of the API that cannot be used; the text says what would be right."""


class Place(msgspec.Struct, frozen=True):
    """Where the daemon listens: the path of a Unix socket, or an address and a port."""

    path: str = ""
    address: str = ""
    port: int = API_PORT

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"http://{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"


def place_of(text: str) -> Place:
    """Parse `unix:/path` or `http://127.0.0.1:4866`. Empty: the socket at its default path if there is one, else the
    default port. Raises PlaceProblem."""
    if not text:
        return Place(path=DEFAULT_SOCKET) if Path(DEFAULT_SOCKET).exists() else place_of(DEFAULT_URL)
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise PlaceProblem(f"{text!r}: write the whole path of the socket, as in unix:{DEFAULT_SOCKET}")
        return Place(path=path)
    try:
        parts = urlsplit(text)
        if parts.scheme == "http" and parts.hostname and not parts.path.strip("/") and not parts.query:
            return Place(address=parts.hostname, port=parts.port or API_PORT)
    except ValueError:
        pass
    raise PlaceProblem(f"{text!r} is no address of the host API: write unix:/PATH or {DEFAULT_URL}")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket; `unix` is the name that the daemon expects in the Host header."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("unix", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class HostApi:
    """The daemon of this host. Stateless: each call has a connection of its own, so threads may share one object."""

    def __init__(self, place: Place, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.place = place
        self._answer_seconds = answer_seconds

    def dependencies(self, service: str) -> Dependencies:
        """Function 2.3: what `service` depends on."""
        return self._ask(Dependencies, "GET", f"/v1/dependencies/{quote(service, safe='')}")

    def resolve(self, name: str) -> Resolved:
        """The listeners to use for a service or a category, best first; none is an answer, too."""
        return self._ask(Resolved, "GET", f"/v1/resolve/{quote(name, safe='')}")

    def register(self, request: LocalRegister) -> Outcome:
        """Function 2.1. For one with `hold` there is the method of that name."""
        return self._ask(Outcome, "POST", "/v1/register", request)

    def deregister(self, request: LocalDeregister) -> Outcome:
        """Function 2.2."""
        return self._ask(Outcome, "POST", "/v1/deregister", request)

    def report_load(self, request: LocalLoad) -> Outcome:
        """How busy a listener of this host is."""
        return self._ask(Outcome, "POST", "/v1/load", request)

    def report(self, request: LocalReport) -> Outcome:
        """Function 2.5."""
        return self._ask(Outcome, "POST", "/v1/report", request)

    def status(self) -> HostStatus:
        """The daemon in figures."""
        return self._ask(HostStatus, "GET", "/v1/status")

    def hold(self, request: LocalRegister, told: Callable[[Outcome], None]) -> None:
        """A registration with `hold`: calls `told` with its outcome, and comes back when the daemon ends it. It is
        over as soon as this call is, however it ends."""
        connection = self._connection()
        with self._asked(connection, "POST", "/v1/register", request) as response, self._translated():
            told(msgspec.json.decode(response.readline(LINE_OCTETS_MAX), type=Outcome))
            if connection.sock is not None:
                connection.sock.settimeout(None)
            while response.readline(LINE_OCTETS_MAX):
                pass

    def watch(self, service: str, last_event_id: int | None = None) -> Iterator[LocalEvent]:
        """The dependencies of `service` and then each change of them, until the connection ends.

        With the revision of the last event seen, only what came later. Ends, or raises ApiProblem, when the
        connection is lost; to go on, call again with the last event's revision.
        """
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        path = f"/v1/watch?service={quote(service, safe='')}"
        connection = self._connection()
        with self._asked(connection, "GET", path, headers=headers) as response:
            if connection.sock is not None:
                connection.sock.settimeout(SILENCE_SECONDS)
            lines: list[str] = []
            while line := self._line(response):
                lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
                if lines[-1] == "":
                    event = event_of(lines)
                    lines = []
                    if event is not None:
                        yield event

    def _line(self, response: http.client.HTTPResponse) -> bytes:
        with self._translated():
            return response.readline(LINE_OCTETS_MAX)

    def _ask(self, kind: type[T], method: str, path: str, request: LocalRequest | None = None) -> T:
        with self._asked(self._connection(), method, path, request) as response, self._translated():
            return msgspec.json.decode(_whole(response), type=kind)

    @contextmanager
    def _asked(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        request: LocalRequest | None = None,
        headers: dict[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """The response to a request, once it is known not to be a refusal; the connection ends with the block."""
        body = None if request is None else msgspec.json.encode(request)
        sent = {} if request is None else {"Content-Type": "application/json"}
        try:
            with self._translated():
                connection.request(method, path, body, {**sent, **(headers or {})})
                response = connection.getresponse()
                if response.status not in (200, 202):
                    self._refused(response.status, _whole(response))
            yield response
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.place.path:
            return _UnixConnection(self.place.path, self._answer_seconds)
        return http.client.HTTPConnection(self.place.address, self.place.port, timeout=self._answer_seconds)

    def _refused(self, status: int, body: bytes) -> NoReturn:
        try:
            said = msgspec.json.decode(body, type=_Refused)
        except msgspec.MsgspecError:
            if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            text = f"opengnscd at {self.place} failed (HTTP status {status}); its log says why"
            raise ApiProblem("unreachable", text) from None
        raise ApiProblem(said.code, said.message, retry_after_seconds=said.retry_after_seconds, epoch=said.epoch)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what goes wrong between here and the daemon into words."""
        where = f"opengnscd at {self.place}"
        try:
            yield
        except TimeoutError:
            raise ApiProblem("unreachable", f"{where} does not answer; its log may say why") from None
        except PermissionError:
            text = f"{where} may not be asked by this user: become one that the permissions of its socket admit"
            raise ApiProblem("forbidden", text) from None
        except http.client.IncompleteRead:
            raise ApiProblem("unreachable", f"{where} broke off; it may be restarting") from None
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            advice = "start it, or say where it listens with --api or OPENGNS_API"
            raise ApiProblem("unreachable", f"{where} cannot be reached ({reason}): {advice}") from None
        except (msgspec.MsgspecError, http.client.HTTPException, UnicodeDecodeError) as error:
            text = f"what answers at {self.place} is no opengnscd that this opengnsc understands ({error})"
            raise ApiProblem("malformed", text) from None


def _whole(response: http.client.HTTPResponse) -> bytes:
    """The body; a read with a limit would take one that is cut short for whole."""
    data = response.read(ANSWER_OCTETS_MAX)
    if response.length:
        raise http.client.IncompleteRead(data, response.length)
    return data


class _Refused(msgspec.Struct, frozen=True):
    """A refusal whose code may be newer than this program."""

    code: str
    message: str
    retry_after_seconds: float = 0.0
    epoch: int = 0


def event_of(lines: list[str]) -> LocalEvent | None:
    """One event from the lines of a block (HTML Living Standard, section 9.2.6), or None if there is none in it or it
    is of a kind that this program does not know. Raises ApiProblem when it cannot be read."""
    fields = {"event": "", "id": "", "data": ""}
    for line in lines:
        name, _, value = line.partition(":")
        if name in fields:
            fields[name] += value.removeprefix(" ")
    kinds: dict[str, tuple[Literal["snapshot", "change"], type[Dependencies] | type[Change]]] = {
        "snapshot": ("snapshot", Dependencies),
        "change": ("change", Change),
    }
    if fields["event"] not in kinds:
        return None
    kind, shape = kinds[fields["event"]]
    try:
        return LocalEvent(kind, int(fields["id"]), msgspec.json.decode(fields["data"], type=shape))
    except (ValueError, msgspec.MsgspecError) as error:
        text = f"the daemon sent an event that this opengnsc does not understand ({error})"
        raise ApiProblem("malformed", text) from None

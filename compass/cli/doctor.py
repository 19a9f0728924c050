"""Checks of a host from end to end, for `opengnsc doctor`: daemon, session, certificates, clock, view, listeners, DNS.

Each check says what was found, and a failed one what to do next.
"""

from __future__ import annotations

import ctypes
import secrets
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from compass.client.core.blocking_api import ApiProblem, HostApi
from compass.model.host_api import CertificateStatus, HostStatus, KnownServer, RegistrationStatus
from compass.model.names import InvalidName, format_endpoint, parse_endpoint

DNS_SECONDS = 2.0
"""Time limit of a query to the daemon itself, which answers from memory."""
RESOLVER_SECONDS = 10.0
"""Time limit of a lookup by the system's resolver, which may ask several servers."""
DNS_OCTETS_MAX = 4096
"""Octets that are read of an answer; only its header counts."""
SERVICES_ASKED_MAX = 20
"""Own services whose dependencies are searched for a name to look up."""
SOA, IN, NO_ERROR = 6, 1, 0
"""Type, class and response code of DNS (RFC 1035, sections 3.2.2, 3.2.4 and 4.1.1)."""
STA_UNSYNC = 0x0040
"""Status bit of adjtimex(2): the clock is not synchronised."""
TIMEX_OCTETS = 512
"""Room for `struct timex`, of which the kernel writes 208 octets on 64-bit machines."""
TIMEX_STATUS_OFFSET = 5 * ctypes.sizeof(ctypes.c_long)
"""Offset of `status` in it: behind `modes` with its padding, and four long integers."""
START = "'systemctl status opengnscd' shows whether it runs, and why it ended"
DNS_PAGE = "docs/howto/dns.md shows how"


class Check(msgspec.Struct, frozen=True):
    """Result of one check."""

    name: str
    ok: bool
    found: str
    next: str = ""
    """Advice; of a check that is ok, for some day."""

    @property
    def mark(self) -> str:
        """First word of its line."""
        return "ok" if self.ok else "failed"


def examine(api: HostApi) -> Iterator[Check]:
    """Yield all checks, in the order in which they depend on each other."""
    try:
        status = api.status()
    except ApiProblem as problem:
        yield Check("daemon", False, problem.message, START)
        return
    yield Check("daemon", True, f"opengnscd of host {status.host} answers at {api.endpoint}")
    yield from map(_certificate, status.certificates)
    yield _clock()
    yield _session(status)
    for server in status.servers:
        if server.problem and server.state != "open":
            yield _server(server)
    yield _view(status)
    for warning in status.warnings:
        found, _, advice = warning.partition("; ")
        yield Check("warning", False, found, advice)
    yield from map(_registration, status.registrations)
    for name in status.unanswered:
        advice = f"start one, or see why there is none: opengnsadmin explain {name.name} --host {status.host}"
        yield Check("lookup", False, f"{name.name} is asked for and has no listener", advice)
    yield from _dns(api, status)


def lines_of(checks: list[Check]) -> list[str]:
    """Format the checks as lines, each with its advice below it."""
    lines = []
    for one in checks:
        lines.append(f"{one.mark:<7} {one.name:<12} {one.found}")
        if one.next:
            lines.append(f"{'':<20} -> {one.next}")
    failed = sum(not one.ok for one in checks)
    lines.append(f"{failed or 'None'} of {len(checks)} checks failed.")
    return lines


def _certificate(one: CertificateStatus) -> Check:
    ends = datetime.fromtimestamp(one.ends_at, UTC)
    found, _, advice = one.problem.partition("; ")
    valid = f"{one.subject}, until {ends:%Y-%m-%d}"
    return Check(f"tls {one.role}", one.condition != "invalid", found or valid, advice)


def _clock() -> Check:
    """Check that a time service keeps this machine's clock. A container shares the clock of its machine."""
    state = ctypes.create_string_buffer(TIMEX_OCTETS)
    try:
        outcome = ctypes.CDLL(None, use_errno=True).adjtimex(state)
    except AttributeError:
        outcome = -1
    if outcome < 0:
        return Check("clock", True, "this system does not say whether its clock is synchronised")
    bits = ctypes.c_int.from_buffer(state, TIMEX_STATUS_OFFSET).value
    now = datetime.now(UTC)
    if bits & STA_UNSYNC:
        advice = "run chrony, ntpd or systemd-timesyncd: certificates and epochs of registrations need the time"
        return Check("clock", True, f"{now:%Y-%m-%d %H:%M:%S} UTC, not synchronised", advice)
    return Check("clock", True, f"{now:%Y-%m-%d %H:%M:%S} UTC, synchronised")


def _session(status: HostStatus) -> Check:
    if status.session == "open":
        return Check("session", True, f"open to {status.server}", status.problem)
    why = status.problem or "no server has been reached yet"
    advice = "see the servers below; lookups go on from the last view meanwhile"
    return Check("session", False, f"{status.session}: {why}", advice)


def _server(server: KnownServer) -> Check:
    again = f", next attempt in {server.next_try_seconds:.0f} s" if server.next_try_seconds else ""
    found = f"{server.name} at {server.endpoint} ({server.source}): {server.problem}{again}"
    advice = f"check name, port and network with 'opengnsadmin --server {server.endpoint} doctor'"
    return Check("server", server.state == "ready", found, advice)


def _view(status: HostStatus) -> Check:
    if not status.loaded:
        return Check("view", False, "not loaded: nothing can be resolved", "let the daemon reach a server once")
    found = f"revision {status.revision}, {status.listeners} listeners"
    if not status.services:
        advice = "register a service here, or name it in 'services' of [host]: its dependencies are followed"
        return Check("view", True, f"{found}, for no service", advice)
    return Check("view", True, f"{found}, for {', '.join(status.services)}")


def _registration(own: RegistrationStatus) -> Check:
    name = f"{own.service} {format_endpoint(own.address, own.port)}"
    failing = own.own_check.failing if own.own_check is not None else ""
    problems = [one for one in (own.problem, own.unverified, failing) if one]
    state = own.state if own.state != "registered" or not problems else "registered, but"
    text, _, advice = "; ".join(problems).partition("; ")
    return Check("listener", own.state == "registered" and not problems, f"{name}: {state} {text}".strip(), advice)


def _dns(api: HostApi, status: HostStatus) -> Iterator[Check]:
    """Yield the check of the daemon's own answers, and of the way that names take from the system's resolver."""
    if not status.dns:
        yield Check("dns", True, "not answered by this daemon", "[host.dns] in its configuration switches it on")
        return
    problem = zone_problem(status.dns, status.dns_zone)
    if problem:
        yield Check("dns", False, f"{status.dns}: {problem}", "restart the daemon if its configuration has changed")
        return
    yield Check("dns", True, f"{status.dns} answers for the zone {status.dns_zone}")
    known = _a_known_service(api, status)
    if known is None:
        yield Check("forwarding", True, "not tried: no dependency of this host has a listener")
        return
    name = f"{known}.{status.dns_zone}"
    problem = resolver_problem(name)
    advice = f"let the resolver of this machine forward the zone {status.dns_zone} to {status.dns}; {DNS_PAGE}"
    found = f"the system's resolver does not find {name}: {problem}" if problem else f"{name} is found"
    yield Check("forwarding", not problem, found, advice if problem else "")


def _a_known_service(api: HostApi, status: HostStatus) -> str | None:
    """Return a service with a usable listener that this host depends on; None: there is none."""
    for own in status.services[:SERVICES_ASKED_MAX]:
        try:
            categories = api.dependencies(own).categories
        except ApiProblem:
            continue
        for service in (one for category in categories for one in category.services):
            if any(peer.state == "up" for peer in service.listeners):
                return service.id
    return None


def zone_problem(endpoint: str, zone: str) -> str:
    """Ask a server for the SOA record of a zone over UDP. Returns why it does not answer; empty: it does."""
    try:
        address, port = parse_endpoint(endpoint)
    except InvalidName as problem:
        return str(problem)
    number = secrets.token_bytes(2)
    labels = b"".join(bytes([len(label)]) + label for label in zone.encode().split(b"."))
    question = number + bytes([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + labels + bytes([0, 0, SOA, 0, IN])
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(DNS_SECONDS)
        try:
            asked.connect((address, port))
            asked.send(question)
            answer = asked.recv(DNS_OCTETS_MAX)
        except TimeoutError:
            return f"no answer within {DNS_SECONDS:g} s"
        except OSError as error:
            return error.strerror or str(error)
    if len(answer) < len(question) or answer[:2] != number:
        return "what answers there is no DNS server"
    code = answer[3] & 0x0F
    return "" if code == NO_ERROR else f"it answers with response code {code}"


def resolver_problem(name: str) -> str:
    """Look a name up by the system's resolver. Returns why it is not found; empty: it is."""
    outcome: list[str] = []

    def look_up() -> None:
        try:
            socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            outcome.append("")
        except (OSError, UnicodeError) as error:
            outcome.append(getattr(error, "strerror", None) or str(error))

    lookup = threading.Thread(target=look_up, daemon=True)
    lookup.start()
    lookup.join(RESOLVER_SECONDS)
    return outcome[0] if outcome else f"no answer within {RESOLVER_SECONDS:g} s"

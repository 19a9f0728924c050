"""The goals, as ratios of what one run has measured: met, not met, or not measured."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from bench.statistics import Book

SHORTEST_LEASE_MS = 2_000.0
"""The shortest lease etcd grants with its default election time-out of 1 s; ZooKeeper's shortest session is 4 s."""

Value = float | None


class Goal(msgspec.Struct, frozen=True):
    """`value` must be at most, or with `least` at least, `bound`."""

    workload: str
    text: str
    bound: float
    value: Value
    least: bool = False
    unit: str = "x"

    @property
    def verdict(self) -> str:
        """Result in two words at most."""
        if self.value is None:
            return "not measured"
        return "met" if (self.value >= self.bound if self.least else self.value <= self.bound) else "not met"


def goals(book: Book) -> list[Goal]:
    """All of them, from what is in the book."""
    return [
        *_registrations(book),
        *_fan_out(book),
        *_lists(book),
        *_starts(book),
        *_lookups(book),
        *_incidents(book),
        *_growth(book),
    ]


def _ratio(ours: Value, theirs: Value) -> Value:
    return None if ours is None or not theirs else ours / theirs


def _reader(book: Book, workload: str, metric: str) -> Callable[..., Value]:
    def read(system: str, clients: int, *, tls: bool = False) -> Value:
        return book.median(workload, system, metric, tls=tls, clients=clients)

    return read


def _registrations(book: Book) -> list[Goal]:
    rate, p50 = _reader(book, "B1 registrations", "rate"), _reader(book, "B1 registrations", "p50")
    found = []
    for clients in (64, 512):
        ours = rate("compass", clients)
        for peer, bound in (("etcd", 2.0), ("ZooKeeper", 1.3)):
            text = f"registrations, {clients} clients, plaintext, against {peer}"
            found.append(Goal("B1", text, bound, _ratio(ours, rate(peer, clients)), least=True))
        text = f"registrations, {clients} clients, our TLS against etcd's plaintext"
        found.append(
            Goal("B1", text, 1.2, _ratio(rate("compass", clients, tls=True), rate("etcd", clients)), least=True)
        )
    found.append(
        Goal("B1", "p50 of a lone client, plaintext, against etcd", 1.2, _ratio(p50("compass", 1), p50("etcd", 1)))
    )
    return found


def _fan_out(book: Book) -> list[Goal]:
    last, memory = _reader(book, "B2 fan-out", "to the last"), _reader(book, "B2 fan-out", "memory a session")
    n, ours = 10_000, last("compass", 10_000)
    return [
        Goal("B2", "10,000 watchers, plaintext, against etcd", 0.6, _ratio(ours, last("etcd", n))),
        Goal(
            "B2",
            "10,000 watchers, TLS, against etcd's TLS",
            0.8,
            _ratio(last("compass", n, tls=True), last("etcd", n, tls=True)),
        ),
        Goal(
            "B2",
            "10,000 watchers, plaintext, against ZooKeeper with its re-read",
            1 / 3,
            _ratio(ours, last("ZooKeeper", n)),
        ),
        Goal(
            "B2",
            "10,000 watchers, plaintext, against a bare loop of send",
            1.3,
            _ratio(ours, last("bare send loop", n)),
        ),
        Goal("B2", "memory a session, plaintext", 8.0, memory("compass", n), unit="kB"),
        Goal("B2", "memory a session, TLS", 30.0, memory("compass", n, tls=True), unit="kB"),
    ]


def _lists(book: Book) -> list[Goal]:
    rate = _reader(book, "B3 lists", "rate")
    bounds = (("etcd", 5.0), ("ZooKeeper", 4.0), ("bare Twisted echo", 0.6))
    ours = rate("compass", 64)
    return [
        Goal("B3", f"lists, plaintext, against {peer}", b, _ratio(ours, rate(peer, 64)), least=True)
        for peer, b in bounds
    ]


def _starts(book: Book) -> list[Goal]:
    full = book.median("B4 cold start", "compass", "all in step", tls=True, clients=10_000)
    resumed = book.median("B4 cold start, resumed", "compass", "all in step", tls=True, clients=10_000)
    return [
        Goal("B4", "10,000 hosts in step, full mutual handshakes", 10.0, full, unit="s"),
        Goal("B4", "10,000 hosts in step, resumed", 5.0, resumed, unit="s"),
    ]


def _lookups(book: Book) -> list[Goal]:
    def p50(system: str) -> Value:
        return book.median("B6 lookups", system, "p50", tls=False, clients=1)

    library = p50("compass library")
    found = [Goal("B6", "a lookup in the client library", 0.25, library, unit="us")]
    for place in ("same core", "other core"):
        dns, dnsmasq = p50(f"compass DNS, {place}"), p50(f"dnsmasq, {place}")
        text = f"dnsmasq's query against the library's lookup, {place}"
        found.append(Goal("B6", text, 250.0, _ratio(dnsmasq, library), least=True))
        found.append(Goal("B6", f"p50 of the host's DNS against dnsmasq, {place}", 2.0, _ratio(dns, dnsmasq)))
    return found


def _incidents(book: Book) -> list[Goal]:
    took = book.median("B7 killed process", "compass", "to the last", tls=True, clients=1_000)
    ratio = None if took is None else SHORTEST_LEASE_MS / took
    return [
        Goal("B7", "kill to the last of 1,000 dependants", 100.0, took, unit="ms"),
        Goal("B7", "faster than the shortest lease or session of the peers", 20.0, ratio, least=True),
    ]


def _growth(book: Book) -> list[Goal]:
    sizes = sorted({n for (w, _, _, n, _, _) in book.values if w == "B8 registrations"})
    if len(sizes) < 2:
        return []
    small, large = sizes[0], sizes[-1]
    bound = math.log(large) / math.log(small)
    found = []
    for what in ("registrations", "lists", "fan-out"):
        cost = _reader(book, f"B8 {what}", "cpu")
        text = f"cost of {what}, {large:,} listeners against {small:,}"
        found.append(Goal("B8", text, bound, _ratio(cost("compass", large), cost("compass", small))))
    return found

"""Listeners as targets of Prometheus (its `http_sd_configs`).

Prometheus keeps its targets when the status of an answer is not 200, so the three answers of P5 are safe: a view that
is not loaded (503) and an unknown name (404) remove no target, and only the statement that nothing is registered (200
and an empty list) does. A listener that is down is listed, because operators want to see it. Its state is a label, by
which a relabelling rule may drop it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import msgspec

from compass.gateway.http.openapi import Operation
from compass.model.names import Label, category_of, format_endpoint
from compass.model.rows import Listener

_META = "__meta_opengns_"
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")


class TargetGroup(msgspec.Struct, frozen=True):
    """Listener as a target, with labels for relabelling rules."""

    targets: tuple[str, ...]
    labels: dict[str, str]


class CategoryAsked(msgspec.Struct, frozen=True):
    """Category whose listeners to return."""

    category: Label


PROMETHEUS = Operation(
    method="GET",
    path="/v1/prometheus/{category}",
    summary="Every registered listener of a category, for Prometheus' http_sd_configs.",
    asks=CategoryAsked,
    answers=tuple[TargetGroup, ...],
)


def target_groups(listeners: Iterable[Listener]) -> tuple[TargetGroup, ...]:
    """Return a group for each listener, ordered by service, address and port: unchanged data give the same answer."""
    ordered = sorted(listeners, key=lambda peer: (peer.service, peer.address, peer.port))
    return tuple(TargetGroup((format_endpoint(peer.address, peer.port),), _labels(peer)) for peer in ordered)


def _labels(peer: Listener) -> dict[str, str]:
    labels = {
        f"{_META}service": peer.service,
        f"{_META}category": category_of(peer.service),
        f"{_META}state": peer.state,
        f"{_META}host": peer.host,
        f"{_META}weight": str(peer.weight),
    }
    return labels | {f"{_META}metadata_{name}": peer.metadata[key] for name, key in _label_names(peer.metadata).items()}


def _label_names(keys: Iterable[str]) -> dict[str, str]:
    """Return the keys of metadata by the part of a label's name that each becomes.

    The name of a label has letters, digits and underscores only (Prometheus, "Data model"). Each other character is an
    underscore. A key that has no letter or digit left then, or the same name as another key, gets its octets in
    hexadecimal digits in addition, so that no key hides another. A key that is such a name already keeps it.
    """
    names = {key: _NO_LABEL.sub("_", key) for key in keys}
    counts = Counter(names.values())
    found: dict[str, str] = {}
    for key, name in sorted(names.items()):
        is_clear = name == key or (counts[name] == 1 and name.strip("_"))
        while not is_clear:
            name = f"{name}_{key.encode().hex()}"
            is_clear = name not in names and name not in found
        found[name] = key
    return found

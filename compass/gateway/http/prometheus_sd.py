"""Listeners as Prometheus discovers its targets by HTTP (its `http_sd_configs`).

Prometheus keeps the targets that it has when it is not answered with 200, so the three answers of P5 are safe there as
they are: a view that is not loaded (503) and a name that there is not (404) take nothing away, and only the statement
that nothing is registered (200 and an empty list) does. A listener that is down is listed: it is what one wants to
look at. Its state is a label, by which a relabelling rule may leave it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from compass.model.names import category_of, format_endpoint
from compass.model.rows import Listener

_META = "__meta_opengns_"
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")


class TargetGroup(msgspec.Struct, frozen=True):
    """One listener: the target, and labels that a relabelling rule can read."""

    targets: tuple[str, ...]
    labels: dict[str, str]


def target_groups(listeners: Iterable[Listener]) -> tuple[TargetGroup, ...]:
    """A group for each listener, in the order of service, address and port: the same answer while nothing changes."""
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
    # A name of a label has letters, digits and underscores only (Prometheus, "Data model").
    labels |= {f"{_META}metadata_{_NO_LABEL.sub('_', key)}": value for key, value in sorted(peer.metadata.items())}
    return labels

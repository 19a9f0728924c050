"""Decisions about instances that are recorded for a host which does not hold them (opengnsp, "Rows and books").

A host's book may be lost, and a store may be restored from a backup: then a row is left whose end no host will notice.
Its host says so, and the row becomes suspect. The failure detector probes it as every suspect one; an answered probe
does not bring it back, because another program may have the address and port by now. It is registered again, or it
ends. The open incident about it is the mark that it is not held.
"""

from __future__ import annotations

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.limits import DETAIL_MAX, INSTANCES_PER_MESSAGE_MAX
from compass.model.names import format_endpoint, parse_address, parse_port, parse_service_id
from compass.model.replies import Done
from compass.model.requests import Disown
from compass.model.rows import FAILING, Listener
from compass.model.rules.draft import Draft, refuse, unheld_id
from compass.model.text import escape_line

UNHELD = "its host does not hold it"
"""Beginning of the cause of such a listener."""


def is_unheld(catalogue: Catalogue, listener: Listener) -> bool:
    """Return whether a listener is out of use because its host does not hold it."""
    return bool(catalogue.alerts) and listener.state in FAILING and unheld_id(listener) in catalogue.alerts


def is_recorded_for(listener: Listener | None, host: str, epoch: int) -> bool:
    """Return whether a row is that of this instance of a host, and not offline."""
    return listener is not None and listener.host == host and listener.epoch == epoch and listener.state != "offline"


def decide_disown(draft: Draft, request: Disown) -> Done:
    """Mark the instances that their host does not hold. One that is recorded differently by now stays as it is."""
    if len(request.instances) > INSTANCES_PER_MESSAGE_MAX:
        refuse("too-large", f"{len(request.instances)} instances in one request; at most {INSTANCES_PER_MESSAGE_MAX}")
    for instance in request.instances:
        service, address = parse_service_id(instance.service), parse_address(instance.address)
        row = draft.catalogue.listener(service, address, parse_port(instance.port))
        if row is not None and is_recorded_for(row, draft.principal.name, instance.epoch):
            _disown(draft, row, request.detail)
    return Done(draft.catalogue.revision)


def _disown(draft: Draft, row: Listener, detail: str) -> None:
    if is_unheld(draft.catalogue, row):
        return
    why = f": {detail}" if detail else ""
    endpoint = format_endpoint(row.address, row.port)
    # Before the row changes, so that all who follow the row know why.
    draft.open_incident(
        unheld_id(row),
        f"{row.service} at {endpoint} is recorded for host {row.host}, which does not hold it{why}; it is used last "
        f"until it is registered again. If it has ended, run 'opengnsadmin listener remove {row.service} {endpoint}'",
    )
    if row.state != "down":
        cause = escape_line(f"{UNHELD}{why}", DETAIL_MAX)
        draining = row.draining or row.state == "draining"
        lost = msgspec.structs.replace(row, state="suspect", changed_at=draft.now, cause=cause, draining=draining)
        draft.set("disown", lost)

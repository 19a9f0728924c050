"""Parameters of a registration: the bounds of what describes a listener to its users."""

from __future__ import annotations

from compass.model.limits import METADATA_ENTRIES_MAX, METADATA_KEY_MAX, METADATA_VALUE_MAX, WEIGHT_MAX
from compass.model.requests import Register
from compass.model.rules.draft import refuse
from compass.model.rules.own_checks import check_texts
from compass.model.rules.shares import check_metadata


def check_parameters(request: Register) -> None:
    """Check the parameters of a registration. Raises Refused."""
    if not 0 <= request.weight <= WEIGHT_MAX:
        refuse("bad-value", f"weight {request.weight} is not between 0 and {WEIGHT_MAX}")
    for name, share in (("load", request.load), ("degradation", request.degradation)):
        if not 0 <= share <= 1:
            refuse("bad-value", f"{name} {share:g} is no share: from 0 (idle) to 1 (full)")
    if len(request.metadata) > METADATA_ENTRIES_MAX:
        refuse("bad-value", f"metadata has {len(request.metadata)} entries; at most {METADATA_ENTRIES_MAX}")
    for key, value in request.metadata.items():
        if not 1 <= len(key) <= METADATA_KEY_MAX:
            refuse("bad-value", f"metadata key {key[:80]!r} has {len(key)} characters; 1 to {METADATA_KEY_MAX}")
        if len(value) > METADATA_VALUE_MAX:
            refuse("bad-value", f"metadata {key!r} has {len(value)} characters; at most {METADATA_VALUE_MAX}")
    if request.metadata:
        check_metadata(request.metadata)
    if request.check or request.failing:
        check_texts(request)

"""Attempts at a batch: what it comes to, decided after what others have committed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from compass.model.catalogue import Catalogue
from compass.model.draft import Decision
from compass.model.replies import SecurityEntry
from compass.model.rows import Change
from compass.model.storage import Proposal

Passed: TypeAlias = frozenset[int]
"""The numbers of the decisions of a batch whose entries for the security log are not worth a row."""


class Attempt(msgspec.Struct, frozen=True):
    """A batch as decided after the changes of others in `missed`, which our catalogue does not have yet."""

    decisions: list[Decision]
    proposal: Proposal
    missed: Sequence[Change]


def attempt(
    decisions: list[Decision], notes: list[SecurityEntry], passed: Passed, missed: Sequence[Change] = ()
) -> Attempt:
    """What these decisions come to together; `notes` go into the security log with them."""
    found = [one.security for number, one in enumerate(decisions) if one.security and number not in passed]
    proposal = Proposal(
        changes=[change for decision in decisions for change in decision.changes],
        security=[*notes, *found],
        administration=[decision.administration for decision in decisions if decision.administration],
    )
    return Attempt(decisions, proposal, missed)


def after(catalogue: Catalogue, changes: Iterable[Change]) -> Catalogue:
    """The catalogue that changes lead to."""
    for change in changes:
        catalogue = catalogue.apply(change)
    return catalogue

"""Attempts at a batch: what it comes to, decided after what others have committed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.digest import DigestDelta
from compass.model.interfaces import Proposal
from compass.model.replies import SecurityEntry
from compass.model.rows import Change
from compass.model.rules.draft import Decision

Passed: TypeAlias = frozenset[int]
"""The numbers of the decisions of a batch whose entries for the security log are not worth a row."""


class DecidedBatch(msgspec.Struct, frozen=True):
    """A batch as decided after the changes of others in `missed`, which our catalogue does not have yet."""

    decisions: list[Decision]
    proposal: Proposal
    missed: Sequence[Change]
    steps: list[DigestDelta]
    """What those and the proposal's changes do to the digests."""


def changes_of(decisions: Iterable[Decision]) -> list[Change]:
    """All that they change, in order."""
    return [change for decision in decisions for change in decision.changes]


def attempt(
    decisions: list[Decision],
    notes: list[SecurityEntry],
    passed: Passed,
    missed: Sequence[Change],
    digested: tuple[list[DigestDelta], str],
) -> DecidedBatch:
    """What these decisions come to together; `notes` go into the security log with them. `digested`: what `missed` and
    then these do to the digests, and the digest after all of it."""
    steps, digest = digested
    found = [one.security for number, one in enumerate(decisions) if one.security and number not in passed]
    proposal = Proposal(
        changes=changes_of(decisions),
        security=[*notes, *found],
        administration=[decision.administration for decision in decisions if decision.administration],
        digest=digest,
    )
    return DecidedBatch(decisions, proposal, missed, steps)


def after(catalogue: Catalogue, changes: Iterable[Change]) -> Catalogue:
    """The catalogue that changes lead to."""
    for change in changes:
        catalogue = catalogue.apply(change)
    return catalogue

"""Command `explain`: why the listeners of a name are returned or not."""

from __future__ import annotations

from typing import cast

import click

from compass.admin.shell.context import AdminContext, failure_of, no_such
from compass.admin.shell.decorators import command
from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.lookup_scope import parse_name
from compass.model.explanation.lookup import explain, sentences_of
from compass.model.names import category_of, parse_host_name
from compass.model.replies import Refusal
from compass.model.requests import Fetch
from compass.model.rows import Category, Host


def explain_command(group: click.Group) -> None:
    """Add `explain` to the program."""

    @command(
        group,
        "explain",
        "explain chinaserver.openuss",
        "explain openuss --host web1.example.net",
        "explain openuss --json | jq -r '.listeners[] | select(.returned).address'",
    )
    @click.argument("name")
    @click.option("--host", metavar="NAME", default="", help="The host that looks the name up.")
    def explain_name(context: AdminContext, name: str, host: str) -> None:
        """Explain which listeners a lookup of a service or a category returns now, and why the others are not.

        The answer follows from the rows of the server you ask, which may be of any version. A host that has lost its
        session, or that avoids a listener since its own report, can answer otherwise until it is connected again.
        """
        parsed = parse_name(name)
        if isinstance(parsed, Refusal):
            raise failure_of(parsed)
        asker = _host(context, host) if host else None
        found = explain(_catalogue(context, parsed), parsed, asker)
        if isinstance(found, Refusal):
            raise failure_of(found)
        context.print_result(list(sentences_of(found)), found)


def _host(context: AdminContext, host: str) -> Host:
    fetch = Fetch("host", name=parse_host_name(host))
    rows = context.rows(fetch)[0].rows
    if not rows:
        raise no_such("unknown-host", f"there is no host {host!r}; 'opengnsadmin host list' shows all")
    return cast(Host, rows[0])


def _catalogue(context: AdminContext, name: str) -> Catalogue:
    """Return the part of the server's catalogue that the explanation needs."""
    category = category_of(name) or name
    rows = context.rows(Fetch("category", name=category))[0].rows
    backup = cast(Category, rows[0]).backup if rows else ""
    places = dict.fromkeys((category, *([category_of(backup)] if backup else [])))
    wanted = [Fetch("category"), Fetch("dependency")]
    wanted += [Fetch("service", within=place) for place in places]
    wanted += [Fetch("listener", within=place) for place in places]
    parts = context.rows(*wanted)
    return catalogue_of((row for part in parts for row in part.rows), {}, max(part.revision for part in parts))

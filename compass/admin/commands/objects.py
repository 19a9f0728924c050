"""Commands `category`, `service`, `dependency`, `credential`, `host`: the declared part of the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click
import msgspec

from compass.admin.shell import build_request
from compass.admin.shell.context import AdminContext, output_file
from compass.admin.shell.decorators import DURATION, command
from compass.admin.shell.formats import as_json
from compass.admin.shell.tables import policy_fields, sentences, table_of_hosts, table_of_row, table_of_rows
from compass.model.names import category_of, parse_host_name, parse_label, parse_service_id
from compass.model.replies import CredentialIssued, Done
from compass.model.requests import Fetch, IssueCredential, Put, Remove, RevokeCredential
from compass.model.rows import Category, Dependency, Host, Listener, Row, Service
from compass.model.selection.policies import LOCALITIES, POLICIES
from compass.system.command_line import CheckedGroup


def print_done(context: AdminContext, request: Put | Remove | RevokeCredential) -> None:
    """Send a change and print its result."""
    reply = context.ask(request, Done)
    context.print_result(sentences(reply), reply)


def list_rows(context: AdminContext, fetch: Fetch) -> None:
    """Fetch rows and print them."""
    reply = context.rows(fetch)[0]
    context.print_result(table_of_rows(fetch.kind, reply.rows, context.time_format), reply)


@click.group("category", cls=CheckedGroup)
def category() -> None:
    """Categories: kinds of service, such as web or openuss. Dependencies are declared between them.

    A category may name a backup service, which users get when one of its services has no usable listener left. Its
    policy defines how reports about its listeners are checked.
    """


_POLICY = (
    click.option("--backup", metavar="SERVICE", help="Backup service (its id), used if no listener is usable."),
    click.option("--probe", metavar="tcp|http:/PATH|none", help="Probe of a reported listener; none: for UDP."),
    click.option(
        "--slow",
        type=click.Choice(["alert", "notify"]),
        help="Slow listeners: alert administrators only, or notify users too.",
    ),
    click.option("--probe-timeout-seconds", type=float, help="Time limit of a probe."),
    click.option("--probe-attempts", type=int, help="Failed probes after which a listener is down."),
    click.option("--recovery-seconds", type=float, help="Seconds before a listener that is down is probed again."),
    click.option("--reporters", type=int, help="Reporting hosts after which a listener is suspect without a probe."),
    click.option("--witnesses", type=int, help="Other hosts that must probe a listener before it is down."),
    click.option("--cap", type=float, help="Greatest share of the listeners that may be down at once."),
    click.option("--grace-seconds", type=float, help="Seconds from the loss of a host until its listeners are probed."),
    click.option("--flaps", type=int, help="Times a listener may go down within --flap-seconds before it is kept out."),
    click.option("--flap-seconds", type=float, help="Period for --flaps."),
    click.option("--pool", type=click.Choice(POLICIES), help="Order in which listeners are returned to users."),
    click.option("--locality", type=click.Choice(LOCALITIES), help="Listeners that count as near and come first."),
    click.option("--hold-seconds", type=float, help="Seconds that a flapping listener is kept out; doubles each time."),
    click.option(
        "--open/--closed",
        default=None,
        help="In development mode: registrations need no credential and declare their services.",
    ),
)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@command(category, "add", "category add web", "category add openuss --probe http:/health", options=_POLICY)
@click.argument("name")
def category_add(context: AdminContext, name: str, **changes: Any) -> None:
    """Add a category NAME: one DNS label."""
    print_done(context, build_request.add_category(name, _given(changes)))


@command(
    category,
    "set",
    "category set openuss --backup emergency.rescue",
    "category set openuss --no-backup --slow notify",
    options=_POLICY,
)
@click.option("--no-backup", is_flag=True, help="Remove the backup service.")
@click.argument("name")
def category_set(context: AdminContext, name: str, no_backup: bool, **changes: Any) -> None:
    """Change a category. Values without an option stay unchanged."""
    given = _given(changes)
    if no_backup and "backup" in given:
        raise click.UsageError("--backup and --no-backup exclude each other")
    if no_backup:
        given["backup"] = ""
    if not given:
        raise click.UsageError("nothing to change; use at least one option, see --help")
    print_done(context, build_request.change_category(_category(context, name), given))


@command(category, "list", "category list", "category list --json", watchable=True)
def category_list(context: AdminContext) -> None:
    """List the categories."""
    list_rows(context, Fetch("category"))


@command(category, "show", "category show openuss", watchable=True)
@click.argument("name")
def category_show(context: AdminContext, name: str) -> None:
    """Show a category with its services, what it depends on, and what depends on it."""
    row = _category(context, name)
    services, dependencies = context.rows(Fetch("service", within=row.name), Fetch("dependency", within=row.name))
    ids = [service.id for service in services.rows if isinstance(service, Service)]
    pairs = [pair for pair in dependencies.rows if isinstance(pair, Dependency)]
    needs = [pair.on for pair in pairs if pair.category == row.name]
    dependants = [pair.category for pair in pairs if pair.on == row.name]
    related = {"services": ids, "depends_on": needs, "dependants": dependants}
    more = [(title.replace("_", " "), " ".join(names)) for title, names in related.items()]
    context.print_result(
        table_of_row(row, context.time_format, [*policy_fields(row.policy), *more]), as_json(row) | related
    )


@command(category, "remove", "category remove web")
@click.argument("name")
def category_remove(context: AdminContext, name: str) -> None:
    """Remove a category without services and without dependants."""
    print_done(context, Remove("category", parse_label(name, "category")))


def _category(context: AdminContext, name: str) -> Category:
    name = parse_label(name, "category")
    message = f"unknown category {name!r}; 'opengnsadmin category list' shows all"
    return cast(Category, context.one(Fetch("category", name=name), "unknown-category", message))


@click.group("service", cls=CheckedGroup)
def service() -> None:
    """Services, such as chinaserver.openuss: the parts of a category, each with its own content."""


@command(service, "add", "service add chinaserver.openuss")
@click.argument("id")
def service_add(context: AdminContext, id: str) -> None:
    """Add a service: ID is SERVICE.CATEGORY."""
    print_done(context, Put(Service(parse_service_id(id)), create=True))


@command(
    service,
    "set",
    "service set chinaserver.openuss --pool least-used",
    "service set chinaserver.openuss --no-pool",
    "service set chinaserver.openuss --hosts web1.example.net,web2.example.net",
    "service set chinaserver.openuss --any-host",
)
@click.argument("id")
@click.option("--pool", type=click.Choice(POLICIES), help="Order in which its listeners are returned to users.")
@click.option("--no-pool", is_flag=True, help="Use the pool policy of its category again.")
@click.option("--hosts", metavar="NAMES", help="Only these hosts may register the service; separated by commas.")
@click.option("--any-host", is_flag=True, help="Every host with the service's credential may register it again.")
def service_set(
    context: AdminContext, id: str, pool: str | None, no_pool: bool, hosts: str | None, any_host: bool
) -> None:
    """Set a service's own pool policy, or the hosts that may register it. Both are stored with the category.

    A host that is not in the list is refused, even with the credential: it neither registers the service nor changes a
    listener of another host. What it registered before stays until it deregisters ('listener remove' removes it).
    """
    if sum((pool is not None, no_pool, hosts is not None, any_host)) != 1:
        raise click.UsageError("use one of --pool POLICY, --no-pool, --hosts NAMES and --any-host")
    names = tuple(name.strip() for name in (hosts or "").split(",") if name.strip())
    if hosts is not None and not names:
        raise click.UsageError("--hosts names no host; --any-host lets every host register the service")
    service = _service(context, id)
    category = _category(context, category_of(service.id))
    if names or any_host:
        print_done(context, build_request.change_hosts(category, service.id, names))
    else:
        print_done(context, build_request.change_pool(category, service.id, pool or ""))


@command(service, "list", "service list", "service list --within openuss", watchable=True)
@click.option("--within", metavar="CATEGORY", default="", help="Only services of this category.")
def service_list(context: AdminContext, within: str) -> None:
    """List the services."""
    list_rows(context, Fetch("service", within=parse_host_name(within) if within else ""))


@command(service, "show", "service show chinaserver.openuss", watchable=True)
@click.argument("id")
def service_show(context: AdminContext, id: str) -> None:
    """Show a service with its listeners and credentials. A token is only shown when it is created."""
    row = _service(context, id)
    of_category = Fetch("category", name=category_of(row.id))
    listeners, credentials, categories = context.rows(
        Fetch("listener", within=row.id), Fetch("credential", within=row.id), of_category
    )
    [category] = (one for one in categories.rows if isinstance(one, Category))
    hosts = category.policy.hosts.get(row.id.partition(".")[0], ())
    clock = context.time_format
    tables = table_of_rows("listener", listeners.rows, clock), table_of_rows("credential", credentials.rows, clock)
    shown = table_of_row(row, clock, [("hosts that may register it", " ".join(hosts) or "all")])
    more = {"hosts": list(hosts), "listeners": as_json(listeners.rows), "credentials": as_json(credentials.rows)}
    context.print_result([shown, "", "listeners:", tables[0], "", "credentials:", tables[1]], as_json(row) | more)


def _service(context: AdminContext, name: str) -> Service:
    id = parse_service_id(name)
    message = f"unknown service {id!r}; 'opengnsadmin service list' shows all"
    return cast(Service, context.one(Fetch("service", name=id), "unknown-service", message))


@command(service, "remove", "service remove chinaserver.openuss")
@click.argument("id")
def service_remove(context: AdminContext, id: str) -> None:
    """Remove a service without registered listeners, and its credentials."""
    print_done(context, Remove("service", parse_service_id(id)))


@click.group("dependency", cls=CheckedGroup)
def dependency() -> None:
    """Dependencies: services of a category get the listeners of the categories that it depends on."""


@command(dependency, "add", "dependency add web openuss")
@click.argument("category")
@click.argument("on")
def dependency_add(context: AdminContext, category: str, on: str) -> None:
    """Declare that CATEGORY depends on category ON."""
    pair = Dependency(parse_label(category, "category"), parse_label(on, "category"))
    print_done(context, Put(pair, create=True))


@command(dependency, "list", "dependency list", "dependency list --within web", watchable=True)
@click.option("--within", metavar="CATEGORY", default="", help="Only dependencies from or to this category.")
def dependency_list(context: AdminContext, within: str) -> None:
    """List the dependencies."""
    list_rows(context, Fetch("dependency", within=parse_host_name(within) if within else ""))


@command(dependency, "remove", "dependency remove web openuss")
@click.argument("category")
@click.argument("on")
def dependency_remove(context: AdminContext, category: str, on: str) -> None:
    """Remove the dependency of CATEGORY on ON; its hosts no longer get notices about ON."""
    print_done(context, Remove("dependency", f"{parse_label(category, 'category')} {parse_label(on, 'category')}"))


@click.group("credential", cls=CheckedGroup)
def credential() -> None:
    """Credentials, which authenticate a service when it registers and deregisters."""


@command(
    credential,
    "add",
    "credential add chinaserver.openuss --output /etc/opengns/chinaserver.token",
    "credential add chinaserver.openuss --overlap 1h",
)
@click.argument("service")
@click.option("--overlap", type=DURATION, help="Time until older credentials expire (1h, 2d; 0s: now).")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the token to this file, mode 0600."
)
def credential_add(context: AdminContext, service: str, overlap: float | None, output: Path | None) -> None:
    """Create a credential for SERVICE. Its token is shown only now and not stored.

    Without --overlap, older credentials stay valid. To replace them: add one with an overlap and bring its token to
    the hosts within that time; the older ones expire by themselves. A file at --output is replaced in one step.
    """
    issue_credential(context, IssueCredential(parse_service_id(service), overlap), output)


def issue_credential(context: AdminContext, request: IssueCredential, output: Path | None) -> None:
    """Create a credential; print its token, or write it to a file that only its owner can read."""
    if output is None:
        reply = context.ask(request, CredentialIssued)
        context.print_result([*sentences(reply), reply.token], reply)
        return
    # The file is opened first: a token that cannot be written would be lost.
    with output_file(output, 0o600) as file:
        reply = context.ask(request, CredentialIssued)
        file.write(reply.token + "\n")
    result = as_json(reply) | {"written": str(output)}
    del result["token"]
    context.print_result([*sentences(reply), f"The token is in {output}, readable by its owner only."], result)


@command(credential, "list", "credential list", "credential list --within chinaserver.openuss", watchable=True)
@click.option("--within", metavar="NAME", default="", help="Only credentials of this service or category.")
def credential_list(context: AdminContext, within: str) -> None:
    """List the credentials: service, id, times of creation and expiry; never the tokens."""
    list_rows(context, Fetch("credential", within=parse_host_name(within) if within else ""))


@command(credential, "remove", "credential remove chinaserver.openuss 1f2e3d4c5b6a")
@click.argument("service")
@click.argument("id")
def credential_remove(context: AdminContext, service: str, id: str) -> None:
    """Revoke the credential ID. Listeners registered with it stay."""
    print_done(context, RevokeCredential(parse_service_id(service), id))


@click.group("host", cls=CheckedGroup)
def host() -> None:
    """Hosts: machines that run opengnscd. A host is added when it first connects with a valid certificate."""


@command(host, "add", "host add web1.example.net", "host add old7.example.net --barred")
@click.argument("name")
@click.option("--barred", is_flag=True, help="Refuse all of its requests.")
def host_add(context: AdminContext, name: str, barred: bool) -> None:
    """Add a host before it connects, for instance to bar it."""
    print_done(context, Put(Host(parse_host_name(name), barred=barred), create=True))


@command(host, "set", "host set web1.example.net --barred", "host set web1.example.net --not-barred")
@click.argument("name")
@click.option("--barred/--not-barred", required=True, help="Refuse all of its requests, or allow them again.")
def host_set(context: AdminContext, name: str, barred: bool) -> None:
    """Bar a host, or lift the bar."""
    print_done(context, Put(msgspec.structs.replace(_host(context, name), barred=barred)))


@command(host, "list", "host list", watchable=True)
def host_list(context: AdminContext) -> None:
    """List the hosts, with the services whose dependencies they get, and the server that has their session since when.

    Sessions at other servers than the one that answers are known up to a second later.
    """
    reply, lags = context.rows(Fetch("host"))[0], context.lags()
    sessions = {lag.host: lag for lag in lags.hosts}
    shown = table_of_hosts(cast(tuple[Host, ...], reply.rows), sessions, context.time_format)
    context.print_result(shown, {**as_json(reply), "sessions": as_json(lags.hosts)})


@command(host, "show", "host show web1.example.net", watchable=True)
@click.argument("name")
def host_show(context: AdminContext, name: str) -> None:
    """Show a host and its registered listeners."""
    row = _host(context, name)
    listeners: tuple[Row, ...] = context.rows(Fetch("listener", within=row.name))[0].rows
    own = [peer for peer in listeners if isinstance(peer, Listener) and peer.host == row.name]
    tables = (table_of_row(row, context.time_format), table_of_rows("listener", own, context.time_format))
    context.print_result([tables[0], "", "listeners:", tables[1]], as_json(row) | {"listeners": as_json(own)})


@command(host, "remove", "host remove old7.example.net")
@click.argument("name")
def host_remove(context: AdminContext, name: str) -> None:
    """Remove a host. If it connects again, it is added again; bar it to keep it out."""
    print_done(context, Remove("host", parse_host_name(name)))


def _host(context: AdminContext, name: str) -> Host:
    name = parse_host_name(name)
    message = f"unknown host {name!r}; 'opengnsadmin host list' shows all"
    return cast(Host, context.one(Fetch("host", name=name), "unknown-host", message))

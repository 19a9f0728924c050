"""Command `opengnscd join`: a machine becomes a host with one token and one command.

The key pair is made here, and the private key never leaves this machine. Nothing is written before the server has sent
the certificate, and then all files or none.
"""

from __future__ import annotations

import pwd
import sys
import time
from pathlib import Path

import click

from compass.daemons.certificates.join_exchange import NEW_TOKEN, JoinFailed, endpoints_of, exchange
from compass.daemons.certificates.join_files import JoinPaths, check_free
from compass.model.exit_codes import ExitCode
from compass.model.text import escape_line
from compass.pki.join_token import TOKEN_LENGTH_MAX, JoinToken, TokenInvalid, decode
from compass.pki.signing import new_request
from compass.system.command_line import CheckedCommand, print_text
from compass.system.new_files import write_new

TEXT_MAX = 2000
"""Characters of a message that are shown."""
EXIT_STATUS = """\b
Exit status:
    0  this machine is a host now
    1  failure on this machine: a file, its clock, or the server ended the connection
    2  the command line or the token is wrong
    3  the server holds no authority, so no host can join there
    4  the token, the server's certificate or its authority is not accepted
    5  a file exists already; nothing is overwritten
    7  no server can be reached, or the server is not ready: try again later
    8  the peer is not a server of a version in which hosts can join"""


@click.command("join", cls=CheckedCommand, epilog=EXIT_STATUS)
@click.argument("server", required=False, default="")
@click.option("--token", metavar="TOKEN", help="Join token; other users of this machine can see it while this runs.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File with the join token; - is the standard input.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("/etc/opengns/opengnscd.toml"),
    show_default=True,
    help="Configuration file to write.",
)
@click.option(
    "--state-directory",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/opengns/host"),
    show_default=True,
    help="State directory of the daemon; key and certificate go into its subdirectory tls.",
)
@click.option("--user", metavar="NAME", help="User that runs opengnscd, to whom the state directory will belong.")
def join(
    server: str, token: str | None, token_file: Path | None, config: Path, state_directory: Path, user: str | None
) -> None:
    """Make this machine a host: get its certificate from a server with a join token, and write its configuration.

    'opengnsadmin host invite NAME' makes the token, which has the addresses of the servers; SERVER (NAME or NAME:PORT
    of the HTTPS API) is another address of one of them. The private key is made here and never leaves this machine. The
    token is sent only to a server whose authority has the fingerprint in the token.

    \b
      opengnscd join --token-file web1.join
      opengnscd join gns1.example.net --token gnsjoin1.eyJhdXRo...
    """
    try:
        _join(_read_token(token, token_file), server, JoinPaths(config, state_directory), user)
    except (JoinFailed, TokenInvalid) as problem:
        print_text(f"opengnscd: {escape_line(str(problem), TEXT_MAX)}", err=True)
        sys.exit(problem.status if isinstance(problem, JoinFailed) else ExitCode.USAGE)


def _join(token: JoinToken, server: str, paths: JoinPaths, user: str | None) -> None:
    owner = _owner(user)
    key, request = new_request(token.name)
    check_free(paths.files(token, key, "", ""))
    certified, used = exchange(token, endpoints_of(token, server), request, time.time())
    files = paths.files(token, key, certified.certificate, certified.authority)
    try:
        write_new(files, owner, paths.state.absolute())
    except OSError as error:
        text = f"cannot write {error.filename}: {error.strerror}; nothing was left behind, but the token is used up"
        raise JoinFailed(ExitCode.FAILED, f"{text}: {NEW_TOKEN}") from None
    print_text(f"{escape_line(token.name, TEXT_MAX)} has joined by {used[0]}:{used[1]}.")
    for path in files:
        print_text(f"Wrote {escape_line(str(path), TEXT_MAX)}{' (secret)' if path.suffix == '.key' else ''}")
    default = Path("/etc/opengns/opengnscd.toml")
    print_text(f"Next: opengnscd{'' if paths.config == default else f' --config {paths.config}'}")


def _read_token(token: str | None, file: Path | None) -> JoinToken:
    if (token is None) == (file is None):
        raise click.UsageError("give the token with --token TOKEN or --token-file FILE")
    if file is None:
        return decode(token or "")
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as opened:
            return decode(opened.read(TOKEN_LENGTH_MAX + 2).decode("ascii", "replace"))
    except OSError as error:
        raise JoinFailed(ExitCode.FAILED, f"cannot read {file}: {error.strerror}") from None


def _owner(user: str | None) -> tuple[int, int] | None:
    if user is None:
        return None
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise JoinFailed(ExitCode.USAGE, f"there is no user {user!r} on this machine: create it first") from None
    return found.pw_uid, found.pw_gid

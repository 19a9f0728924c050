"""Resolvers and DNS clients as people have them: dig, dnsmasq, unbound, and a library that asks quickly."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import dns.message
import dns.query
import pytest

from tests.e2e.processes import PATIENCE_SECONDS, Program, eventually

QUERY_SECONDS = 5.0
FIRST_SECONDS = 0.3
"""Interval of attempts while a resolver starts: no error shows that a datagram has found no process."""

needs_dig = pytest.mark.skipif(not shutil.which("dig"), reason="dig is not installed (Debian: bind9-dnsutils)")
needs_dnsmasq = pytest.mark.skipif(
    not shutil.which("dnsmasq"), reason="dnsmasq is not installed (Debian: dnsmasq-base)"
)
needs_unbound = pytest.mark.skipif(not shutil.which("unbound"), reason="unbound is not installed (Debian: unbound)")


class Resolver:
    """Something that answers DNS at an address and port."""

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port

    def ask(self, name: str, kind: str = "A", seconds: float = QUERY_SECONDS) -> dns.message.Message:
        """The answer, asked for over UDP and then over TCP when it was cut."""
        query = dns.message.make_query(name, kind, use_edns=0)
        answer, _ = dns.query.udp_with_fallback(query, self.address, seconds, self.port)
        return answer

    def addresses(self, name: str, kind: str = "A") -> list[str]:
        """The data of the records that answer, in their order; none of them when there is no answer."""
        return [str(record) for rrset in self.ask(name, kind).answer for record in rrset]

    def dig(self, *arguments: str) -> str:
        """Return what dig prints."""
        command = ["dig", f"@{self.address}", "-p", str(self.port), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def answers(self, program: Program, name: str = "gns", kind: str = "SOA") -> None:
        """Wait until it does."""

        def there() -> bool:
            assert program.runs, f"{program.name} has ended:\n{program.shown_log()}"
            try:
                return bool(self.ask(name, kind, FIRST_SECONDS).answer)
            except (dns.exception.DNSException, OSError):
                return False

        eventually(there, f"{program.name} answers")


def dnsmasq(directory: Path, at: Resolver, upstream: Resolver) -> Program:
    """dnsmasq at `at`, as docs/reference/dns.md sets it up: the zone is asked for at `upstream`."""
    options = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"]
    options += [f"--listen-address={at.address}", f"--port={at.port}", "--pid-file=", "--user=root", "--log-facility=-"]
    options += [f"--server=/gns/{upstream.address}#{upstream.port}"]
    program = Program("dnsmasq", ["dnsmasq", *options], directory / "dnsmasq.log")
    program.start()
    at.answers(program)
    return program


def unbound(directory: Path, at: Resolver, upstream: Resolver, reverse: str = "") -> Program:
    """unbound at `at`, as docs/reference/dns.md sets it up, and as a process that leaves the system's own alone.
    `reverse`: a zone of addresses that is asked for there, too."""
    config = directory / "unbound.conf"
    zone = f'stub-zone:\n    name: "{reverse}"\n    stub-addr: {upstream.address}@{upstream.port}\n' if reverse else ""
    local = f'    local-zone: "{reverse}." transparent\n' if reverse else ""
    config.write_text(
        f"""
server:
    interface: {at.address}@{at.port}
    access-control: 127.0.0.0/8 allow
    do-not-query-localhost: no
    domain-insecure: "gns"
    module-config: "iterator"
    chroot: ""
    username: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    num-threads: 1
    qname-minimisation-strict: yes
{local}{zone}stub-zone:
    name: "gns"
    stub-addr: {upstream.address}@{upstream.port}
remote-control:
    control-enable: no
"""
    )
    program = Program("unbound", ["unbound", "-d", "-c", str(config)], directory / "unbound.log")
    program.start()
    at.answers(program)
    return program

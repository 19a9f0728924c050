"""A deployment to which a plan happens, and the history of it.

Servers over one store, hosts (every fifth keeps no session and is dialled), an old client, sixty services in ten
categories that depend on each other in rings. Each machine has a clock of its own that can jump, and its own source
of chance, so that what happens at one place does not depend on what was left out at another.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

from twisted.logger import LogLevel, globalLogPublisher

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.host_api import LocalDeregister, LocalRegister, LocalReport, Outcome
from compass.model.interfaces import StoreUnavailable
from compass.model.names import format_endpoint
from compass.model.replies import CredentialIssued, Dependencies, Refusal, Reply
from compass.model.requests import Drain, IssueCredential, Put, Remove, Rename
from compass.model.rows import USABLE, Category, Dependency, Listener, Row, Service, key_of
from compass.model.rules.certificates import OwnCertificate
from tests.histories.events import (
    Calmed,
    Died,
    Disturbed,
    History,
    Lived,
    Logged,
    Looked,
    Orphaned,
    Probed,
    Settled,
    Started,
    Stopped,
    Table,
    Unsettled,
    Violation,
)
from tests.simulation.disk import Disk, Location, simulated_disks
from tests.simulation.eras import Backups
from tests.simulation.old import OldClient
from tests.simulation.plan import Action, Plan, service_names
from tests.simulation.recording import HostRecorder, RecordedStore, Recorder
from tests.simulation.topology import POLICY, fresh_store
from tests.support.virtual_world import ADMIN, EPOCH, SimulatedHost, SimulatedProcesses, SimulatedServer, World

SETTLE_SECONDS = 100.0
"""Longer than any back-off, pause or timer that a fault may have set going, so that what can heal has healed."""
BUFFER_OCTETS = 2048
"""Small, so that a reader who pauses for seconds is a slow one already."""
SUPERVISOR_SECONDS = 1.0
"""Seconds until a program that ended is started again."""
SHORT_EVERY = 5
"""Every so manieth host keeps no session."""
STOP_SECONDS = 2.4
"""Seconds from SIGTERM until a daemon is killed."""
COMPARING = ("compass.agent.replica.sync.ReplicaSync", "compass.server.commit.anti_entropy.AntiEntropy")
"""Components that log an error if a holder has wrong rows: in a campaign that is a broken promise."""
SLOW_STORE_SECONDS = (0.05, 0.6)
FAR = 4e9
"""UNIX time at which a certificate ends that does not end in a campaign."""


class Machine:
    """The world as one process sees it: its own wall clock, chance, disk and store."""

    def __init__(self, deployment: Deployment, name: str, run: int) -> None:
        self._deployment, self._name = deployment, name
        self.random = Random(f"{deployment.plan.seed} {name} {run}")
        self.store = RecordedStore(deployment.store, name, deployment.recorder)
        self.directory = self

    def now(self) -> float:
        """UNIX time, as this machine believes."""
        deployment = self._deployment
        return EPOCH + float(deployment.clock.seconds()) + deployment.offsets.get(self._name, 0.0)

    def __truediv__(self, name: str) -> Location:
        return Location(self._deployment.disks.setdefault(name, Disk(self.now)), name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._deployment, name)


class Deployment(World):
    """The machines and what can happen to them. `run` plays a plan and gives its history."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.seed, Path("unused"))
        self.plan = plan
        self.network.buffer_octets = BUFFER_OCTETS
        self.network.seed = str(plan.seed)
        self.store, self.tokens = fresh_store()
        self.recorder = Recorder(lambda: float(self.clock.seconds()))
        self.backups = Backups(self.store, self.recorder)
        self.restoring = False
        """Every server is stopped while the store is restored."""
        self.offsets: dict[str, float] = {}
        self.disks: dict[str, Disk] = {}
        self.runs: Counter[str] = Counter()
        self.disturbances: Counter[str] = Counter()
        self.away: set[str] = set()
        """Hosts without a daemon."""
        self.pids: dict[int, tuple[str, str, int]] = {}
        """pid -> host, service, port of each process that ever was."""
        self.addresses: dict[int, str] = {}
        """Addresses of the processes that register with another host's."""
        self.contested: set[tuple[str, str, int]] = set()
        """Listeners that processes of several hosts have registered."""
        self.ended: set[tuple[str, int]] = set()
        """Addresses and ports at which nothing serves any more: they stay dead when all faults end."""
        self.forgetful: set[str] = set()
        """Hosts that have lost their disk."""
        self.registered: dict[int, Outcome] = {}
        """Answers to the listeners that are alive."""
        self.old: OldClient | None = None
        self.store_away = ""
        """Way in which the store is unavailable for all servers: it `fails`, or it `hangs`."""
        self.critical: list[str] = []
        names = service_names()
        self.watched = {
            f"h{number}": [names[number % len(names)], names[(number * 7 + 3) % len(names)]]
            for number in range(plan.hosts)
        }

    # The run.

    def run_plan(self) -> History:
        """Everything starts, the plan happens, faults end, time passes, and all is looked at."""
        globalLogPublisher.addObserver(cast(Any, self._observe))
        try:
            with simulated_disks():
                for number in range(self.plan.servers):
                    self.start_server(f"gns{number + 1}")
                for name in self.watched:
                    self.start_host(name)
                self.run(1.0)
                for action in self.plan.actions:
                    self.happen(action)
                    self.run(action.pause_seconds)
                self.settle()
                self.look_at_all()
        finally:
            globalLogPublisher.removeObserver(cast(Any, self._observe))
        return self.recorder.history

    def happen(self, action: Action) -> None:
        """Do it, if it still makes sense."""
        self.trace.append(f"{self.clock.seconds():.6f} {action}")
        arguments = {key.replace("for", "seconds"): value for key, value in action.arguments.items()}
        getattr(self, "do_" + action.name.replace("-", "_"))(**arguments)

    def settle(self) -> None:
        """Faults end, and time passes."""
        self.network.heal()
        self.network.calm()
        for server in self.servers.values():
            server.thread.failing = server.thread.failing_after = server.beside.failing = None
            server.thread.go_on()
            server.beside.go_on()
        self.store_away = ""
        self.network.expired.clear()
        for disk in self.disks.values():
            disk.failing = 0
        self.dead &= self.ended
        self.run(SETTLE_SECONDS)
        for name in sorted(self.forgetful):
            # Programs of a host that has lost its disk ask again; the first time perhaps no server could be asked.
            for service in self.watched[name]:
                self.hosts[name].daemon.dependencies(service)
            self.run(10.0)

    def look_at_all(self) -> None:
        """Record the rows that each server and host holds at the end."""
        at, record = self.recorder.clock(), self.recorder
        for change in self.store.changes_after(0, 1_000_000):
            record(Logged(at, "store", change), record.store)
        loaded = self.store.load()
        tables = catalogue_of(loaded.rows, loaded.topics, loaded.revision)
        record(Table(at, "store", tables.revision, _rows(tables)))
        for name, server in sorted(self.servers.items()):
            held = server.nameserver.catalogue
            record(Table(at, name, held.revision, _rows(held)))
            record(Unsettled(at, name, len(server.nameserver.components.pending_suspicions)))
        for name, services in self.watched.items():
            for service in services:
                answers: list[Any] = []
                self.hosts[name].daemon.dependencies(service).addCallback(answers.append)
                match answers:
                    case [Dependencies() as told]:
                        record(Settled(at, name, service, "listed", told.categories))
                    case [Refusal() as refusal]:
                        record(Settled(at, name, service, refusal.code))
                    case _:
                        record(Settled(at, name, service, "no answer"))
        for pid, outcome in self.registered.items():
            name, service, port = self.pids[pid]
            status = self.hosts[name].daemon.status()
            known = {(one.service, one.address, one.port): one for one in status.registrations}
            entry = known.get((service, outcome.address, port))
            key = service, outcome.address, port
            if entry is None and self.backups.removed_before(key, outcome.epoch):
                continue
            if entry is None or entry.state != "refused" or self._is_alone(pid):
                record(Lived(at, name, service, outcome.address, port, outcome.epoch, True))

        self._look_for_orphans(tables)

    def _look_for_orphans(self, tables: Catalogue) -> None:
        served = {
            (self.pids[pid][1], self._address_of(pid), self.pids[pid][2])
            for host in self.hosts.values()
            for pid in host.processes.living
        }
        unverified = {
            (entry.service, entry.address, entry.port)
            for host in self.hosts.values()
            for entry in host.daemon.status().registrations
            if entry.unverified
        }
        for row in _rows(tables):
            # What answers in place of an unverified instance is taken for it as long as it answers.
            answers = isinstance(row, Listener) and (row.address, row.port) not in self.dead
            known = key_of(row) in served or (key_of(row) in unverified and answers)
            if isinstance(row, Listener) and row.state in USABLE and not known:
                at = self.recorder.clock()
                self.recorder(Orphaned(at, row.host, row.service, row.address, row.port, row.epoch))

    def _is_alone(self, pid: int) -> bool:
        """Return whether a process of a contested listener is the last one that lives."""
        mine = self.pids[pid][1], self._address_of(pid), self.pids[pid][2]
        return mine in self.contested and not self._others(pid)

    def _others(self, pid: int) -> list[int]:
        """The other living processes at the address and port of one."""
        mine = self._address_of(pid), self.pids[pid][2]
        living = (other for host in self.hosts.values() for other in host.processes.living if other != pid)
        return [other for other in living if (self._address_of(other), self.pids[other][2]) == mine]

    def _address_of(self, pid: int) -> str:
        return self.addresses.get(pid) or _address(self.hosts[self.pids[pid][0]])

    # Machines.

    def start_server(self, name: str) -> None:
        """Or a new one of that name over the same store."""
        if name in self.servers or self.restoring:
            return
        self.runs[name] += 1
        machine: Any = Machine(self, name, self.runs[name])
        self.servers[name] = server = SimulatedServer(
            machine, name, (0.0001, 0.003), certificates=partial(self.certificates, name)
        )
        server.thread._random = machine.random
        self._keep_store_away(server)
        self.recorder(Started(self.recorder.clock(), name))
        server.start().addErrback(self._start_failed, name, server)

    def _start_failed(self, failure: Any, name: str, server: SimulatedServer) -> None:
        """Restart a server that has ended because it found no store, as its supervisor does."""
        failure.trap(StoreUnavailable)
        if self.servers.get(name) is server:
            self.recorder(Stopped(self.recorder.clock(), name, "kill"))
            server.crash()
            self.clock.callLater(SUPERVISOR_SECONDS, self.start_server, name)

    def start_host(self, name: str) -> None:
        """Start the host's daemon on the disk of the previous one."""
        self.away.discard(name)
        self.runs[name] += 1
        number = int(name[1:])
        count = self.plan.servers
        servers = tuple(f"gns{(number + step) % count + 1}" for step in range(count))
        options: dict[str, Any] = {"mode": "short"} if number % SHORT_EVERY == SHORT_EVERY - 1 else {}
        machine: Any = Machine(self, name, self.runs[name])
        host = SimulatedHost(machine, name, servers, certificates=partial(self.certificates, name), **options)
        self.hosts[name] = host
        HostRecorder(self.recorder, name, host.agent.components)
        self.recorder(Started(self.recorder.clock(), name))
        host.agent.start()
        for service in self.watched[name]:
            host.daemon.dependencies(service)

    def disturb(self, who: str, seconds: float, end: Callable[[], None], what: str) -> None:
        """Disturb a machine for a time."""
        self.recorder(Disturbed(self.recorder.clock(), who, what))
        self.disturbances[who] += 1

        def over() -> None:
            end()
            self.disturbances[who] -= 1
            if not self.disturbances[who]:
                self.recorder(Calmed(self.recorder.clock(), who))

        self.clock.callLater(seconds, over)

    # What happens: one method for each action of the plan, with its arguments as text.

    def do_register_elsewhere(self, pid: str, host: str, service: str, port: str, of: str) -> None:
        """Register with the address of another host, as by a copied configuration."""
        address = _address(self.hosts[of])
        self.addresses[int(pid)] = address
        self.do_register(pid, host, service, port, address)

    def do_register(self, pid: str, host: str, service: str, port: str, address: str = "") -> None:
        number = int(pid)
        machine = self.hosts[host]
        taken = any((host, int(port)) == (self.pids[p][0], self.pids[p][2]) for p in machine.processes.living)
        if taken:
            return
        machine.processes.start(number)
        self.pids[number] = host, service, int(port)
        self._answers(number)
        if any(self.pids[other][1] == service for other in self._others(number)):
            self.contested.add((service, self._address_of(number), int(port)))
        if host in self.away:
            return
        request = LocalRegister(service, int(port), self.tokens[service], address, pid=number)
        asked = machine.daemon.register(request)

        def answered(outcome: Outcome | Refusal) -> None:
            self._trace("register", outcome)
            if isinstance(outcome, Outcome) and number in machine.processes.living:
                self.registered[number] = outcome
                at = self.recorder.clock()
                self.recorder(Lived(at, host, service, outcome.address, outcome.port, outcome.epoch))

        asked.addCallback(answered)

    def do_kill(self, pid: str) -> None:
        number = int(pid)
        if number in self.pids and number in self.hosts[self.pids[number][0]].processes.living:
            self._died(number)
            self.hosts[self.pids[number][0]].processes.kill(number)

    def do_deregister(self, pid: str) -> None:
        number = int(pid)
        if number not in self.registered:
            self.do_kill(pid)
            return
        name, service, port = self.pids[number]
        host = self.hosts[name]
        self._died(number)
        if name not in self.away:
            address = self.addresses.get(number, "")
            asked = host.daemon.deregister(LocalDeregister(service, port, self.tokens[service], address))
            asked.addCallback(partial(self._trace, "deregister"))
        host.processes.kill(number)

    def do_report(self, pid: str, by: str, state: str, dead: str) -> None:
        number = int(pid)
        if number not in self.pids or by in self.away:
            return
        name, service, port = self.pids[number]
        address = _address(self.hosts[name])
        if dead == "yes":
            self.dead.add((address, port))
        local = LocalReport(service, address, port, cast(Any, state), self.watched[by][0])
        self.hosts[by].daemon.report(local).addCallback(partial(self._trace, "report"))

    def do_revive(self) -> None:
        self.dead &= self.ended

    def do_look(self, host: str) -> None:
        machine = self.hosts[host]
        if host in self.away:
            return
        daemon, replica = machine.daemon, machine.replica
        catalogue: Catalogue = replica.catalogue
        asker = self.watched[host][0]
        for service in [name for name in sorted(catalogue.topics) if "." in name][:8]:
            resolved = daemon.resolve(service)
            answer = resolved.code if isinstance(resolved, Refusal) else resolved.source
            known = machine.agent.components.view.dependencies(asker)
            told = known.code if isinstance(known, Refusal) else "listed"
            at = self.recorder.clock()
            held = replica.catalogue.revision
            looked = Looked(at, host, service, answer, catalogue.topics[service], held, told, asker)
            self.recorder(looked, replica.store)

    def do_restart_host(self, host: str, how: str, away: str) -> None:
        machine = self.hosts[host]
        if host in self.away:
            return
        self.away.add(host)
        self.recorder(Stopped(self.recorder.clock(), host, how))
        if how == "stop":
            machine.stop()
            self.clock.callLater(STOP_SECONDS, machine.crash)
        else:
            machine.crash()
        if how == "power":
            for pid in sorted(machine.processes.living):
                self._died(pid)
            machine.processes.living.clear()
            machine.processes.boot = f"boot {self.runs[host] + 1}"
            self.disks[host].lose_power()
        self.clock.callLater(float(away), self.start_host, host)

    def do_lose_state(self, host: str, stranger: str, away: str) -> None:
        """A container is made again: its processes and its disk are gone. `stranger`: something else answers there."""
        machine = self.hosts[host]
        if host in self.away:
            return
        self.away.add(host)
        self.recorder(Stopped(self.recorder.clock(), host, "power"))
        machine.crash()
        for pid in sorted(machine.processes.living):
            self._died(pid)
            if stranger == "yes":
                self._answers(pid)
        machine.processes.living.clear()
        self.disks[host] = Disk(machine.world.now)
        self.forgetful.add(host)
        self.clock.callLater(float(away), self.start_host, host)

    def do_clone_host(self, host: str, name: str, seconds: str) -> None:
        """A snapshot of a host runs on another machine for a time, with a name and a certificate of its own."""
        if name in self.hosts:
            return
        self.runs[name] += 1
        machine: Any = Machine(self, name, self.runs[name])
        self.disks[name] = self.disks[host].copy(machine.now)
        self.processes[name] = SimulatedProcesses()
        self.processes[name].boot = f"boot {self.runs[name]} of {name}"
        self.hosts[name] = clone = SimulatedHost(machine, name, tuple(sorted(self.servers)) or ("gns1",))
        clone.agent.start()

        def end() -> None:
            clone.crash()
            del self.hosts[name]

        self.clock.callLater(float(seconds), end)

    def do_restart_server(self, server: str, how: str, away: str) -> None:
        if server not in self.servers:
            return
        self.recorder(Stopped(self.recorder.clock(), server, how))
        running = self.servers[server]
        running.stop() if how == "stop" else running.crash()
        self.clock.callLater(float(away), self.start_server, server)

    def do_cut(self, host: str, server: str) -> None:
        self.network.cut(host, server)

    def do_silence(self, host: str, server: str, way: str, seconds: str) -> None:
        if way in ("both", "up"):
            self.network.silence(host, server, both=False)
        if way in ("both", "down"):
            self.network.silence(server, host, both=False)
        self.disturb(host, float(seconds), lambda: self.network.heal_between(host, server), f"{way} silent to {server}")

    def do_partition(self, hosts: str, server: str, way: str, seconds: str) -> None:
        for host in hosts.split(","):
            self.do_silence(host, server, way, seconds)

    def do_weather(self, host: str, server: str, kind: str, seconds: str) -> None:
        self.network.weather[frozenset((host, server))] = kind

        def end() -> None:
            self.network.weather.pop(frozenset((host, server)), None)

        self.disturb(host, float(seconds), end, f"{kind} line to {server}")

    def do_pause(self, host: str, seconds: str) -> None:
        ends = [end for end in self.network.ends if not end.closed and end.local[1] == host]
        for end in ends:
            end.pause_reading()

        def resume() -> None:
            for end in ends:
                end.resume_reading()

        self.disturb(host, float(seconds), resume, "does not read")

    def do_slow_store(self, server: str, seconds: str) -> None:
        if server in self.servers:
            thread = self.servers[server].thread
            before, thread._latency_seconds = thread._latency_seconds, SLOW_STORE_SECONDS

            def end() -> None:
                thread._latency_seconds = (0.0001, 0.003) if before == SLOW_STORE_SECONDS else before

            self.disturb("store", float(seconds), end, "slow")

    def do_lose_store(self, server: str, seconds: str) -> None:
        if server in self.servers:
            thread = self.servers[server].thread
            beside = self.servers[server].beside
            thread.failing = beside.failing = StoreUnavailable("simulated: no space left on device")

            def found() -> None:
                thread.failing = beside.failing = None

            self.disturb("store", float(seconds), found, "full")

    def do_store_away(self, how: str, seconds: str) -> None:
        self.store_away = how
        for server in self.servers.values():
            self._keep_store_away(server)

        def back() -> None:
            self.store_away = ""
            # What went on may end a server at once.
            for server in list(self.servers.values()):
                for thread in (server.thread, server.beside):
                    thread.failing = None
                    thread.go_on()

        self.disturb("store", float(seconds), back, f"away: it {how}")

    def _keep_store_away(self, server: SimulatedServer) -> None:
        for thread in (server.thread, server.beside):
            if self.store_away == "hangs":
                thread.hanging = True
            elif self.store_away:
                thread.failing = StoreUnavailable("simulated: connection refused")

    def do_back_up(self, name: str) -> None:
        """A backup is taken while servers write."""
        self.backups.take(self.tokens)

    def do_restore(self, name: str, seconds: str) -> None:
        """Administrators stop every server, restore the backup, and start the servers again."""
        if self.restoring or not self.backups.is_taken():
            return
        self.restoring = True
        for server in list(self.servers):
            self.do_restart_server(server, "kill", seconds)

        def restored() -> None:
            self.restoring = False
            self.tokens = self.backups.restore()
            for number in range(self.plan.servers):
                self.start_server(f"gns{number + 1}")

        self.disturb("store", float(seconds), restored, "restored")

    def do_lose_answer(self, server: str) -> None:
        if server in self.servers:
            thread = self.servers[server].thread
            thread.failing_after = StoreUnavailable("simulated: the answer was lost")
            self.disturb("store", 3.0, lambda: setattr(thread, "failing_after", None), "answer lost")

    def do_fill_disk(self, host: str, seconds: str) -> None:
        disk = self.disks[host]
        disk.failing = errno.ENOSPC
        self.disturb(host, float(seconds), lambda: setattr(disk, "failing", 0), "disk full")

    def do_jump(self, machine: str, by: str) -> None:
        self.offsets[machine] = self.offsets.get(machine, 0.0) + float(by)

    def do_expire(self, machine: str, restarted: str, seconds: str) -> None:
        """A certificate expires and is renewed; the machine's daemon may be started in between."""
        if machine in self.network.expired:
            return
        self.network.expire(machine)
        self.disturb(machine, float(seconds), lambda: self.network.renew(machine), "certificate expired")
        if restarted == "yes" and machine in self.hosts:
            self.do_restart_host(machine, "kill", "0.1")
        elif restarted == "yes":
            self.do_restart_server(machine, "kill", "0.1")

    def certificates(self, machine: str) -> tuple[OwnCertificate, ...]:
        """Return what a daemon sees of its certificate."""
        ends = 0.0 if machine in self.network.expired else FAR
        return (OwnCertificate("leaf", f"CN={machine}", f"{machine}.crt", 0.0, ends, "renew it"),)

    def do_drain(self, pid: str, draining: str) -> None:
        if int(pid) in self.pids:
            name, service, port = self.pids[int(pid)]
            self._administer(Drain(service, _address(self.hosts[name]), port, draining == "yes"))

    def do_remove(self, pid: str) -> None:
        if int(pid) in self.pids:
            name, service, port = self.pids[int(pid)]
            endpoint = format_endpoint(_address(self.hosts[name]), port)
            self._administer(Remove("listener", f"{service} {endpoint}"))

    def do_rotate(self, service: str, overlap: str) -> None:
        self._administer(IssueCredential(service, float(overlap)))

    def do_topology(self, what: str, name: str, on: str = "", step: str = "whole") -> None:
        requests: dict[str, Any] = {
            "rename": Rename(name, on, cast(Any, step if step != "whole" else ""), force=True),
            "service-add": Put(Service(name), True),
            "service-remove": Remove("service", name),
            "dependency-add": Put(Dependency(name, on), True),
            "dependency-remove": Remove("dependency", f"{name} {on}"),
            "backup": Put(Category(name, on, POLICY)),
        }
        self._administer(requests[what])

    def do_old_client(self, server: str, say: str) -> None:
        if self.old is None or self.old.lost:
            since = self.old.held if self.old and self.old.store == self.recorder.store else 0
            services = tuple(self.watched["h0"])
            self.old = old = OldClient(self, self.recorder, services, since)
            self.network.connect(server, old.identity, lambda: old).addErrback(lambda _: old.refused())
        else:
            self.old.say(say)

    # Between.

    def _administer(self, request: Any) -> None:
        """Send a request of an administrator to any server that runs."""
        ready = [server for _, server in sorted(self.servers.items()) if server.nameserver.https.ready()]
        if not ready:
            return

        def answered(reply: Reply) -> None:
            self._trace("administrator", reply.code if isinstance(reply, Refusal) else type(reply).__name__)
            if isinstance(reply, CredentialIssued):
                self.tokens[request.service] = reply.token

        ready[0].nameserver.commits.submit(request, ADMIN).addCallback(answered)

    def _died(self, pid: int) -> None:
        name, service, port = self.pids[pid]
        outcome = self.registered.pop(pid, None)
        address = self._address_of(pid)
        # A daemon that registers a contested instance again gives it a newer epoch.
        epoch = outcome.epoch if outcome and (service, address, port) not in self.contested else 0
        if not self._others(pid):
            self.dead.add((address, port))
            self.ended.add((address, port))
        self.recorder(Died(self.recorder.clock(), name, service, address, port, epoch))

    def _answers(self, pid: int) -> None:
        """Something answers at the address and port of a process from now on."""
        place = self._address_of(pid), self.pids[pid][2]
        self.dead.discard(place)
        self.ended.discard(place)

    def _trace(self, what: str, told: object) -> None:
        self.trace.append(f"{self.clock.seconds():.6f} {what} {told}")

    def probed(self, server: str, address: str, port: int, problem: str) -> None:
        """A server's probe was answered."""
        self.recorder(Probed(self.recorder.clock(), server, address, port, problem))

    def _observe(self, event: dict[str, Any]) -> None:
        if event.get("log_level") is LogLevel.critical:
            self.critical.append(str(event.get("log_format")) + " " + str(event.get("log_failure", "")))
        elif event.get("log_level") is LogLevel.error and str(event.get("log_namespace")) in COMPARING:
            self.critical.append(f"a digest differs: {event.get('log_format')}")


def _rows(catalogue: Catalogue) -> tuple[Row, ...]:
    """All rows, in an order that is the same in every run of Python."""
    return tuple(sorted(catalogue.all_rows(), key=lambda row: (type(row).__name__, str(key_of(row)))))


def _address(host: SimulatedHost) -> str:
    return f"10.0.0.{1 + int(host.name[1:])}"


def judged(plan: Plan) -> tuple[Deployment, list[Violation]]:
    """Play a plan and check its history."""
    deployment = Deployment(plan)
    history = deployment.run_plan()
    violations = deployment.backups.violations(history, deployment.recorder.stores)
    errors = [Violation("log", "log", 0.0, 0, text) for text in deployment.critical]
    return deployment, violations + errors

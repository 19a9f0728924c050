"""Plan of a campaign as data: a list of actions chosen from a seed before anything runs.

The plan does not depend on the system's answers, so it can be reduced (shrink.py), written to a file and replayed:
an action without effect, because an earlier one was left out, does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

import msgspec

CATEGORIES = 10
SERVICES = 60
PORTS = range(8000, 8006)
CLONES = 2
"""Machines that begin as a copy of a host's disk."""
RESTORED_EVERY = 4
"""Every so manieth campaign restores the store from a backup that was taken earlier in it."""
CALM_SHARE = 0.12
"""Share of the pauses that are long enough for the system to settle: bounds in time are judged there."""


class Action(msgspec.Struct, frozen=True):
    """Action, and the pause after it."""

    name: str
    arguments: dict[str, str]
    pause_seconds: float

    def __str__(self) -> str:
        told = "".join(f" {key}={value}" for key, value in self.arguments.items())
        return f"{self.pause_seconds:.3f} {self.name}{told}"


class Plan(msgspec.Struct, frozen=True):
    """A whole campaign. The seed also makes the weather: delays, splits and what else the actions leave open."""

    seed: int
    hosts: int
    servers: int
    actions: tuple[Action, ...]

    def __str__(self) -> str:
        head = f"deployment seed={self.seed} hosts={self.hosts} servers={self.servers}"
        return "\n".join([head, *map(str, self.actions)]) + "\n"


def read_plan(text: str) -> Plan:
    """The inverse of `str(plan)`; lines that are empty or begin with # are comments."""
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    head = dict(word.split("=", 1) for word in lines[0][1:])
    actions = [Action(words[1], dict(word.split("=", 1) for word in words[2:]), float(words[0])) for words in lines[1:]]
    return Plan(int(head["seed"]), int(head["hosts"]), int(head["servers"]), tuple(actions))


def service_names(count: int = SERVICES) -> list[str]:
    """`s0.c0`, `s1.c1` ...: in turn through the categories."""
    return [f"s{number}.c{number % CATEGORIES}" for number in range(count)]


class Planner:
    """Chooses actions that make sense: it remembers what it let happen, and nothing else."""

    def __init__(self, seed: int, hosts: int, servers: int) -> None:
        self.random = Random(f"plan {seed}")
        self.hosts = [f"h{number}" for number in range(hosts)]
        self.servers = [f"gns{number + 1}" for number in range(servers)]
        self.services = service_names()
        self.living: dict[int, tuple[str, str, int]] = {}
        """pid -> host, service, port."""
        self._last_pid = 0
        self._weights: list[tuple[Callable[[], dict[str, str]], int]] = [
            (self.register, 34),
            (self.kill, 12),
            (self.deregister, 8),
            (self.report, 10),
            (self.revive, 4),
            (self.look, 6),
            (self.restart_host, 5),
            (self.restart_server, 4),
            (self.cut, 5),
            (self.silence, 4),
            (self.partition, 1),
            (self.weather, 3),
            (self.pause, 3),
            (self.slow_store, 2),
            (self.lose_store, 2),
            (self.store_away, 2),
            (self.lose_answer, 1),
            (self.fill_disk, 2),
            (self.jump, 3),
            (self.drain, 3),
            (self.remove, 2),
            (self.rotate, 2),
            (self.topology, 3),
            (self.old_client, 2),
            (self.lose_state, 2),
            (self.register_elsewhere, 3),
            (self.clone_host, 2),
            (self.expire, 2),
        ]

    def choose(self, steps: int) -> Iterable[Action]:
        """Return a number of actions."""
        makers = [maker for maker, _ in self._weights]
        weights = [weight for _, weight in self._weights]
        for _ in range(steps):
            maker = self.random.choices(makers, weights)[0]
            arguments = maker()
            long = self.random.random() < CALM_SHARE
            pause = self.random.uniform(1.0, 4.0) if long else self.random.expovariate(8.0)
            if arguments or maker == self.revive:
                yield Action(maker.__name__.replace("_", "-"), arguments, round(pause, 3))

    def register(self) -> dict[str, str]:
        host, service, port = self._host(), self.random.choice(self.services), self.random.choice(PORTS)
        if any((host, port) == (at, used) for at, _, used in self.living.values()):
            return {}
        self._last_pid += 1
        self.living[self._last_pid] = host, service, port
        return {"pid": str(self._last_pid), "host": host, "service": service, "port": str(port)}

    def kill(self) -> dict[str, str]:
        return self._process(ends=True)

    def deregister(self) -> dict[str, str]:
        return self._process(ends=True)

    def report(self) -> dict[str, str]:
        found = self._process()
        state = "slow" if self.random.random() < 0.2 else "unreachable"
        dead = "yes" if self.random.random() < 0.5 and state == "unreachable" else "no"
        return {**found, "by": self._host(), "state": state, "dead": dead} if found else {}

    def revive(self) -> dict[str, str]:
        return {}

    def look(self) -> dict[str, str]:
        return {"host": self._host()}

    def restart_host(self) -> dict[str, str]:
        host, how = self._host(), self.random.choice(["kill", "kill", "power", "stop"])
        if how == "power":
            self.living = {pid: found for pid, found in self.living.items() if found[0] != host}
        return {"host": host, "how": how, "away": self._seconds(2.5, 3.0)}

    def restart_server(self) -> dict[str, str]:
        how = self.random.choice(["kill", "kill", "stop"])
        return {"server": self.random.choice(self.servers), "how": how, "away": self._seconds(0.1, 2.0)}

    def cut(self) -> dict[str, str]:
        return {"host": self._host(), "server": self.random.choice(self.servers)}

    def silence(self) -> dict[str, str]:
        way = self.random.choice(["both", "up", "down"])
        return {**self.cut(), "way": way, "for": self._seconds(0.5, 8.0)}

    def partition(self) -> dict[str, str]:
        hosts = self.random.sample(self.hosts, len(self.hosts) // 2)
        way = self.random.choice(["both", "up", "down"])
        return {
            "hosts": ",".join(hosts),
            "server": self.random.choice(self.servers),
            "way": way,
            "for": self._seconds(2.0, 6.0),
        }

    def weather(self) -> dict[str, str]:
        kind = self.random.choice(["slow", "bursty"])
        return {**self.cut(), "kind": kind, "for": self._seconds(1.0, 6.0)}

    def pause(self) -> dict[str, str]:
        return {"host": self._host(), "for": self._seconds(0.5, 12.0)}

    def slow_store(self) -> dict[str, str]:
        return {"server": self.random.choice(self.servers), "for": self._seconds(0.5, 4.0)}

    def lose_store(self) -> dict[str, str]:
        return {"server": self.random.choice(self.servers), "for": self._seconds(0.5, 4.0)}

    def store_away(self) -> dict[str, str]:
        return {"how": self.random.choice(["fails", "hangs"]), "for": self._seconds(1.0, 6.0)}

    def lose_answer(self) -> dict[str, str]:
        return {"server": self.random.choice(self.servers)}

    def fill_disk(self) -> dict[str, str]:
        return {"host": self._host(), "for": self._seconds(0.5, 8.0)}

    def jump(self) -> dict[str, str]:
        machine = self.random.choice([*self.hosts, *self.servers])
        return {"machine": machine, "by": f"{self.random.uniform(-600, 600):.1f}"}

    def drain(self) -> dict[str, str]:
        found = self._process()
        return {**found, "draining": self.random.choice(["yes", "no"])} if found else {}

    def remove(self) -> dict[str, str]:
        return self._process()

    def rotate(self) -> dict[str, str]:
        return {"service": self.random.choice(self.services), "overlap": self.random.choice(["0", "5", "300"])}

    def topology(self) -> dict[str, str]:
        one, other = self.random.sample(range(CATEGORIES), 2)
        what = self.random.choice(["service-add", "service-remove", "dependency-add", "dependency-remove", "backup"])
        if what == "service-add" and other % 2:
            number = self.random.randrange(2)
            return {"what": "rename", "name": f"extra{number}.c{one}", "on": f"extra{1 - number}.c{one}"}
        if what == "dependency-remove" and one % 2:
            # The copy of a category comes, has two names by turns, and may be left.
            old, new, step = (("c", "d", "begin"), ("d", "e", "whole"), ("e", "d", "whole"), ("c", "d", "end"))[
                other % 4
            ]
            return {"what": "rename", "name": f"{old}{one}", "on": f"{new}{one}", "step": step}
        if what.startswith("service"):
            return {"what": what, "name": f"extra{self.random.randrange(2)}.c{one}"}
        if what == "backup":
            return {"what": what, "name": f"c{one}", "on": f"s{other}.c{other}"}
        return {"what": what, "name": f"c{one}", "on": f"c{other}"}

    def old_client(self) -> dict[str, str]:
        return {"server": self.random.choice(self.servers), "say": self.random.choice(["push", "request", "nothing"])}

    def lose_state(self) -> dict[str, str]:
        host = self._host()
        self.living = {pid: found for pid, found in self.living.items() if found[0] != host}
        stranger = self.random.choice(["yes", "no"])
        return {"host": host, "stranger": stranger, "away": self._seconds(0.1, 2.0)}

    def register_elsewhere(self) -> dict[str, str]:
        """The service of a living process on another host, with the same address and port."""
        host = self._host()
        others = {pid: found for pid, found in self.living.items() if found[0] != host}
        if not others:
            return {}
        of, service, port = others[self.random.choice(sorted(others))]
        if any((host, port) == (at, used) for at, _, used in self.living.values()):
            return {}
        self._last_pid += 1
        self.living[self._last_pid] = host, service, port
        return {"pid": str(self._last_pid), "host": host, "service": service, "port": str(port), "of": of}

    def clone_host(self) -> dict[str, str]:
        clone = f"k{self.random.randrange(CLONES)}"
        return {"host": self._host(), "name": clone, "for": self._seconds(1.0, 4.0)}

    def expire(self) -> dict[str, str]:
        machine = self.random.choice([*self.hosts, *self.servers])
        restarted = self.random.choice(["yes", "no"])
        return {"machine": machine, "restarted": restarted, "for": self._seconds(0.5, 6.0)}

    def _host(self) -> str:
        return self.random.choice(self.hosts)

    def _process(self, *, ends: bool = False) -> dict[str, str]:
        if not self.living:
            return {}
        pid = self.random.choice(sorted(self.living))
        if ends:
            del self.living[pid]
        return {"pid": str(pid)}

    def _seconds(self, least: float, mean_above: float) -> str:
        return f"{least + self.random.expovariate(1 / mean_above):.3f}"


def plan(seed: int, steps: int, hosts: int, servers: int) -> Plan:
    """Return the actions of a seed."""
    actions = list(Planner(seed, hosts, servers).choose(steps))
    if seed % RESTORED_EVERY == RESTORED_EVERY - 1:
        random = Random(f"restore {seed}")
        taken, restored = sorted(random.sample(range(len(actions)), 2))
        away = f"{0.5 + random.expovariate(1.0):.3f}"
        actions.insert(restored, Action("restore", {"name": "backup", "for": away}, round(random.uniform(0.0, 4.0), 3)))
        actions.insert(taken, Action("back-up", {"name": "backup"}, 0.0))
    return Plan(seed, hosts, servers, tuple(actions))

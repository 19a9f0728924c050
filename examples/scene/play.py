"""Steps of the scene: each makes one change of the deployment and waits until all dependants have received it.

Times are taken on one wall clock, which all processes of the scene share. A change carries the time at which the
server committed the change; each measured time names its beginning.
"""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence

from compass.client.core.blocking_api import ApiProblem
from compass.model.host_api import LocalReport
from compass.model.names import format_endpoint
from examples.scene.deployment import Deployment, Host, SceneProblem, Serving, until
from examples.scene.watcher import Told, Watcher

HOSTS = {
    "web1": "127.0.0.11",
    "web2": "127.0.0.12",
    "store1": "127.0.0.13",
    "store2": "127.0.0.14",
    "auth1": "127.0.0.15",
}
DEPENDANTS = (("portal.web", "web1"), ("forum.web", "web2"))
BYSTANDER = ("account.openuso", "auth1")
"""Service that depends on nothing and must receive no change."""
SERVICES = (
    ("account.openuso", "auth1"),
    ("emergency.rescue", "auth1"),
    ("chinaserver.openuss", "store1"),
    ("chinaserver.openuss", "store2"),
    ("northeast.openuss", "store1"),
    ("portal.web", "web1"),
    ("forum.web", "web2"),
)
REGISTRATION_SECONDS_MAX = 0.1
"""Limit from the server's commit to the last dependant (a registration reaches every dependant in under 100 ms)."""
DEATH_SECONDS_MAX = 1.0
"""Limit from kill -9 to the last dependant (P9)."""
PROBE_SECONDS_MAX = 10.0
"""Limit for the detection of a hung listener: two probes of a second, and the same again for a busy machine."""
RETURN_SECONDS_MAX = 15.0
"""Limit for hosts and server to reconnect: their pauses between attempts grow to some seconds."""
LOOKUPS = 200

Line = tuple[str, float | None]
"""Sentence about an observation, and the seconds until it."""
Step = Callable[[], Iterator[Line]]


class Play:
    """The steps, in order, on one deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.watchers: list[Watcher] = []
        self.bystander: Watcher | None = None
        self.listeners: dict[tuple[str, str], Serving] = {}
        self.hung: Serving | None = None
        self.during: Serving | None = None

    @property
    def steps(self) -> Sequence[tuple[str, Step]]:
        """Each step with its title."""
        return (
            ("A name server, five hosts and a topology", self.stand),
            ("Services start under opengnsc run and are registered", self.register_all),
            ("One more listener: northwest.openuss starts on store2", self.register_one),
            ("kill -9 of one listener of chinaserver.openuss", self.kill_one),
            ("A listener of northeast.openuss hangs, and portal.web reports it", self.report_hung),
            ("The whole of chinaserver.openuss is lost: its users move to the backup", self.lose_service),
            ("Recovery: chinaserver.openuss starts again, the hung listener wakes up", self.recover),
            (
                "kill -9 of the name server: lookups go on, a host daemon is restarted, a service starts",
                self.without_server,
            ),
            ("The name server returns: nothing flaps, what happened meanwhile is delivered", self.server_returns),
        )

    def stand(self) -> Iterator[Line]:
        begun = time.time()
        self.deployment.build(HOSTS)
        yield "authority, seven certificates and the configuration are written", time.time() - begun
        begun = time.time()
        self.deployment.start_server()
        self.deployment.start_hosts(HOSTS)
        until(self.deployment.in_session, RETURN_SECONDS_MAX, "every host has a session")
        yield "opengnssd and five opengnscd run; every host has a session over mutual TLS", time.time() - begun
        begun = time.time()
        self.deployment.administer("apply", "--yes", str(self.deployment.topology))
        self.deployment.issue_credentials(sorted({service for service, _ in SERVICES} | {"northwest.openuss"}))
        yield f"{self.deployment.topology.name} is applied, each service has a credential", time.time() - begun
        self.watchers = [self._watcher(service, host) for service, host in DEPENDANTS]
        self.bystander = self._watcher(*BYSTANDER)
        for watcher in (*self.watchers, self.bystander):
            if watcher.wait(lambda told: told.event.kind == "snapshot", 0, RETURN_SECONDS_MAX) is None:
                raise SceneProblem(f"{watcher} did not receive its dependencies")
        yield "portal.web on web1 and forum.web on web2 watch what they depend on", None

    def register_all(self) -> Iterator[Line]:
        begun, marks = time.time(), self._marks()
        for service, host in SERVICES:
            self.listeners[service, host] = self.deployment.serve(service, host)
        for serving in self.listeners.values():
            until(serving.registered, RETURN_SECONDS_MAX, f"{serving.service} at {serving.endpoint} is registered")
        yield f"{len(SERVICES)} HTTP servers listen and are registered", time.time() - begun
        for serving in self.listeners.values():
            if not serving.service.endswith(".web"):
                # Not held to a registration's time: seven interpreters are starting at the same moment.
                yield from self._seen(serving, "up", marks, None, DEATH_SECONDS_MAX, quiet=True)
        yield "both dependants know every listener that they depend on", None

    def register_one(self) -> Iterator[Line]:
        assert self.bystander is not None
        marks, before = self._marks(), len(self.bystander.told)
        serving = self.deployment.serve("northwest.openuss", "store2")
        self.listeners["northwest.openuss", "store2"] = serving
        yield from self._seen(serving, "up", marks, None, REGISTRATION_SECONDS_MAX)
        until(serving.registered, RETURN_SECONDS_MAX, f"{serving.service} is registered")
        if len(self.bystander.told) != before:
            raise SceneProblem(f"{self.bystander} does not depend on it and was notified")
        yield f"{self.bystander} depends on nothing and is not notified", None

    def kill_one(self) -> Iterator[Line]:
        yield from self._kill(self.listeners.pop(("chinaserver.openuss", "store1")))

    def report_hung(self) -> Iterator[Line]:
        self.hung = serving = self.listeners["northeast.openuss", "store1"]
        marks = self._marks()
        os.kill(serving.pid, signal.SIGSTOP)
        try:
            fetch(serving.endpoint, 0.5)
            raise SceneProblem(f"{serving.endpoint} answers although its process is stopped")
        except OSError:
            yield "it accepts connections and answers nothing; portal.web waits half a second and reports it", None
        begun = time.time()
        report = LocalReport(
            serving.service, serving.host.address, serving.port, reporter="portal.web", detail="no answer in 0.5 s"
        )
        outcome = self.deployment.hosts["web1"].api.report(report)
        yield f"the report is acknowledged: {outcome.state}", time.time() - begun
        yield from self._seen(serving, "suspect", marks, begun, DEATH_SECONDS_MAX)
        yield from self._seen(serving, "down", marks, begun, PROBE_SECONDS_MAX)

    def lose_service(self) -> Iterator[Line]:
        backup = self.listeners["emergency.rescue", "auth1"]
        serving = self.listeners.pop(("chinaserver.openuss", "store2"))
        begun = time.time()
        yield from self._kill(serving)
        for watcher in self.watchers:
            self._until_source(watcher, "chinaserver.openuss", "backup")
            peer = watcher.api.resolve("chinaserver.openuss").listeners[0]
            answer = fetch(format_endpoint(peer.address, peer.port), 2.0)
            if backup.service not in answer:
                raise SceneProblem(f"{watcher}: the backup answered {answer!r}")
            yield f"{watcher} asks for chinaserver.openuss and is served by {answer}", time.time() - begun

    def recover(self) -> Iterator[Line]:
        assert self.hung is not None
        marks = self._marks()
        serving = self.listeners["chinaserver.openuss", "store1"] = self.deployment.serve(
            "chinaserver.openuss", "store1"
        )
        yield from self._seen(serving, "up", marks, None, REGISTRATION_SECONDS_MAX)
        until(serving.registered, RETURN_SECONDS_MAX, f"{serving.service} is registered")
        for watcher in self.watchers:
            self._expect_source(watcher, "chinaserver.openuss", "service")
        yield "both use chinaserver.openuss itself again", None
        begun, marks = time.time(), self._marks()
        os.kill(self.hung.pid, signal.SIGCONT)
        yield from self._seen(self.hung, "up", marks, begun, RETURN_SECONDS_MAX)

    def without_server(self) -> Iterator[Line]:
        self.deployment.stop_server()
        until(
            lambda: not any(h.api.status().session == "open" for h in self._hosts()), RETURN_SECONDS_MAX, "it is gone"
        )
        for watcher in self.watchers:
            begun = time.time()
            for _ in range(LOOKUPS):
                self._expect_source(watcher, "openuss", "service")
            each = (time.time() - begun) / LOOKUPS
            yield f"{LOOKUPS} lookups on {watcher.host}, each answered (time of one)", each
        begun = time.time()
        self.deployment.stop_host("web1")
        self.deployment.start_hosts(["web1"])
        self._expect_source(self.watchers[0], "openuss", "service")
        yield "opengnscd on web1 was restarted without a server, and answers from its disk", time.time() - begun
        self.during = self.deployment.serve("northeast.openuss", "store2")
        until(lambda: self._state_of(self.during) == "pending", RETURN_SECONDS_MAX, "the registration is kept")
        yield f"northeast.openuss starts at {self.during.endpoint}; its registration is kept on store2", None

    def server_returns(self) -> Iterator[Line]:
        assert self.during is not None
        begun, marks = time.time(), self._marks()
        self.deployment.start_server()
        until(self.deployment.in_session, RETURN_SECONDS_MAX, "every host has a session again")
        yield "opengnssd is back, every host has a session again", time.time() - begun
        yield from self._seen(self.during, "up", marks, begun, RETURN_SECONDS_MAX)
        until(self.during.registered, RETURN_SECONDS_MAX, "the kept registration is delivered")
        for watcher, mark in zip(self.watchers, marks, strict=True):
            others = [
                told.event
                for told in watcher.told[mark:]
                if told.change is not None and not told.states(self.during.service, self.during.endpoint)
            ]
            if others:
                raise SceneProblem(f"{watcher} was notified of an object that did not change: {others}")
        yield "of what was registered before, nothing flapped", None

    def _kill(self, serving: Serving) -> Iterator[Line]:
        marks, begun = self._marks(), time.time()
        os.kill(serving.pid, signal.SIGKILL)
        yield from self._seen(serving, "gone", marks, begun, DEATH_SECONDS_MAX)

    def _seen(
        self,
        serving: Serving,
        state: str,
        marks: Sequence[int],
        begun: float | None,
        limit_seconds: float,
        *,
        quiet: bool = False,
    ) -> Iterator[Line]:
        """Wait until every dependant sees a state. The time runs from `begun`, else from the server's commit."""
        for watcher, mark in zip(self.watchers, marks, strict=True):

            def wanted(told: Told) -> bool:
                return told.states(serving.service, serving.endpoint) == state

            told = watcher.wait(wanted, mark, RETURN_SECONDS_MAX)
            if told is None or told.change is None:
                raise SceneProblem(f"{watcher} does not see {serving.service} at {serving.endpoint} {state}")
            took = told.at - (told.change.time if begun is None else begun)
            late = took > limit_seconds
            if not quiet or late:
                since = " (from the commit)" if begun is None else ""
                # A busy machine delays every process; the promise is of one that is not (tests/e2e/test_latency.py).
                promised = f"; later than {limit_seconds * 1000:.0f} ms, this machine is busy" if late else ""
                yield f"{watcher} sees {serving.endpoint} {state}{since}{promised}", took

    def _marks(self) -> list[int]:
        return [len(watcher.told) for watcher in self.watchers]

    def _hosts(self) -> list[Host]:
        return list(self.deployment.hosts.values())

    def _watcher(self, service: str, host: str) -> Watcher:
        return Watcher(service, host, self.deployment.hosts[host].api)

    def _until_source(self, watcher: Watcher, name: str, source: str) -> None:
        until(
            lambda: watcher.api.resolve(name).source == source, RETURN_SECONDS_MAX, f"{watcher}: {name} from {source}"
        )

    def _expect_source(self, watcher: Watcher, name: str, source: str) -> None:
        try:
            found = watcher.api.resolve(name)
        except ApiProblem as problem:
            raise SceneProblem(f"{watcher} looks up {name}: {problem}") from None
        if found.source != source:
            raise SceneProblem(f"{watcher} looks up {name} and gets {found.source}, not {source}")

    def _state_of(self, serving: Serving | None) -> str:
        assert serving is not None
        own = serving.host.api.status().registrations
        return next(
            (entry.state for entry in own if (entry.service, entry.port) == (serving.service, serving.port)), ""
        )


def fetch(endpoint: str, seconds: float) -> str:
    """Return the answer of a listener. Raises OSError."""
    # Not through a proxy of the environment: these are this machine's own addresses.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://{endpoint}/", timeout=seconds) as answer:
        return str(answer.read().decode().strip())

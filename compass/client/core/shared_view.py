"""Lookups without a call, in the view that the daemon shares in memory (protocols/shared-view.md).

    peers = compass.client.SharedView("/run/opengns/view", "portal.web")
    for peer in peers.listeners("openuss"): ...

A lookup reads a generation number from memory, which the daemon increments after each change. While the number is
unchanged, the answer comes from a dictionary: no system call, no round trip, and up to date as soon as the daemon is.
Lookups still work while the daemon restarts, and after its death with the last data (P7).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import threading
from pathlib import Path

from compass.client.core.api import HostApiCalls
from compass.client.core.endpoint import ApiEndpoint, InvalidEndpoint, parse_api_endpoint
from compass.client.core.errors import NoneRegistered, NotLoaded, refused
from compass.client.core.resume import MissingNames, ask_daemon
from compass.client.core.threads import ThreadRuntime
from compass.client.core.view import FailedListeners, View
from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.limits import REPORT_SECONDS
from compass.model.names import category_of
from compass.model.replies import Refusal
from compass.model.rows import Listener
from compass.model.selection.policies import Location
from compass.model.selection.selector import Selector
from compass.wire.shared_view import (
    CONTENT_OCTETS_MAX,
    GENERATION_WORD,
    INDEX_OCTETS,
    NotShared,
    Shared,
    check_index,
    unpack,
)

READS_MAX = 100
"""Attempts to read content that changes during the read; then the last content read is used."""


class SharedView:
    """Dependencies of one service, in the view shared in `directory`.

    It may be used by several threads, and in the child of a fork. Raises NotLoaded if nothing is shared there yet, and
    ApiProblem if the content is unreadable.
    """

    def __init__(self, directory: str | os.PathLike[str], service: str, api: ApiEndpoint | None = None) -> None:
        """`api`: the daemon, which learns of names without a listener; else OPENGNS_API. Without the daemon nothing
        changes."""
        self._directory = Path(directory)
        self._service = service
        self._api = api
        self._missing = MissingNames()
        self._lock = threading.Lock()
        self._words = self._mapped()
        self._generation = 0
        self._held: tuple[View, dict[str, tuple[Listener, ...]]]
        """The view, and the answers computed from it."""
        self._selector = Selector(random.random)
        self._load()

    def listeners(self, name: str) -> tuple[Listener, ...]:
        """Return the listeners to use for a service or a category, at least one, in the order of the pool's policy. The
        order is computed once per change; `Client.resolve` computes it for each lookup. Raises NoneRegistered,
        UnknownName."""
        if self._words[GENERATION_WORD] == self._generation:
            found = self._answers.get(name)
            if found is not None:
                return found
        return self._look_up(name)

    def view(self, service: str) -> View | None:
        """Return the view of any service known to the host, for `Client(views=...)`; None if it is unknown."""
        if self._words[GENERATION_WORD] != self._generation:
            self._load()
        view, _ = self._held
        if category_of(service) not in self._members:
            return None
        return view if service == view.service else View(service, view.catalogue)

    def _look_up(self, name: str) -> tuple[Listener, ...]:
        if self._words[GENERATION_WORD] != self._generation:
            self._load()
        # The selector keeps state for each pool: two threads at once would mix two views.
        with self._lock:
            view, answers = self._held
            if category_of(self._service) not in self._members:
                raise NotLoaded("not-ready", f"the dependencies of {self._service} are not shared in {self._directory}")
            answer = view.resolve(name, self._selector, _NONE_FAILED, 0.0)
        if isinstance(answer, Refusal):
            raise refused(answer.code, answer.message)
        if not answer.listeners:
            self._found_none(name)
            raise NoneRegistered(name)
        answers[name] = answer.listeners
        return answer.listeners

    def _found_none(self, name: str) -> None:
        """Let the daemon know in the background. If that is impossible, the lookup ends as it would otherwise."""
        runtime = ThreadRuntime()
        if self._missing.is_due(name, runtime.seconds()):
            with contextlib.suppress(RuntimeError, InvalidEndpoint):
                endpoint = self._api or parse_api_endpoint(os.environ.get("OPENGNS_API", ""))
                runtime.spawn(ask_daemon(HostApiCalls(runtime, endpoint, REPORT_SECONDS), name))

    def _load(self) -> None:
        """Load the newest content. The generation is read first, so the next lookup notices a later one."""
        with self._lock:
            for _ in range(READS_MAX):
                generation = self._words[GENERATION_WORD]
                if not generation:
                    raise NotLoaded("not-ready", f"nothing has been shared in {self._directory} yet")
                shared = self._read()
                if self._words[GENERATION_WORD] == generation:
                    break
            self._selector.moved(Location(shared.host, shared.zone))
            self._members = frozenset(category_of(service) for service in shared.services)
            # Replaced together: answers that another thread computes from the old view go into the old dictionary.
            self._held = View(self._service, _catalogue(shared)), {}
            self._answers = self._held[1]
            self._generation = generation

    def _read(self) -> Shared:
        path = self._directory / "content"
        try:
            with path.open("rb") as file:
                octets = os.fstat(file.fileno()).st_size
                if octets > CONTENT_OCTETS_MAX:
                    raise NotShared(f"it has {octets} octets; at most {CONTENT_OCTETS_MAX} are read")
                shared, _ = unpack(file.read(octets))
        except (OSError, NotShared) as problem:
            raise NotLoaded("not-ready", f"{path}: {problem}") from problem
        return shared

    def _mapped(self) -> memoryview:
        path = self._directory / "index"
        try:
            with path.open("rb") as file:
                check_index(file.read(INDEX_OCTETS + 1))
                octets = mmap.mmap(file.fileno(), INDEX_OCTETS, prot=mmap.PROT_READ)
        except (OSError, NotShared) as problem:
            text = f"{path}: {problem}; does opengnscd run here, and does it share its view ([host] view)?"
            raise NotLoaded("not-ready", text) from problem
        return memoryview(octets).cast("Q")


def _catalogue(shared: Shared) -> Catalogue:
    return catalogue_of(shared.held.rows, shared.held.topics, shared.held.revision)


_NONE_FAILED = FailedListeners()

"""Registration as the journal holds it, with the requests and answers that follow from it. Pure."""

from __future__ import annotations

import hmac
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from compass.model.host_api import Integer, Outcome
from compass.model.limits import EPOCH_MAX, PORT_MAX
from compass.model.names import format_endpoint, parse_address, parse_port, parse_service_id
from compass.model.requests import Deregister, Register
from compass.model.rows import IDLE, ListenerKey
from compass.model.rows import State as ListenerState
from compass.system.peer_credentials import UNKNOWN_USER

Epoch = Annotated[int, Meta(ge=0, le=EPOCH_MAX)]
State = Literal["pending", "registered", "leaving", "refused"]
"""pending: no server has answered yet. leaving: the deregistration is not delivered yet. refused: a server refused to
register the instance again; the entry is kept to be shown."""
Instance = tuple[ListenerKey, int]
"""Listener and epoch: names one instance of a service."""


class Registration(msgspec.Struct, frozen=True, omit_defaults=True):
    """Registration: one instance of a service on this host."""

    service: str
    address: str
    port: Annotated[int, Meta(ge=1, le=PORT_MAX)]
    epoch: Epoch
    credential: str
    state: State = msgspec.field(name="standing")
    weight: Integer = 1
    metadata: dict[str, str] = {}
    pid: Integer = 0
    started: str = ""
    """Start of the process as `process_watch.start_of` returns it; with the pid it identifies one process."""
    hold: bool = False
    """The registration ends with the connection on which the program asked for it."""
    died: bool = False
    """True with `leaving` if the process or its connection ended, without a request to deregister."""
    problem: str = ""
    """Message of the server, with `refused`."""
    code: str = ""
    """Code of the refusal, with `refused`."""
    zone: str = ""
    load: float = IDLE
    degradation: float = IDLE
    user: Integer = UNKNOWN_USER
    """User whose program asked for it."""

    @property
    def key(self) -> ListenerKey:
        """Key in the journal; a new instance at the same address and port replaces the old one."""
        return (self.service, self.address, self.port)

    @property
    def instance(self) -> Instance:
        """Identity of this instance."""
        return (self.key, self.epoch)

    @property
    def lives(self) -> bool:
        """Return whether the instance is registered or about to be."""
        return self.state in ("pending", "registered")

    def has_credential(self, credential: str) -> bool:
        """Compare credentials in constant time."""
        return hmac.compare_digest(self.credential.encode(), credential.encode())


def parse_key(service: str, address: str, port: int) -> ListenerKey:
    """Raises InvalidName."""
    return parse_service_id(service), parse_address(address), parse_port(port)


def format_key(key: ListenerKey) -> str:
    """Format a listener for log lines and refusals."""
    return f"{key[0]} at {format_endpoint(key[1], key[2])}"


def register_request(entry: Registration) -> Register:
    """Return the request that registers the instance."""
    return Register(
        entry.service,
        entry.credential,
        entry.address,
        entry.port,
        entry.epoch,
        entry.weight,
        entry.metadata,
        entry.zone,
        entry.load,
        entry.degradation,
    )


def deregister_request(entry: Registration) -> Deregister:
    """Return the request that deregisters the instance."""
    return Deregister(entry.service, entry.credential, entry.address, entry.port, entry.epoch, entry.died)


def outcome_of(entry: Registration, state: ListenerState | Literal["pending"], revision: int = 0) -> Outcome:
    """Return the answer for the program that asked."""
    return Outcome(state, *entry.key, epoch=entry.epoch, revision=revision)

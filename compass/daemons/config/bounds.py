"""Keys that bound what a credential, a host, a row and the logs cost: their types, limits and descriptions."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from compass.daemons.config.fields import about

KEEP_OCTETS_MIN = 16 * 1024**2
"""A shorter log would not reach back to what a host missed in a moment: 2,000 changes with full metadata."""
KEEP_OCTETS_MAX = 1024**4
"""More octets of a log than a disk has room for are a slip of the hand."""
CHANGES_PER_SECOND_MIN = 0.1
"""A lower rate would refuse an honest restart; to refuse every change, bar the host or revoke the credential."""
CHANGES_MAX = 1_000_000
"""More changes than any store commits in a second: as good as no limit."""

NETWORKS_MAX = 256
"""Most networks in one list: each probe is compared with all of them."""

Octets = Annotated[int, Meta(ge=KEEP_OCTETS_MIN, le=KEEP_OCTETS_MAX)]
ChangesPerSecond = Annotated[float, Meta(ge=CHANGES_PER_SECOND_MIN, le=CHANGES_MAX)]
ChangesBurst = Annotated[int, Meta(ge=1, le=CHANGES_MAX)]

KeepUpdatesOctets = Annotated[
    Octets,
    about(
        "Octets kept in the update log: the oldest entries are deleted beyond this or beyond "
        "`keep_updates`, whichever is reached first. The log exceeds it by at most what is written within 10 s; the "
        "space is used again, the file does not shrink."
    ),
]
KeepOthersOctets = Annotated[Octets, about("Octets kept in the security log, and as many in the administration log.")]
CredentialChangesPerSecond = Annotated[
    ChangesPerSecond,
    about(
        "Changes of listeners with one credential in a second, once the burst is used up; more are "
        "refused as busy, with the time to wait. Each server and each worker counts for itself."
    ),
]
CredentialChangesBurst = Annotated[
    ChangesBurst, about("Changes of listeners with one credential at once: all listeners of a service.")
]
HostChangesPerSecond = Annotated[
    ChangesPerSecond,
    about("Changes of listeners by one host in a second, with all its credentials, once the burst is used up."),
]
HostChangesBurst = Annotated[
    ChangesBurst, about("Changes of listeners by one host at once: all its services after its start.")
]
ProbeNetworksKey = Annotated[
    tuple[str, ...],
    Meta(
        description="Networks that this daemon probes and dials because a listener or a host is registered there, such "
        'as ["10.0.0.0/8"]; empty: all, except link-local addresses and, unless this daemon serves the loopback only, '
        "the loopback. A listener elsewhere is judged by other hosts."
    ),
]
ProbeNetworksDenied = Annotated[
    tuple[str, ...],
    Meta(description="Networks that this daemon neither probes nor dials, whatever `probe_networks` allows."),
]
ServerDevelopment = Annotated[
    bool,
    Meta(
        description="Development mode, as `opengns dev` sets it: a registration declares its service and its category, "
        "and needs no credential where the category is open. Every address of this server must be a loopback address."
    ),
]
HostDevelopment = Annotated[
    bool,
    Meta(
        description="Development mode, as `opengns dev` sets it: opengnsc registers without a credential if there is "
        "none. `address` and `update` must be loopback addresses."
    ),
]

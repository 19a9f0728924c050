"""The components of a server that has loaded its catalogue, and how they are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from twisted.internet.defer import Deferred

from compass.model.catalogue.catalogue import catalogue_of
from compass.model.cluster import ClusterStore, ClusterView
from compass.model.interfaces import Clock, Store, StoreState
from compass.model.rules.certificates import OwnCertificate
from compass.server.alerts.certificates import CertificateAlerts
from compass.server.alerts.lost_hosts import LostHosts
from compass.server.alerts.notifier import AlertNotifier, Channel, NotifierDependencies
from compass.server.alerts.refused_hosts import RefusedHosts
from compass.server.certificate_issuer import CertificateIssuer, Signer
from compass.server.cluster.double_sessions import DoubleSessions
from compass.server.cluster.membership import ClusterAccess, Membership
from compass.server.commit.anti_entropy import AntiEntropy
from compass.server.commit.committer import Committer
from compass.server.commit.log_reader import LogReader
from compass.server.commit.log_trimmer import LogBounds, LogTrimmer
from compass.server.commit.replica import Changes, Replica
from compass.server.commit.security_log import SecurityLog
from compass.server.commit.store_access import STORE_WAIT_SECONDS, StoreAccess, StoreThread
from compass.server.commit.transaction import Decider
from compass.server.failure.detector import DetectorDependencies, FailureDetector, Probe
from compass.server.failure.holdings import Holdings
from compass.server.failure.listener_index import ListenerIndex
from compass.server.failure.pending_suspicions import PendingSuspicions
from compass.server.hosts import HostConnector, HostEvents, HostPresence
from compass.server.push.change_feed import ChangeFeed
from compass.server.push.dialer import Dialer
from compass.server.push.later_revisions import LaterRevisions
from compass.server.push.publisher import Publisher
from compass.server.push.subscriptions import Guards, Subscriptions
from compass.server.queries.handler import QueryHandler
from compass.server.queries.host_sessions import HostSessionTracker
from compass.server.queries.status import StatusReporter, StatusSources
from compass.server.sessions.bearer_auth import BearerAuth
from compass.server.sessions.connection_limits import ConnectionLimits, SessionChanges
from compass.server.sessions.drain import HostDrain
from compass.server.sessions.identity import ServerIdentity
from compass.server.sessions.rate_limit import FAILURES_PER_MINUTE_MAX, ChangeRates, RateLimiter
from compass.server.sessions.session import AddressesOf, PeerOf, Session, SessionContext


class ServerDependencies(msgspec.Struct, frozen=True):
    """Surroundings of a server, which the process that it runs in provides."""

    clock: Clock
    now: Callable[[], float]
    """UNIX time in seconds."""
    token: Callable[[], str]
    """256 fresh random bits as text."""
    storage: Store
    in_database: StoreThread
    peer_of: PeerOf
    probe: Probe
    connect: Callable[[str, str, int, Callable[[], Session]], Deferred[Session]]
    """Connects to a host's Update listener: name, address, port, and what makes the session."""
    id: str
    """Identity of this run of the server; unlike that of any other over the same store."""
    roster: ClusterStore
    beside: StoreThread
    """Runs the roster's functions, on a thread of their own: they neither wait for a commit nor hold one up."""
    random: Callable[[], float] = lambda: 0.5
    """A number from 0 to 1, which spreads repetitions; handed in, as all randomness is."""
    ways: tuple[Channel, ...] = ()
    """Channels to administrators."""
    keep: LogBounds = LogBounds()
    store_wait_seconds: float = STORE_WAIT_SECONDS
    change_rates: ChangeRates = ChangeRates()
    addresses_of: AddressesOf = lambda stream: ()
    certificates: Callable[[], Sequence[OwnCertificate]] = tuple
    """Function that returns the certificates whose end ends this server's sessions."""
    signer: Signer | None = None
    """Private authority with its key; None: this server does not have it, and signs no certificates."""
    reports_certificates: bool = True
    """True if this process opens incidents about them: of several workers one does."""
    development: bool = False
    """True if registrations of hosts declare services in open categories (`opengns dev`)."""


class ServerBase(msgspec.Struct, frozen=True):
    """Parts that a server has before its catalogue is loaded, when it accepts connections already."""

    name: str
    software: str
    dependencies: ServerDependencies
    sessions: SessionContext
    connections: ConnectionLimits
    drain: HostDrain


class Components:
    """The components of a server that has loaded its catalogue; none of them runs yet."""

    def __init__(self, base: ServerBase, loaded: StoreState) -> None:
        """Make all components, on the state that was loaded."""
        given, clock, sessions = base.dependencies, base.dependencies.clock, base.sessions
        self.now = given.now
        self.clock = clock
        self.connections = base.connections
        self.change_rates = given.change_rates
        self.drain = base.drain
        self.identity = identity = _identity(base, loaded)
        access = StoreAccess(given.storage, given.in_database, clock, given.store_wait_seconds)
        changes, cluster, decider = Changes(), ClusterView(given.id), Decider(given, given.development)
        replica = Replica(catalogue_of(loaded.rows, loaded.topics, loaded.revision), access, changes, loaded.digest)
        self.changes, self.cluster = changes, cluster
        self.committer = committer = Committer(access, replica, SecurityLog(base.connections), decider, clock)
        self.publisher = publisher = Publisher(replica, clock)
        self.host_sessions = tracker = HostSessionTracker(base.name, given, cluster)
        presence = HostPresence(replica, publisher, cluster, tracker)
        self.pending_suspicions = pending = PendingSuspicions(clock, decider, committer, publisher)
        committer.overdue_handler = pending
        detecting = DetectorDependencies(given, given.probe, presence, cluster)
        index = ListenerIndex()
        self.detector = detector = FailureDetector(base.name, committer, pending, detecting, index)
        self.holdings = Holdings(clock, committer, publisher, identity.principal, index, presence)
        self.dialer = Dialer(clock, replica, publisher, HostConnector(presence, detector, sessions, given))
        servers = ClusterAccess(given.roster, given.beside)
        notifying = NotifierDependencies(given, loaded.store, servers, replica, cluster)
        self.alerts = AlertNotifier(notifying, given.ways)
        self.refused_hosts = RefusedHosts(base.name, clock, committer)
        self.lost_hosts = LostHosts(clock, committer, cluster, identity.principal)
        self.certificates = CertificateAlerts(base.name, given, committer)
        health = detector.local_health
        sources = StatusSources(committer, publisher, cluster, health, base.connections, base.drain, tracker)
        self.status = StatusReporter(identity, sources)
        self.membership = Membership(clock, servers, cluster, self.status, publisher)
        self.hosts = HostEvents(presence, self.membership, pending, detector, self.alerts, self.dialer)
        self.double_sessions = DoubleSessions(clock, committer, publisher, cluster, identity.principal)
        self.membership.subscribers = (self.hosts, self.double_sessions)
        self.anti_entropy = AntiEntropy(base.name, clock, committer, access)
        self.logs = LogReader(clock, committer, access)
        self.trimmer = LogTrimmer(clock, access, given.keep)
        guards = Guards(self.anti_entropy, LaterRevisions(base.name, committer, access), self.holdings)
        self.subscriptions = Subscriptions(identity, clock, committer, publisher, guards, self.hosts)
        self.change_feed = ChangeFeed(loaded.store, loaded.revision)
        self.queries = QueryHandler(loaded.store, given, committer, publisher)
        self.bearer_auth = BearerAuth(given, committer)
        failed = RateLimiter(clock, FAILURES_PER_MINUTE_MAX)
        self.issuer = CertificateIssuer(loaded.store, given, access, committer, failed)
        self._subscribe()

    def _subscribe(self) -> None:
        """Declare what follows the log, and in which order."""
        sessions = SessionChanges(self.connections)
        # A suspicion that the log settles ends before the listener is weighed again.
        failures = self.pending_suspicions, self.detector
        # Holdings read the detector's index of the listeners as it was before a change.
        self.changes.on_commit = (
            self.publisher,
            self.change_feed,
            sessions,
            self.dialer,
            self.holdings,
            *failures,
            self.alerts,
        )
        self.changes.on_reload = (
            self.publisher,
            self.subscriptions,
            self.queries,
            self.change_feed,
            sessions,
            *failures,
        )


def _identity(base: ServerBase, loaded: StoreState) -> ServerIdentity:
    given = base.dependencies
    channels = tuple(channel.name for channel in given.ways)
    return ServerIdentity(given.id, base.name, base.software, loaded.store, given.storage.engine, given.now(), channels)

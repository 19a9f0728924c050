"""The tables, column by column. `migrations/` builds the same ones step by step; a test compares the two.

Times are UNIX times in seconds. Text that holds JSON is written and read by msgspec, never by SQL, so it is plain
text on both engines. Empty values are `''` and 0, as in the rows of the model; only a missing backup is NULL,
because it is a foreign key.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    false,
    func,
)

VERSION_TABLE = "schema_version"
"""Table with the migration that a database is at."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
_Number = BigInteger().with_variant(Integer, "sqlite")
"""64 bits on both: SQLite's INTEGER has them, and only a column of that name is the table's own key."""

clock = Table(
    "clock",
    metadata,
    # Always 1: there is one row. Every transaction that writes updates it, so it is also the lock of all writers.
    Column("one", SmallInteger, CheckConstraint("one = 1", name="one"), primary_key=True, autoincrement=False),
    # The store's own id, 32 hexadecimal digits: revisions of different stores have nothing to do with each other.
    Column("store", Text, nullable=False),
    # The last committed revision: the fence.
    Column("revision", BigInteger, nullable=False),
    # The last number given in the security log.
    Column("security", BigInteger, nullable=False),
    # The last number given in the administration log.
    Column("administration", BigInteger, nullable=False),
    # When the store was created, by the database's clock (UTC).
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.current_timestamp()),
    # Digest of all rows (opengnsp.md, "Digests"), 64 hexadecimal digits; '': none was said.
    Column("digest", Text, nullable=False, server_default=""),
    # The revision that it is of. A server that knows of no digests moves `revision` on and leaves these behind.
    Column("digest_at", BigInteger, nullable=False, server_default="0"),
    # The last revision at which a server found it wrong: the others then look at the tables, too.
    Column("doubted", BigInteger, nullable=False, server_default="0"),
    # The oldest schema whose programs can work with this one while an upgrade is under way.
    Column("readable_from", Text, nullable=False, server_default=""),
)

category = Table(
    "category",
    metadata,
    # One DNS label.
    Column("name", Text, primary_key=True),
    # Id of the backup service; NULL: none. Checked at the end of the transaction: the two tables refer to each other.
    Column(
        "backup",
        Text,
        ForeignKey("service.id", use_alter=True, deferrable=True, initially="DEFERRED"),
        nullable=True,
    ),
    # JSON of `Policy`: how its listeners are judged and given to users.
    Column("policy", Text, nullable=False),
    # Revision of the last change of the category, its services or its dependencies.
    Column("revision", BigInteger, nullable=False),
)

service = Table(
    "service",
    metadata,
    # `service.category`.
    Column("id", Text, primary_key=True),
    # The second part of the id.
    Column("category", Text, ForeignKey("category.name"), nullable=False),
    # Revision of the last change of one of its listeners, or of its own creation.
    Column("revision", BigInteger, nullable=False),
)

listener = Table(
    "listener",
    metadata,
    # Id of the service it serves.
    Column("service", Text, ForeignKey("service.id"), primary_key=True),
    # IPv4 or IPv6 literal in canonical form.
    Column("address", Text, primary_key=True),
    # TCP port.
    Column(
        "port",
        Integer,
        CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
        primary_key=True,
        autoincrement=False,
    ),
    # One of `State`.
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('up', 'slow', 'suspect', 'down', 'draining', 'offline')", name="state"),
        nullable=False,
    ),
    # When it came into this state.
    Column("changed_at", Double, nullable=False),
    # The instance that registered it last; up to 2**63 - 1.
    Column("epoch", BigInteger, nullable=False),
    # Name of the host that registered it; '': an administrator did.
    Column("host", Text, nullable=False),
    # Share of users, 0 to 65535.
    Column("weight", Integer, CheckConstraint("weight BETWEEN 0 AND 65535", name="weight"), nullable=False),
    # JSON object of strings.
    Column("metadata", Text, nullable=False),
    # Why it is in this state, in words.
    Column("cause", Text, nullable=False),
    # It takes no new users, whatever its health.
    Column("draining", Boolean, nullable=False, server_default=false()),
    # Where it is, one label; '': not known.
    Column("zone", Text, nullable=False, server_default=""),
    # Share of its capacity in use, 0 to 1, as it last reported.
    Column("load", Double, nullable=False, server_default="0"),
    # By how much one more user raises that.
    Column("degradation", Double, nullable=False, server_default="0"),
)

dependency = Table(
    "dependency",
    metadata,
    # The category whose services receive the changes.
    Column("category", Text, ForeignKey("category.name"), primary_key=True),
    # The category whose changes they receive.
    Column("on", Text, ForeignKey("category.name"), primary_key=True),
)

credential = Table(
    "credential",
    metadata,
    # Id of the service that proves itself with it.
    Column("service", Text, ForeignKey("service.id"), primary_key=True),
    # What administrators call it: the beginning of the digest.
    Column("id", Text, primary_key=True),
    # SHA-256 of the token, hexadecimal; the token itself is nowhere.
    Column("digest", Text, nullable=False),
    # When it was issued.
    Column("created_at", Double, nullable=False),
    # From when on it is refused; 0: never.
    Column("expires_at", Double, nullable=False),
)

host = Table(
    "host",
    metadata,
    # The name in its certificate.
    Column("name", Text, primary_key=True),
    # Where the server dials it; '': nowhere.
    Column("update_address", Text, nullable=False),
    # The port for that; 0: nowhere.
    Column(
        "update_port",
        Integer,
        CheckConstraint("update_port BETWEEN 0 AND 65535", name="update_port"),
        nullable=False,
    ),
    # JSON array of the service ids on whose behalf it receives changes. They need not exist (yet), hence no foreign
    # key.
    Column("services", Text, nullable=False),
    # Refused whatever it asks.
    Column("barred", Boolean, nullable=False),
)

alert = Table(
    "alert",
    metadata,
    # What happened to which listener.
    Column("id", Text, primary_key=True),
    # `failure` or `slow`.
    Column("kind", Text, CheckConstraint("kind IN ('failure', 'slow')", name="kind"), nullable=False),
    # When it happened.
    Column("opened_at", Double, nullable=False),
    # For the administrators.
    Column("text", Text, nullable=False),
)

update_log = Table(
    "update_log",
    metadata,
    # The change's revision: 1, 2, 3 and so on without a gap; the oldest are trimmed.
    Column("revision", _Number, primary_key=True, autoincrement=False),
    # When it was decided.
    Column("time", Double, nullable=False),
    # What was done: register, deregister, died, report, confirm, category-add ...
    Column("operation", Text, nullable=False),
    # What it was done to: a service id for listeners and credentials, or the object's name.
    Column("subject", Text, nullable=False),
    # The listener's address; '' for other objects.
    Column("address", Text, nullable=False),
    # The listener's port; 0 for other objects.
    Column("port", Integer, nullable=False),
    # The listener's new state, or `removed`; '' for other objects that were set.
    Column("state", Text, nullable=False),
    # Revision of the change before this one on the same topic.
    Column("previous", BigInteger, nullable=False),
    # JSON of the whole `Change`: what replicas apply.
    Column("change", Text, nullable=False),
)

# Facts of the moment: who serves this store now, and whose session is where. `compass.model.cluster` says what for.
server = Table(
    "server",
    metadata,
    # Of one run of a server: hexadecimal digits, new at each start.
    Column("id", Text, primary_key=True),
    # As in logs and answers; two runs may have the same.
    Column("name", Text, nullable=False),
    # Program and version.
    Column("software", Text, nullable=False),
    # By the server's own clock.
    Column("started_at", Double, nullable=False),
    # Of its last beat, by the database's clock.
    Column("seen_at", Double, nullable=False),
    # Counts its beats: what moves, lives.
    Column("beat", BigInteger, nullable=False),
    # What it has applied of the update log.
    Column("revision", BigInteger, nullable=False),
    # Connections to it.
    Column("sessions", Integer, nullable=False),
    # Those of hosts that watch.
    Column("watching", Integer, nullable=False),
    # It has hosts and believes its own probes.
    Column("able", Boolean, nullable=False),
    # The largest number among its presences.
    Column("entry", BigInteger, nullable=False),
    # All its hosts hold this revision, but for those in `behind`; -1: too many do not.
    Column("held", BigInteger, nullable=False),
    # JSON array of `HostLag`.
    Column("behind", Text, nullable=False),
    # JSON array of the names of the channels by which it notifies administrators.
    Column("ways", Text, nullable=False, server_default="[]"),
)

told = Table(
    "told",
    metadata,
    # The name of a channel to administrators.
    Column("way", Text, primary_key=True),
    # Revision up to which the channel has nothing left to send. The next sender begins after it.
    Column("revision", BigInteger, nullable=False),
)

presence = Table(
    "presence",
    metadata,
    # Its name. A host that was here once stays until its server is forgotten.
    Column("host", Text, primary_key=True),
    # Id of the server that has its session or had it last. No foreign key: a server may be gone first.
    Column("server", Text, nullable=False),
    # Counts the entries of that server: who has read up to one reads only what is newer.
    Column("entry", BigInteger, nullable=False),
    # One of `Where`.
    Column("state", Text, CheckConstraint("state IN ('here', 'left', 'lost')", name="state"), nullable=False),
    # The revision that it held when the session ended.
    Column("held", BigInteger, nullable=False),
    Index("ix_presence_server", "server", "entry"),
)

security_log = Table(
    "security_log",
    metadata,
    # 1, 2, 3 and so on without a gap, in the order of the commits; the oldest are trimmed.
    Column("number", _Number, primary_key=True, autoincrement=False),
    # When it was refused.
    Column("time", Double, nullable=False),
    # What was asked for.
    Column("operation", Text, nullable=False),
    # The service or object it was asked for, as the stranger spelled it.
    Column("subject", Text, nullable=False),
    # JSON of the request without its credential; cut when long.
    Column("parameters", Text, nullable=False),
    # Where the connection came from.
    Column("origin", Text, nullable=False),
    # The name in the certificate.
    Column("principal", Text, nullable=False),
    # Why it was refused.
    Column("reason", Text, nullable=False),
)

administration_log = Table(
    "administration_log",
    metadata,
    # 1, 2, 3 and so on without a gap, in the order of the commits; the oldest are trimmed.
    Column("number", _Number, primary_key=True, autoincrement=False),
    # When it was decided.
    Column("time", Double, nullable=False),
    # What was asked for.
    Column("operation", Text, nullable=False),
    # JSON of the request without its credential; cut when long.
    Column("arguments", Text, nullable=False),
    # Where the connection came from.
    Column("origin", Text, nullable=False),
    # The name in the certificate.
    Column("principal", Text, nullable=False),
    # `done` or the refusal's code.
    Column("outcome", Text, nullable=False),
    # The revision after it.
    Column("revision", BigInteger, nullable=False),
)

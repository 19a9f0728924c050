"""Store on SQLite or PostgreSQL: `compass.model.interfaces.Store` in SQL.

Every write is one transaction that begins by advancing the clock from the revision of its decision to the revision that
it reaches (the fence). The clock's row is the lock of all writers: a second writer finds another revision and gets
Conflict. If a connection is lost before the commit, the store connects again and repeats the transaction; if it is lost
during the commit, the outcome is unknown, and the caller reads it with `changes_after`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError

from compass.model.interfaces import (
    BatchRefused,
    Conflict,
    LogDamaged,
    LogPart,
    LogTrimmed,
    Proposal,
    Rebuilt,
    Redecide,
    StoredDigest,
    StoreState,
    StoreUnavailable,
)
from compass.model.limits import LOG_OCTETS_MAX
from compass.model.rows import AdministrationEntry, Change, Invitation, LogEntry, SecurityEntry
from compass.store import statements as sql
from compass.store.bulk_insert import BatchWriter
from compass.store.cluster import SqlClusterStore
from compass.store.engine import (
    WARNINGS,
    WRITES,
    ConnectionAborter,
    engine_for,
    file_of,
    not_confirmed,
    parse_url,
    prepare_file,
    redacted_url,
    unavailable,
)
from compass.store.errors import RowDamaged, StoreUnusable, StoreWentBack
from compass.store.log_pages import changes_after, entries_after
from compass.store.migrate import MIGRATIONS, bring_up, head_of, version_of
from compass.store.notifications import ChangeNotifier, Wake, notifier_for
from compass.store.restoration import rebuild, rows_of, unexplained
from compass.store.revision_record import RevisionRecord
from compass.store.row_mapping import batch_of, change_from, entry_records, invitation_from, text_of
from compass.store.statements import Log

READ_ONLY = "25006"
"""SQLSTATE read_only_sql_transaction: the error of a standby for a write (PostgreSQL, appendix A)."""
T = TypeVar("T")
BETWEEN_MAX = 1_000
"""Most changes of other servers that are applied inside a transaction: with more, all writers would wait too long."""


class Store:
    """Store with one connection, used by one thread at a time."""

    engine: str
    backup: Path | None
    """Copy of a SQLite file, made before its upgrade; None: no upgrade was needed."""
    newer: str = ""
    """Schema of the store if it is newer than this program's but usable by it; otherwise empty."""

    def __init__(self, url: URL, engine: Engine) -> None:
        self._url = url
        self._engine = engine
        self._writer = BatchWriter(engine.dialect.name)
        self._connection: Connection | None = None
        self._in_doubt = False
        file = file_of(url)
        self._record = RevisionRecord(file) if file is not None else None
        self.cut = ConnectionAborter(engine).abort
        """Function that aborts the current call, from another thread: the call raises StoreUnavailable, and the next
        one connects again."""

    @classmethod
    def open(cls, url: str, *, create: bool = True, migrations: Path = MIGRATIONS) -> Store:
        """Open the store at `sqlite:///path`, `sqlite://` (in memory) or `postgresql://user@host/database`.

        An absent store is created if `create`, an older one upgraded. Raises StoreTooNew and StoreUnusable, whose texts
        contain advice, and StoreUnavailable if a retry may succeed.
        """
        parsed = parse_url(url)
        file = file_of(parsed)
        if file is not None:
            prepare_file(file, create=create)
        store = cls(parsed, engine_for(parsed))

        def prepare(connection: Connection) -> tuple[Path | None, str]:
            if store._record is not None and version_of(connection, redacted_url(parsed)) is None:
                store._record.check_absent()
            copy = bring_up(connection, redacted_url(parsed), create=create, file=file, migrations=migrations)
            return copy, version_of(connection, redacted_url(parsed)) or ""

        try:
            store.backup, version = store._transaction(prepare, writes=True)
            store.newer = version if version > head_of(migrations) else ""
        except BaseException:
            store.close()
            raise
        dialect = store._engine.dialect
        store.engine = f"{dialect.name} {'.'.join(map(str, dialect.server_version_info or ()))}"
        return store

    def wakeups(self, wake: Wake) -> ChangeNotifier | None:
        """Return the notifier that calls `wake` after each write, on its own thread; None: no other process writes."""
        return notifier_for(self._url, wake)

    def roster(self) -> SqlClusterStore:
        """Return the cluster's part of the store, for a thread of its own."""
        in_memory = self._url.drivername == "sqlite" and file_of(self._url) is None
        return SqlClusterStore(self._url, self._engine if in_memory else engine_for(self._url, durable=False))

    def close(self) -> None:
        """Close the connection. The store stays usable: the next call connects again."""
        self._disconnect()
        self._engine.dispose()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def load(self) -> StoreState:
        def read(connection: Connection) -> StoreState:
            clock = connection.execute(sql.CLOCK).one()
            self._check_past(clock, 0)
            if self._record is not None:
                self._record.check(clock.store, clock.revision)
            rows = rows_of(connection)
            topics: dict[str, int] = {}
            for topic_revisions in (sql.CATEGORY_TOPICS, sql.SERVICE_TOPICS):
                topics.update((topic, at) for topic, at in connection.execute(topic_revisions))
            floor = _floor(connection, "updates", clock.revision)
            return StoreState(clock.store, clock.revision, floor, rows, topics, _digest(clock))

        try:
            return self._transaction(read, writes=False)
        except RowDamaged as damaged:
            if self.rebuild(None).verdict != "rebuilt":
                raise RowDamaged(unexplained(redacted_url(self._url), str(damaged))) from None
        return self._transaction(read, writes=False)

    def commit(
        self,
        expected: int,
        changes: Sequence[Change],
        security: Sequence[SecurityEntry],
        administration: Sequence[AdministrationEntry],
        again: Redecide | None = None,
        digest: str = "",
    ) -> None:
        """See `interfaces.Store`. After StoreUnavailable, `changes_after(expected, ...)` shows whether the batch was
        committed; after BatchRefused it was not, and never can be."""
        proposal = Proposal(changes, security, administration, digest)
        if not (changes or security or administration):
            return

        def write(connection: Connection) -> None:
            if self._write(connection, expected, proposal):
                return
            missed = self._between(connection, expected) if again is not None else None
            if again is None or missed is None:
                raise Conflict(f"the store is no longer at revision {expected}")
            self._write(connection, expected + len(missed), again(missed))

        try:
            self._transaction(write, writes=True)
        except (ValueError, OverflowError) as error:
            # Invalid Unicode or integers beyond 64 bits: the drivers raise these exceptions.
            raise BatchRefused(f"{redacted_url(self._url)} cannot hold a value of this batch: {error}") from error

    def _between(self, connection: Connection, expected: int) -> list[Change] | None:
        """Return the changes of others after a revision, or None if these are too many or no longer in the log.

        From here on no other writer can begin before the end of this transaction.
        """
        clock = connection.execute(sql.CLOCK_LOCKED).one()
        self._check_past(clock, 0)
        found = connection.execute(sql.CHANGES, {"after": expected, "most": BETWEEN_MAX}).all()
        if [entry.revision for entry in found] != list(range(expected + 1, clock.revision + 1)):
            return None
        try:
            return [change_from(entry) for entry in found]
        except LogDamaged:
            return None

    def _write(self, connection: Connection, expected: int, proposal: Proposal) -> bool:
        """Write fence, tables and logs. Returns False, without a write, if the store is at another revision."""
        changes, security, administration = proposal.changes, proposal.security, proposal.administration
        reached = expected + len(changes)
        if [change.revision for change in changes] != list(range(expected + 1, reached + 1)):
            raise BatchRefused(f"the changes do not have the revisions {expected + 1} to {reached}")
        numbers = {"securities": len(security), "administrations": len(administration)}
        if changes:
            batch = batch_of(changes)
            fence = {**numbers, "expected": expected, "reached": reached, "new_digest": proposal.digest}
            clock = self._writer.fence.run(connection, fence).fetchone()
        elif security or administration:
            clock = self._writer.count.run(connection, numbers).fetchone()
        else:
            return True
        if clock is None:
            return False
        if changes:
            self._writer.write(connection, batch)
        if security:
            self._writer.logs["security"].write(connection, entry_records(security, clock[0]))
        if administration:
            self._writer.logs["administration"].write(connection, entry_records(administration, clock[1]))
        return True

    def changes_after(self, revision: int, limit: int, octets_max: int | None = None) -> list[Change]:
        """See `interfaces.Store`. Conclusive after a failed commit, for whose end this waits."""

        def read(connection: Connection) -> list[Change]:
            clock = connection.execute(sql.CLOCK_LOCKED if self._in_doubt else sql.CLOCK).one()
            self._check_past(clock, revision)
            if self._record is not None:
                self._record.note(clock.store, clock.revision)
            found = changes_after(connection, revision, limit, octets_max)
            if clock.revision > revision and limit > 0 and (not found or found[0].revision != revision + 1):
                raise LogTrimmed(
                    f"{redacted_url(self._url)}: the changes after revision {revision} are no longer in the log"
                )
            return found

        try:
            changes = self._transaction(read, writes=self._in_doubt)
        except StoreWentBack as past:
            # For the next start of any server. A standby cannot be written, and may only lag.
            with contextlib.suppress(StoreUnavailable):
                self.mark_lost(past.known)
            raise
        self._in_doubt = False
        return changes

    def rebuild(self, revision: int | None) -> Rebuilt:
        def write(connection: Connection) -> Rebuilt:
            clock = connection.execute(sql.CLOCK_LOCKED).one()
            if revision not in (None, clock.revision):
                return Rebuilt("moved")
            return rebuild(connection, self._writer, _digest(clock))

        return self._transaction(write, writes=True)

    def mark_lost(self, revision: int) -> None:
        """See `interfaces.Store`."""
        self._transaction(lambda connection: connection.execute(sql.LOST, {"known": revision}), writes=True)

    def _check_past(self, clock: Any, held: int) -> None:
        """Raise StoreWentBack if the store is known to have been at a later revision."""
        if clock.revision < held:
            raise StoreWentBack(redacted_url(self._url), clock.revision, held, "this server holds it")
        if clock.lost:
            raise StoreWentBack(redacted_url(self._url), clock.revision, clock.lost, "servers or hosts held it")

    def read_log(
        self, log: Log, after: int, limit: int, last: int, octets_max: int = LOG_OCTETS_MAX
    ) -> tuple[list[LogEntry], int]:
        """See `interfaces.Store`. The floor of an empty log is the number of its next entry."""

        def read(connection: Connection) -> tuple[list[LogEntry], int]:
            clock = connection.execute(sql.CLOCK).one()
            newest = clock.revision if log == "updates" else getattr(clock, log)
            after_number, most = after, limit
            if last > 0:
                first = connection.execute(sql.BACK[log], {"back": last - 1}).scalar()
                after_number, most = (first or 1) - 1, last
            entries = entries_after(connection, log, after_number, most, octets_max)
            return entries, _floor(connection, log, newest)

        return self._transaction(read, writes=False)

    def digest(self) -> StoredDigest:
        def read(connection: Connection) -> StoredDigest:
            clock = connection.execute(sql.CLOCK).one()
            return StoredDigest(clock.revision, _digest(clock), clock.doubted)

        return self._transaction(read, writes=False)

    def correct(self, revision: int, digest: str, doubt: bool) -> None:
        def write(connection: Connection) -> None:
            connection.execute(sql.CORRECT, {"of": revision, "new_digest": digest})
            if doubt:
                connection.execute(sql.DOUBT)

        self._transaction(write, writes=True)

    def trim(self, keep_updates: int, keep_others: int) -> None:
        def write(connection: Connection) -> None:
            clock = connection.execute(sql.CLOCK).one()
            connection.execute(sql.TRIM["updates"], {"gone": clock.revision - keep_updates})
            connection.execute(sql.TRIM["security"], {"gone": clock.security - keep_others})
            connection.execute(sql.TRIM["administration"], {"gone": clock.administration - keep_others})

        self._transaction(write, writes=True)

    def measure(self, log: Log, after: int, limit: int) -> LogPart:
        statement = sql.PARTS[log, self._engine.dialect.name]

        def read(connection: Connection) -> LogPart:
            entries, last, octets = connection.execute(statement, {"after": after, "most": limit}).one()
            oldest = connection.execute(sql.floor(log)).scalar()
            return LogPart(entries, last or after, int(octets or 0), int(oldest or 0))

        return self._transaction(read, writes=False)

    def trim_to(self, log: Log, last: int) -> None:
        self._transaction(lambda connection: connection.execute(sql.TRIM[log], {"gone": last}), writes=True)

    def invite(self, token: Invitation, entry: AdministrationEntry) -> None:
        def write(connection: Connection) -> None:
            self._write(connection, 0, Proposal((), (), [entry]))
            connection.execute(sql.FORGET_INVITATIONS, {"before": token.created_at - sql.INVITATION_KEPT_SECONDS})
            connection.execute(sql.INVITE, msgspec.structs.asdict(token) | {"also": text_of(token.also)})

        self._transaction(write, writes=True)

    def invitation(self, id: str) -> Invitation | None:
        find = {"of": id}
        return self._transaction(lambda one: invitation_from(one.execute(sql.INVITATION, find).first()), writes=False)

    def join(self, id: str, entry: SecurityEntry) -> bool:
        def write(connection: Connection) -> bool:
            values = {"of": id, "now": entry.time, "origin": entry.origin}
            is_used = bool(connection.execute(sql.JOIN, values).rowcount)
            return is_used and self._write(connection, 0, Proposal((), [entry]))

        return self._transaction(write, writes=True)

    def _transaction(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        """Run `work` in one transaction; its reads see one state of the store. An exception rolls back everything.

        Raises StoreUnavailable, StoreUnusable, BatchRefused.
        """
        options: dict[str, Any] = {WRITES: writes}
        if self._engine.dialect.name == "postgresql":
            options["isolation_level"] = "READ COMMITTED" if writes else "REPEATABLE READ"
        try:
            return self._once(work, options)
        except (IntegrityError, DataError) as error:
            raise BatchRefused(f"{unavailable(self._url, error)}") from error
        except DBAPIError as error:
            raise unavailable(self._url, error) from error
        except StatementError as error:
            raise BatchRefused(f"{unavailable(self._url, error)}") from error
        except SQLAlchemyError as error:
            raise unavailable(self._url, error) from error
        except msgspec.DecodeError as error:
            raise StoreUnusable(f"{redacted_url(self._url)} was written by something else: {error}") from error

    def _once(self, work: Callable[[Connection], T], options: dict[str, Any], *, again: bool = True) -> T:
        committing = False
        try:
            # Reused by the next transaction: the pool costs as much as a small transaction.
            connection = self._connection = self._connection or self._engine.connect()
            connection.execution_options(**options)
            with connection.begin():
                result = work(connection)
                committing = True
            if connection.info.get(WARNINGS):
                # The next connection makes a confirmed commit before anything is read.
                connection.invalidate()
                self._disconnect()
                self._in_doubt = self._in_doubt or options[WRITES]
                raise not_confirmed(self._url)
            return result
        except DBAPIError as error:
            if error.connection_invalidated and self._connection is not None:
                self._connection.invalidate(error)
            self._disconnect()
            self._in_doubt = self._in_doubt or (committing and options[WRITES])
            if getattr(error.orig, "sqlstate", None) == READ_ONLY:
                # The primary has become a standby: the URL may also name the new primary.
                self._engine.dispose()
            if again and error.connection_invalidated and not committing:
                return self._once(work, options, again=False)
            raise


def _digest(clock: Any) -> str:
    """Return the digest at the clock's revision, unless the server that committed it recorded none."""
    return str(clock.digest) if clock.digest_at == clock.revision else ""


def _floor(connection: Connection, log: Log, newest: int) -> int:
    oldest = connection.execute(sql.floor(log)).scalar()
    return newest + 1 if oldest is None else int(oldest)

"""Cluster in SQL: `compass.model.cluster.ClusterStore`, on a connection of its own.

These facts are volatile: a beat does not wait for the disk or for a commit, and no commit waits for a beat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import URL, Connection, Engine, bindparam, delete, insert, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from compass.model.cluster import Heartbeat, HeartbeatResult, PeerState, Presence
from compass.model.replies import HostLag
from compass.model.rows import Change
from compass.store.engine import WRITES, ConnectionAborter, unavailable
from compass.store.row_mapping import intact_changes, text_of
from compass.store.schema import presence, server, told
from compass.store.statements import CLOCK, INCIDENTS, floor

REPLACED_SECONDS = 60.0
"""Age at which a heartbeat is removed if its server was restarted: no host has a session with the old run by then."""
FORGOTTEN_SECONDS = 86_400.0
"""Age at which any other heartbeat is removed: people see for a day which server is missing."""

T = TypeVar("T")

_behind = msgspec.json.Decoder(tuple[HostLag, ...]).decode
_ways = msgspec.json.Decoder(tuple[str, ...]).decode
_COLUMNS = ("name", "software", "started_at", "revision", "sessions", "watching", "able", "held")
_LINES = select(server.c.id, *(server.c[name] for name in _COLUMNS), server.c.behind, server.c.ways)
_LINES = _LINES.add_columns(server.c.beat, server.c.entry)
_NEWER = (
    select(presence.c.host, presence.c.server, presence.c.state, presence.c.held, presence.c.entry)
    .where(presence.c.server == bindparam("of"), presence.c.entry > bindparam("after"))
    .order_by(presence.c.entry)
)


class SqlClusterStore:
    """Cluster's part of a store, used by one thread at a time."""

    def __init__(self, url: URL, engine: Engine) -> None:
        self._url = url
        self._engine = engine
        self.cut = ConnectionAborter(engine).abort
        """Function that aborts the current call, from another thread; the next call connects again."""
        here = engine.dialect.name == "postgresql"
        # The database's clock in UNIX seconds. PostgreSQL's other functions do not advance within a transaction.
        on_postgresql, on_sqlite = "extract(epoch FROM clock_timestamp())", "(julianday('now') - 2440587.5) * 86400.0"
        unix = f"{on_postgresql}::double precision" if here else on_sqlite
        self._now: Any = literal_column(unix)
        made: Any = (postgresql.insert if here else sqlite.insert)(presence)
        # Only the server that has the host's entry may replace it by `left` or `lost`.
        self._note = made.on_conflict_do_update(
            index_elements=[presence.c.host],
            set_={name: made.excluded[name] for name in ("server", "entry", "state", "held")},
            where=(made.excluded.state == "here") | (presence.c.server == made.excluded.server),
        )
        written: dict[str, Any] = {
            name: bindparam(f"new_{name}") for name in (*_COLUMNS, "behind", "ways", "beat", "entry")
        }
        self._move = update(server).where(server.c.id == bindparam("of")).values(seen_at=self._now, **written)
        self._enter = insert(server).values(id=bindparam("of"), seen_at=self._now, **written)
        self._lines = _LINES.add_columns((self._now - server.c.seen_at).label("silent"))
        self._beats = 0
        self._entries = 0
        self._read: dict[str, int] = {}
        """Number of the last presence entry that was read, by server."""

    def beat(self, line: Heartbeat, presences: Iterable[Presence]) -> HeartbeatResult:
        """See `ClusterStore`. The first heartbeat also removes obsolete rows."""
        written = list(presences)

        def work(connection: Connection) -> tuple[HeartbeatResult, dict[str, int]]:
            self._write(connection, line, written)
            return self._read_all(connection, line.id)

        roll, read = self._transaction(work)
        self._beats += 1
        self._entries += len(written)
        self._read = read
        return roll

    def leave(self, id: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute(delete(presence).where(presence.c.server == id))
            connection.execute(delete(server).where(server.c.id == id))

        self._transaction(work)

    def remove_ended(self, is_over: Callable[[str], bool]) -> list[str]:
        """Remove the servers of which `is_over` says that their run has ended. Returns their ids, raises
        StoreUnavailable."""
        known = self._transaction(lambda connection: connection.execute(select(server.c.id)).scalars().all())
        ended = [id for id in known if is_over(id)]
        for id in ended:
            self.leave(id)
        return ended

    def alert_progress(self, way: str) -> int | None:
        chosen = select(told.c.revision).where(told.c.way == way)
        return self._transaction(lambda connection: connection.execute(chosen).scalar())

    def incidents_after(self, revision: int, limit: int) -> tuple[list[Change], int]:
        def work(connection: Connection) -> tuple[list[Change], int]:
            found = connection.execute(INCIDENTS, {"after": revision, "most": limit}).all()
            newest = connection.execute(CLOCK).one().revision
            oldest = connection.execute(floor("updates")).scalar()
            return list(intact_changes(found)), newest + 1 if oldest is None else oldest

        return self._transaction(work)

    def record_alert_progress(self, way: str, revision: int) -> None:
        def work(connection: Connection) -> None:
            if not connection.execute(update(told).where(told.c.way == way).values(revision=revision)).rowcount:
                connection.execute(insert(told).values(way=way, revision=revision))

        self._transaction(work)

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def _write(self, connection: Connection, line: Heartbeat, presences: Sequence[Presence]) -> None:
        values = {"of": line.id, **{f"new_{name}": getattr(line, name) for name in _COLUMNS}}
        values |= {"new_behind": text_of(line.behind), "new_ways": text_of(line.ways), "new_beat": self._beats + 1}
        values |= {"new_entry": self._entries + len(presences)}
        if not self._beats:
            self._clear(connection, line.name)
        if not self._beats or not connection.execute(self._move, values).rowcount:
            # Not inserted yet, or removed while this process was suspended.
            connection.execute(self._enter, values)
        if presences:
            # In the same order at all servers, which prevents deadlocks.
            ordered = enumerate(sorted(presences, key=lambda one: one.host), start=self._entries + 1)
            connection.execute(self._note, [{**msgspec.structs.asdict(one), "entry": at} for at, one in ordered])

    def _clear(self, connection: Connection, name: str) -> None:
        """Remove heartbeats of ended servers, and presence entries without a server."""
        age = self._now - server.c.seen_at
        connection.execute(delete(server).where(age > FORGOTTEN_SECONDS))
        connection.execute(delete(server).where(server.c.name == name, age > REPLACED_SECONDS))
        connection.execute(delete(presence).where(presence.c.server.not_in(select(server.c.id))))

    def _read_all(self, connection: Connection, id: str) -> tuple[HeartbeatResult, dict[str, int]]:
        lines: list[PeerState] = []
        presences: list[Presence] = []
        read: dict[str, int] = {}
        for of, *facts, behind, ways, beat, entry, silent in connection.execute(self._lines).all():
            line = Heartbeat(of, **dict(zip(_COLUMNS, facts, strict=True)), behind=_behind(behind), ways=_ways(ways))
            lines.append(PeerState(line, beat, entry, max(silent, 0.0)))
            known = self._read.get(of, 0)
            if of != id and entry > known:
                for host, at, state, held, number in connection.execute(_NEWER, {"of": of, "after": known}):
                    presences.append(Presence(host, at, state, held))
                    known = number
            read[of] = max(known, entry)
        return HeartbeatResult(tuple(lines), tuple(presences)), read

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.connect() as connection:
                connection.execution_options(**{WRITES: True})
                with connection.begin():
                    return work(connection)
        except SQLAlchemyError as error:
            raise unavailable(self._url, error) from error

"""The service's runs in the catalog's database."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from jivs.backends.catalog import orders, paces, rows, submission, trail
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.orders import ENDED as _ENDED
from jivs.backends.catalog.prepared import Prepared, parameter
from jivs.backends.catalog.tables import events, run_logs, runs, sources
from jivs.domain.audit import Deed
from jivs.domain.extraction import Extraction, Job, Statistics
from jivs.domain.run import TRANSITIONS, Command, Counts, Order, Run, RunState
from jivs.errors import ConflictError, FencedError, NotFoundError
from jivs.ports.clock import Clock
from jivs.ports.work import Event, Kept, Line

_TRIES = 20
_FARTHEST = 600.0
"""No run waits longer for another attempt: a later time was written by a clock that has been set since."""

_AGAIN_SECONDS = 10.0
"""A look into the archive that ends its process is not taken again at once."""

_EVENT_SECONDS = 3600.0
_MOST_WAITING = 1000
_MINE = runs.c.extraction_id > 0
_NOW = parameter("now", sa.Float)
_OTHER = runs.alias()
_DUE = sa.or_(runs.c.not_before <= _NOW, runs.c.not_before > _NOW + _FARTHEST)
_TOLD = runs.c.order != Order.GO_ON.value
_SILENT = sa.and_(runs.c.lease_until <= _ENDED, runs.c.state.in_(["RUNNING", "PAUSED"]), _MINE, _DUE)
_READY = sa.and_(
    runs.c.state == "PENDING",
    _MINE,
    _DUE,
    ~sa.exists().where(_OTHER.c.extraction_id == runs.c.extraction_id, _OTHER.c.state.in_(["RUNNING", "PAUSED"])),
)
_IN_TURN = (runs.c.priority.desc(), runs.c.seq)


def _first(condition: sa.ColumnElement[bool], *order: Any) -> sa.Select[Any]:
    query = sa.select(runs).where(condition).order_by(*order).limit(1)
    return query.with_for_update(skip_locked=True, of=runs)


def _few(condition: sa.ColumnElement[bool], limit: int) -> sa.ScalarSelect[int]:
    """How many there are, as far as ``limit``."""
    return (
        sa.select(sa.func.count())
        .select_from(sa.select(runs.c.seq).where(condition).limit(limit).subquery())
        .scalar_subquery()
    )


def _facts() -> sa.Select[Any]:
    """Of a source, for one of its runs: cap, connections and number of other runs at work, how many wait, and whether
    another run of the same extraction is at it.
    """
    own, run_id = parameter("source", sa.BigInteger), parameter("run", sa.String)
    at_work = (_OTHER.c.source_id == own, _OTHER.c.lease_until > _ENDED, _OTHER.c.extraction_id > 0, _OTHER.c.id != run_id)
    working = sa.select(
        sa.func.coalesce(sa.func.sum(_OTHER.c.connections), 0).label("used"), sa.func.count().label("working")
    )
    found = working.where(*at_work).subquery()
    waiting = _few(_SILENT & (runs.c.source_id == own), _MOST_WAITING) + _few(
        _READY & (runs.c.source_id == own), _MOST_WAITING
    )
    same = runs.c.extraction_id == parameter("extraction", sa.BigInteger)
    busy = sa.select(runs.c.id).where(same, runs.c.state.in_(["RUNNING", "PAUSED"])).limit(1).scalar_subquery()
    columns = (sources.c.max_connections, found.c.used, found.c.working, waiting.label("waiting"), busy.label("busy"))
    return sa.select(*columns).select_from(sources.join(found, sa.true())).where(sources.c.id == own)


_NEXT_SILENT = Prepared(_first(_SILENT, runs.c.seq))
_NEXT_READY = Prepared(_first(_READY, *_IN_TURN))
_FACTS = Prepared(_facts())
_LOCKED = Prepared(sa.select(runs).where(runs.c.id == parameter("run", sa.String)).with_for_update())


@cache
def _change(names: tuple[str, ...]) -> Prepared:
    """Sets these columns of the run ``run`` and gives the row."""
    values = {name: parameter(f"new_{name}", runs.c[name].type) for name in names}
    mine = runs.c.id == parameter("run", sa.String)
    return Prepared(runs.update().where(mine).values(values).returning(runs))


class SqlWork:
    """Runs in SQLite or PostgreSQL. ``connections`` and ``parallel`` count where a source or a job does not say it."""

    def __init__(self, engine: Engine, clock: Clock, *, connections: int, parallel: int) -> None:
        self._engine = engine
        self._clock = clock
        self._connections = connections
        self._parallel = parallel
        self._watched: dict[str, tuple[int, float, float]] = {}

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _tell(self, connection: sa.Connection, row: Any, kind: str = "state") -> None:
        submission.tell(self._engine, connection, self._now(), row, kind)

    # -- asking ---------------------------------------------------------------------------------------------------

    def submit(self, extraction: Extraction, run_id: str, archive: str, actor: str, deed: Deed) -> Run:
        now = self._now()
        with self._engine.write() as connection:
            row = submission.submit(self._engine, connection, now, extraction, run_id, archive, actor)
            trail.append(self._engine, connection, now, deed)
            self._tell(connection, row)
        return rows.run(row)

    def run(self, run_id: str) -> Run | None:
        with self._engine.read() as connection:
            row = connection.execute(sa.select(runs).where(runs.c.id == run_id, _MINE)).mappings().first()
        return rows.run(row) if row is not None else None

    def runs(
        self,
        *,
        extraction_id: int = 0,
        states: Iterable[RunState] = (),
        before: int = 0,
        limit: int = 100,
        oldest: bool = False,
    ) -> list[Run]:
        query = sa.select(runs).where(_MINE).order_by(runs.c.seq if oldest else runs.c.seq.desc()).limit(limit)
        wanted = [state.value for state in states]
        for given, condition in (
            (extraction_id, runs.c.extraction_id == extraction_id),
            (wanted, runs.c.state.in_(wanted)),
            (before, runs.c.seq < before),
        ):
            if given:
                query = query.where(condition)
        with self._engine.read() as connection:
            return [rows.run(row) for row in connection.execute(query).mappings()]

    # -- claiming -------------------------------------------------------------------------------------------------

    def waiting(self, limit: int = 100) -> int:
        now = self._now()
        with self._engine.read() as connection:
            elsewhere = runs.c.source_id.not_in(sorted(self._full(connection)))
            both = sa.select(_few(_SILENT & (elsewhere | _TOLD), limit) + _few(_READY & elsewhere, limit))
            return min(connection.execute(both, {"now": now}).scalar_one(), limit)

    def _full(self, connection: sa.Connection) -> set[int]:
        """The sources on which no run can begin."""
        query = (
            sa.select(runs.c.source_id, sa.func.sum(runs.c.connections), sources.c.max_connections)
            .select_from(runs.join(sources, sources.c.id == runs.c.source_id))
            .where(runs.c.lease_until > _ENDED, _MINE)
            .group_by(runs.c.source_id, sources.c.max_connections)
        )
        found = connection.execute(query).all()
        return {source for source, used, cap in found if not _free(used, cap or self._connections)}

    def claim(self, owner: str, seconds: float) -> Run | None:
        full: set[int] = set()
        for _ in range(_TRIES):  # a transaction each: whoever holds the locks of two sources may wait for one who wants them
            with self._engine.write() as connection:
                now = self._now()
                row = self._next(connection, now, full)
                if row is None:
                    return None
                submission.lock(self._engine, connection, row["source_id"], row["extraction_id"])
                silent = row["lease_until"] is not None
                told = row["order"] if silent else Order.GO_ON.value  # then it is only looked at, whether it is published
                granted = 0 if told else self._grant(connection, row, now, silent=silent)
                if granted or told:
                    taken = {
                        "state": row["state"] if told == Order.PAUSE.value else RunState.RUNNING.value,
                        "order": told,
                        "owner": owner,
                        "epoch": row["epoch"] + 1,
                        "lease_until": now + seconds,
                        "connections": granted,
                        **(rows.failed(row, row["partitions_done"]) if silent and not told else {}),
                        "not_before": now + _AGAIN_SECONDS if told else 0.0,
                        "started_at": row["started_at"] or now,
                        "updated_at": now,
                        "phase": "starting",
                    }
                    return rows.run(self._set(connection, row["id"], taken))
                full |= {row["source_id"], *self._full(connection)}
        return None

    def _next(self, connection: sa.Connection, now: float, full: set[int]) -> Any:
        if not full:
            return (
                _NEXT_SILENT(connection, now=now).mappings().first() or _NEXT_READY(connection, now=now).mappings().first()
            )
        elsewhere = runs.c.source_id.not_in(sorted(full))
        for query in (_first(_SILENT & (elsewhere | _TOLD), runs.c.seq), _first(_READY & elsewhere, *_IN_TURN)):
            row = connection.execute(query, {"now": now}).mappings().first()
            if row is not None:
                return row
        return None

    def _source(self, connection: sa.Connection, row: Any, now: float) -> tuple[int, int, int, int, bool]:
        """As ``_facts`` says, for this run. A source that was deleted has room for whoever finds out."""
        given = {"source": row["source_id"], "run": row["id"], "extraction": row["extraction_id"], "now": now}
        found = _FACTS(connection, **given).first()
        if found is None:
            return 1, 0, 0, 0, False
        cap, used, working, waiting, busy = tuple(found)
        return cap or self._connections, int(used), working, waiting, busy is not None

    def _grant(self, connection: sa.Connection, row: Any, now: float, *, silent: bool) -> int:
        """Connections for a run: its share of what the source has, as many as it wants at most; 0 if too few are free."""
        cap, used, working, waiting, busy = self._source(connection, row, now)
        if not _free(used, cap) or (busy and not silent):
            return 0
        wanted = (Job.from_json(row["job"]).parallel or self._parallel) + 1
        return min(wanted, _share(cap, working + waiting), cap - used)

    def _room(self, connection: sa.Connection, row: Any, has: int, most: int, now: float) -> int:
        """Connections that a run at work may have from now on."""
        if has < most:
            self._engine.lock(connection, submission.ON_SOURCE + row["source_id"])
        cap, used, working, waiting, _ = self._source(connection, row, now)
        share = _share(cap, 1 + working + waiting)
        if waiting:
            return has if _free(used + has, cap) else min(has, share)
        return max(has, min(most, cap - used, share if working else cap))

    def _set(self, connection: sa.Connection, run_id: str, values: dict[str, Any]) -> Any:
        row = self._change(connection, run_id, values)
        self._tell(connection, row)
        return row

    @staticmethod
    def _change(connection: sa.Connection, run_id: str, values: dict[str, Any]) -> Any:
        new = {f"new_{name}": value for name, value in values.items()}
        return _change(tuple(values))(connection, run=run_id, **new).mappings().one()

    # -- working --------------------------------------------------------------------------------------------------

    def keep(
        self, run_id: str, epoch: int, seconds: float, counts: Counts, phase: str, *, taken: int = 0, most: int = 0
    ) -> Kept | None:
        now = self._now()
        with self._engine.write() as connection:
            before = _LOCKED(connection, run=run_id).mappings().first()
            if before is None or before["epoch"] != epoch or not (before["lease_until"] or _ENDED) > _ENDED:
                return None
            values = {**_counted(counts), "phase": phase}
            has = min(taken or before["connections"], before["connections"])
            allowed = self._room(connection, before, has, most, now)
            kept = {"lease_until": now + seconds, "connections": max(has, allowed)}
            row = self._change(connection, run_id, {**kept, **values})
            if any(before[name] != value for name, value in values.items()):
                self._tell(connection, row, "progress")
        return Kept(order=Order(row["order"]), state=RunState(row["state"]), connections=allowed)

    def pace(self, source_id: int, rows: int, rate: int) -> float:
        return paces.reserve(self._engine, self._clock, source_id, rows, rate)

    def hold(self, run_id: str, epoch: int) -> bool:
        with self._engine.write() as connection:
            row = self._require(connection, run_id, epoch, RunState.PAUSED)
            if row["order"] != Order.PAUSE.value:
                return False
            self._set(connection, run_id, {"state": RunState.PAUSED.value, "phase": "held", "updated_at": self._now()})
        return True

    def settle(
        self,
        run_id: str,
        epoch: int,
        to: RunState,
        message: str = "",
        *,
        counts: Counts | None = None,
        retry_at: float = 0.0,
        doubtful: bool = False,
    ) -> bool:
        now = self._now()
        values = {
            "message": message,
            "updated_at": now,
            "not_before": retry_at,
            **orders.FREE,
            **(_counted(counts) if counts is not None else {}),
        }
        with self._engine.write() as connection:
            row = self._require(connection, run_id, epoch, to)
            if to is RunState.PAUSED and row["state"] == RunState.RUNNING.value and row["order"] not in _STOPPING:
                return False
            ordered = orders.as_ordered(to, row["order"])
            if doubtful and ordered is not to:  # for whoever claims it to see whether it is published
                values |= {"state": row["state"], **orders.LOST}
            else:
                values |= {"state": ordered.value, "order": "", **({"ended_at": now} if ordered.ended else {})}
            if retry_at:
                done = values.get("partitions_done", row["partitions_done"])
                again = {"failed": rows.run(row).failures + 1} if doubtful else rows.failed(row, done)
                values |= again
            self._set(connection, run_id, values)
        return True

    def _require(self, connection: sa.Connection, run_id: str, epoch: int, to: RunState) -> Any:
        row = _LOCKED(connection, run=run_id).mappings().first()
        if row is None or row["epoch"] != epoch or row["lease_until"] is None:
            raise FencedError(f"Run {run_id} has another owner now: its state stays as it is.")
        if to is not RunState(row["state"]) and to not in TRANSITIONS[RunState(row["state"])]:
            raise ConflictError(f"Run {run_id} is {row['state']} and cannot become {to.value}.")
        return row

    def lost(self, owner_prefix: str) -> int:
        mine = sa.and_(runs.c.lease_until.is_not(None), runs.c.owner.startswith(owner_prefix, autoescape=True), _MINE)
        with self._engine.write() as connection:
            return connection.execute(runs.update().where(mine).values(**orders.LOST)).rowcount

    def silent(self, seconds: float) -> int:
        now, watched, ended = self._clock.monotonic(), self._watched, 0
        with self._engine.read() as connection:
            leased = sa.select(runs.c.id, runs.c.epoch, runs.c.lease_until).where(runs.c.lease_until > _ENDED, _MINE)
            found = {id_: (epoch, until) for id_, epoch, until in connection.execute(leased)}
        self._watched = {
            id_: (*lease, watched[id_][2] if id_ in watched and watched[id_][:2] == lease else now)
            for id_, lease in found.items()
        }
        for id_, (epoch, until, since) in self._watched.items():
            if now - since >= seconds:
                same = sa.and_(runs.c.id == id_, runs.c.epoch == epoch, runs.c.lease_until == until)
                with self._engine.write() as connection:
                    ended += connection.execute(runs.update().where(same).values(**orders.LOST)).rowcount
        return ended

    # -- commanding -----------------------------------------------------------------------------------------------

    def command(self, run_id: str, command: Command, deed: Deed, *, doubtful: bool | None = None) -> Run:
        now = self._now()
        with self._engine.write() as connection:
            row = connection.execute(sa.select(runs).where(runs.c.id == run_id, _MINE).with_for_update()).mappings().first()
            if row is None:
                raise NotFoundError(f"There is no run {run_id}.")
            change = orders.CHANGES[command](row, doubtful)
            if change.get("state") == RunState.CANCELLED.value:
                change |= {"ended_at": now}
            trail.append(self._engine, connection, now, deed)
            changed = self._set(connection, run_id, {**change, "updated_at": now})
        return rows.run(changed)

    # -- telling --------------------------------------------------------------------------------------------------

    def log(self, run: Run, lines: Iterable[tuple[datetime, str, str]]) -> None:
        said = [
            {"run_id": run.id, "extraction_id": run.extraction_id, "at": at.timestamp(), "level": level, "message": message}
            for at, level, message in lines
        ]
        if said:
            with self._engine.write() as connection:
                connection.execute(run_logs.insert(), said)

    def lines(self, *, extraction_id: int = 0, run_id: str = "", before: int = 0, limit: int = 100) -> list[Line]:
        query = sa.select(run_logs).order_by(run_logs.c.seq.desc()).limit(limit)
        for given, condition in (
            (extraction_id, run_logs.c.extraction_id == extraction_id),
            (run_id, run_logs.c.run_id == run_id),
            (before, run_logs.c.seq < before),
        ):
            if given:
                query = query.where(condition)
        with self._engine.read() as connection:
            found = connection.execute(query).all()
        return [
            Line(
                seq=row.seq, run_id=row.run_id, at=datetime.fromtimestamp(row.at, UTC), level=row.level, message=row.message
            )
            for row in found
        ]

    def statistics(self, extraction_id: int) -> Statistics:
        took = sa.func.sum(runs.c.ended_at - runs.c.started_at)
        sums = [sa.func.sum(getattr(runs.c, name)) for name in ("rows", "bytes", "quarantined_rows", "quarantined_values")]
        query = (
            sa.select(
                runs.c.state,
                sa.func.count(),
                *sums,
                took,
                sa.func.count(runs.c.ended_at - runs.c.started_at),
                sa.func.max(runs.c.ended_at),
            )
            .where(runs.c.extraction_id == extraction_id)
            .group_by(runs.c.state)
        )
        with self._engine.read() as connection:
            found = connection.execute(query).all()
        totals = [sum(int(row[place] or 0) for row in found) for place in range(2, 6)]
        timed = sum(row[7] for row in found)
        completed = [row[8] for row in found if row[0] == RunState.COMPLETED.value]
        return Statistics(
            by_state={row[0]: row[1] for row in found},
            rows=totals[0],
            bytes=totals[1],
            quarantined_rows=totals[2],
            quarantined_values=totals[3],
            average_seconds=sum(row[6] or 0.0 for row in found) / timed if timed else 0.0,
            last_completed_at=rows.moment(completed[0]) if completed else None,
        )

    def events(self, after: int, limit: int = 500) -> list[Event]:
        query = sa.select(events).where(events.c.id > after).order_by(events.c.id).limit(limit)
        with self._engine.read() as connection:
            found = connection.execute(query).all()
        return [
            Event(id=row.id, kind=row.kind, run_id=row.run_id, extraction_id=row.extraction_id, data=row.data)
            for row in found
        ]

    def last_event(self) -> int:
        with self._engine.read() as connection:
            return int(connection.execute(sa.select(sa.func.max(events.c.id))).scalar() or 0)

    def by_state(self) -> dict[str, int]:
        query = sa.select(runs.c.state, sa.func.count()).group_by(runs.c.state)
        with self._engine.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def sweep(self, *, keep_runs: int, keep_seconds: float) -> int:
        now = self._now()
        rank = sa.func.row_number().over(partition_by=runs.c.extraction_id, order_by=runs.c.seq.desc())
        ranked = sa.select(runs.c.id, runs.c.ended_at, rank.label("rank")).where(_MINE).subquery()
        old = sa.select(ranked.c.id).where(
            ranked.c.ended_at.is_not(None),
            ranked.c.rank > 1,
            sa.or_(ranked.c.rank > keep_runs, ranked.c.ended_at < now - keep_seconds),
        )
        with self._engine.write() as connection:
            newest = sa.select(sa.func.max(events.c.id)).scalar_subquery()  # stays, or SQLite would give its number again
            connection.execute(events.delete().where(events.c.at < now - _EVENT_SECONDS, events.c.id < newest))
            gone = [row.id for row in connection.execute(old.limit(1000))]
            for table, column in ((run_logs, run_logs.c.run_id), (runs, runs.c.id)):
                connection.execute(table.delete().where(column.in_(gone)))
        return len(gone)


_STOPPING = {Order.PAUSE.value, Order.CANCEL.value}


def _free(used: int, cap: int) -> bool:
    """Whether a run can begin with what is left: one connection holds the snapshot, another reads."""
    return cap - used >= max(1, min(2, cap))


def _share(cap: int, runs: int) -> int:
    """What each of so many runs may have of a source's connections."""
    return max(min(2, cap), cap // max(1, runs))


def _counted(counts: Counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in rows.COUNTS}

"""The catalog in a SQL database."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import sqlalchemy as sa

from jivs.backends.catalog import rows as rows_
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.prepared import Prepared, parameter
from jivs.backends.catalog.tables import runs, steps
from jivs.domain.run import TRANSITIONS, Run, RunState, Step, StepState
from jivs.errors import AlreadyExistsError, ConflictError, FencedError
from jivs.ports.clock import Clock

_RUN, _NOW = parameter("run", sa.String), parameter("now", sa.Float)


def _claim() -> sa.UpdateBase:
    """Takes the first partition that nobody has, for the owner of the run."""
    owner = parameter("owner", sa.Text)
    ours = sa.exists().where(runs.c.id == _RUN, runs.c.epoch == parameter("run_epoch", sa.Integer))
    free = sa.or_(
        steps.c.state == "READY", sa.and_(steps.c.state == "CLAIMED", steps.c.lease_until < _NOW, steps.c.owner != owner)
    )
    first = (
        sa.select(steps.c.seq)
        .where(steps.c.run_id == _RUN, steps.c.state.in_(["READY", "CLAIMED"]), free, ours)
        .order_by(steps.c.seq)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    taken = {
        "state": sa.literal("CLAIMED"),
        "owner": owner,
        "epoch": steps.c.epoch + 1,
        "attempts": steps.c.attempts + 1,
        "lease_until": parameter("until", sa.Float),
    }
    return steps.update().where(steps.c.seq == first).values(taken).returning(steps)


_CLAIM = Prepared(_claim())


@cache
def _change(names: tuple[str, ...]) -> Prepared:
    """Sets these columns of a partition that the epoch still has."""
    values = {name: parameter(f"new_{name}", steps.c[name].type) for name in names}
    named = (steps.c.run_id == _RUN, steps.c.partition == parameter("partition", sa.String))
    mine = (*named, steps.c.epoch == parameter("epoch", sa.Integer), steps.c.state == "CLAIMED")
    return Prepared(steps.update().where(*mine).values(values))


class SqlCatalog:
    """Runs and steps in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._clock = clock
        self._engine = engine

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def create_run(self, run: Run) -> None:
        row = {
            "id": run.id,
            "kind": run.kind,
            "source": run.source,
            "archive": run.archive,
            "digest": run.digest,
            "state": run.state.value,
            "message": run.message,
            "epoch": run.epoch,
            "owner": run.owner,
            "created_at": run.created_at.timestamp(),
            "updated_at": run.updated_at.timestamp(),
        }
        try:
            with self._engine.write() as connection:
                connection.execute(runs.insert().values(row))
        except sa.exc.IntegrityError as error:
            raise AlreadyExistsError(f"Run {run.id} exists already.") from error

    def run(self, run_id: str) -> Run | None:
        with self._engine.read() as connection:
            row = connection.execute(sa.select(runs).where(runs.c.id == run_id)).mappings().first()
        return rows_.run(row) if row is not None else None

    def runs(self, *, archive: str = "", digest: str = "", limit: int = 100) -> list[Run]:
        query = sa.select(runs).order_by(runs.c.seq.desc()).limit(limit)
        if archive:
            query = query.where(runs.c.archive == archive)
        if digest:
            query = query.where(runs.c.digest == digest)
        with self._engine.read() as connection:
            return [rows_.run(row) for row in connection.execute(query).mappings()]

    def claim_run(self, run_id: str, owner: str, seconds: float, *, instead_of: int = -1) -> int | None:
        now = self._now()
        free = sa.or_(runs.c.lease_until.is_(None), runs.c.lease_until < now, runs.c.epoch == instead_of)
        with self._engine.write() as connection:
            epoch = connection.execute(
                runs.update()
                .where(runs.c.id == run_id, free)
                .values(owner=owner, epoch=runs.c.epoch + 1, lease_until=now + seconds, updated_at=now)
                .returning(runs.c.epoch)
            ).scalar()
        return int(epoch) if epoch is not None else None

    def renew_run(self, run_id: str, epoch: int, seconds: float) -> bool:
        mine = sa.and_(runs.c.id == run_id, runs.c.epoch == epoch, runs.c.lease_until > 0)  # not one that was declared lost
        with self._engine.write() as connection:
            return connection.execute(runs.update().where(mine).values(lease_until=self._now() + seconds)).rowcount == 1

    def transition(self, run_id: str, epoch: int, to: RunState, message: str = "") -> None:
        with self._engine.write() as connection:
            row = connection.execute(sa.select(runs.c.state, runs.c.epoch).where(runs.c.id == run_id)).first()
            if row is None or row.epoch != epoch:
                raise FencedError(f"Run {run_id} has another owner now: its state stays as it is.")
            if to not in TRANSITIONS[RunState(row.state)]:
                raise ConflictError(f"Run {run_id} is {row.state} and cannot become {to.value}.")
            values: dict[str, Any] = {"state": to.value, "message": message, "updated_at": self._now()}
            if to.ended:
                values |= {"lease_until": None, "owner": ""}
            connection.execute(runs.update().where(runs.c.id == run_id).values(values))

    def release_run(self, run_id: str, epoch: int) -> None:
        with self._engine.write() as connection:
            connection.execute(
                runs.update().where(runs.c.id == run_id, runs.c.epoch == epoch).values(lease_until=None, owner="")
            )

    def add_steps(self, run_id: str, partitions: Iterable[str], *, done: bool = False) -> None:
        state = (StepState.DONE if done else StepState.READY).value
        empty = {"run_id": run_id, "state": state, "epoch": 0, "owner": "", "rows": 0, "attempts": 0}
        rows = [{**empty, "partition": partition} for partition in partitions]
        if not rows:
            return
        with self._engine.write() as connection:
            connection.execute(self._engine.insert(steps).on_conflict_do_nothing(), rows)
            if done:
                known = steps.c.partition == sa.bindparam("wanted")
                change = steps.update().where(steps.c.run_id == run_id, known).values(state=state, lease_until=None)
                connection.execute(change, [{"wanted": row["partition"]} for row in rows])

    def claim_step(self, run_id: str, owner: str, seconds: float, *, run_epoch: int) -> Step | None:
        now = self._now()
        given = {"run": run_id, "run_epoch": run_epoch, "now": now, "owner": owner, "until": now + seconds}
        with self._engine.write() as connection:
            row = _CLAIM(connection, **given).mappings().first()
        return rows_.step(row) if row is not None else None

    def renew_step(self, run_id: str, partition: str, epoch: int, seconds: float) -> bool:
        return self._step_update(run_id, partition, epoch, {"lease_until": self._now() + seconds})

    def complete_step(self, run_id: str, partition: str, epoch: int, rows: int) -> bool:
        return self._step_update(run_id, partition, epoch, {"state": "DONE", "rows": rows, "lease_until": None})

    def release_step(self, run_id: str, partition: str, epoch: int, *, failed: bool = False) -> bool:
        state = StepState.FAILED if failed else StepState.READY
        return self._step_update(run_id, partition, epoch, {"state": state.value, "lease_until": None, "owner": ""})

    def _step_update(self, run_id: str, partition: str, epoch: int, values: dict[str, Any]) -> bool:
        new = {f"new_{name}": value for name, value in values.items()}
        with self._engine.write() as connection:
            return _change(tuple(values))(connection, run=run_id, partition=partition, epoch=epoch, **new).rowcount == 1

    def drop_steps(self, run_id: str, partitions: Iterable[str]) -> None:
        with self._engine.write() as connection:
            for partition in partitions:
                connection.execute(steps.delete().where(steps.c.run_id == run_id, steps.c.partition == partition))

    def steps(self, run_id: str, *, after: int = 0, limit: int = 0) -> list[Step]:
        query = sa.select(steps).where(steps.c.run_id == run_id, steps.c.seq > after).order_by(steps.c.seq)
        query = query.limit(limit) if limit else query
        with self._engine.read() as connection:
            return [rows_.step(row) for row in connection.execute(query).mappings()]

    def close(self) -> None:
        self._engine.close()

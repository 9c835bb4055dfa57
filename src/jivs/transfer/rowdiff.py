"""Two sets of rows compared by key, on disk: what was added, removed, changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import duckdb
import pyarrow as pa

from jivs.domain.schema import Column
from jivs.wire.canonical import column_texts, row_text
from jivs.wire.rowhash import Overrides, RowHasher

SHOWN = 20
"""How many rows of each kind are named."""

Rows = Iterable[tuple[pa.RecordBatch, Overrides]]


class RowDiff:
    """Collects (key, hash) of both sides in a database file, then joins them. Without a key the hash is the key."""

    def __init__(self, folder: Path, columns: Sequence[Column], key: Sequence[str]) -> None:
        self._columns = list(columns)
        self._key = [column for column in columns if column.name in key]
        self._engine = duckdb.connect(str(folder / "rows.duckdb"), config={"memory_limit": "256MB", "threads": 2})
        for side in ("source", "archive"):
            self._engine.execute(f"create table {side} (k bigint, h bigint)")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def add(self, side: str, rows: Rows) -> None:
        """Add the rows of ``source`` or ``archive``."""
        whole, keyed = RowHasher(self._columns), RowHasher(self._key or self._columns)
        for batch, overrides in rows:
            hashes = whole.hashes(batch, overrides)
            keys = keyed.hashes(batch) if self._key else hashes
            self._engine.register("incoming", pa.table({"k": keys, "h": hashes}))
            self._engine.execute(f"insert into {side} select k, h from incoming").fetchall()
            self._engine.unregister("incoming")

    def counts(self) -> tuple[int, int, int]:
        """Rows only in the source, only in the archive, and in both with different values (0 without a key)."""
        added, removed, changed = self._engine.execute("""
            with s as (select k, sum(h) h, count(*) n from source group by k),
                 a as (select k, sum(h) h, count(*) n from archive group by k)
            select coalesce(sum(case when a.k is null then s.n when s.n > a.n then s.n - a.n else 0 end), 0)::bigint,
                   coalesce(sum(case when s.k is null then a.n when a.n > s.n then a.n - s.n else 0 end), 0)::bigint,
                   coalesce(sum(case when s.n = a.n and s.h <> a.h then s.n else 0 end), 0)::bigint
            from s full outer join a on s.k = a.k
        """).fetchall()[0]
        return int(added), int(removed), int(changed)

    def suspects(self) -> set[int]:
        """Keys of the first rows that differ."""
        found = self._engine.execute(f"""
            with s as (select k, sum(h) h, count(*) n from source group by k),
                 a as (select k, sum(h) h, count(*) n from archive group by k)
            select coalesce(s.k, a.k) from s full outer join a on s.k = a.k
            where s.n is distinct from a.n or s.h is distinct from a.h order by 1 limit {SHOWN}
        """).fetchall()
        return {int(row[0]) for row in found}

    def texts(self, rows: Rows, wanted: set[int]) -> dict[int, list[list[bytes | None]]]:
        """The canonical texts of the rows with these keys."""
        found: dict[int, list[list[bytes | None]]] = {}
        keyed = RowHasher(self._key or self._columns)
        for batch, overrides in rows:
            keys = keyed.hashes(batch, None if self._key else overrides).to_pylist()
            for row, key in enumerate(keys):
                if key in wanted:
                    one = batch.slice(row, 1)
                    texts = [column_texts(one, column)[0] for column in self._columns]
                    for index, text in overrides.get(row, {}).items():
                        texts[index] = text
                    found.setdefault(key, []).append(texts)
        return found

    def sentence(self, source: list[list[bytes | None]], archive: list[list[bytes | None]]) -> str:
        """What differs between the rows of one key."""
        sample = (source or archive)[0]
        if not self._key:
            shown = row_text(sample).decode(errors="backslashreplace")[:300]
            return f"row {shown}: {len(source)} times in the source, {len(archive)} times in the archive"
        key = ", ".join(f"{column.name}={_shown(sample[self._columns.index(column)])}" for column in self._key)
        if len(source) == 1 and len(archive) == 1:
            differing = [
                column.name
                for column, mine, theirs in zip(self._columns, source[0], archive[0], strict=True)
                if mine != theirs
            ]
            return f"row {key}: column {', '.join(differing)} differs"
        return f"row {key}: {len(source)} times in the source, {len(archive)} times in the archive"


def _shown(text: bytes | None) -> str:
    return "NULL" if text is None else text.decode(errors="backslashreplace")[:100]

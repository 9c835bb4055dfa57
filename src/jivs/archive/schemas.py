"""Schema files: the source's own description of each table, and what was taken of it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jivs.archive import layout
from jivs.archive.parallel import each
from jivs.archive.writer import file_ref
from jivs.domain.archive import FileRef, TableState
from jivs.domain.plan import RunPlan, Selection
from jivs.domain.schema import Table
from jivs.ports.store import Store

_THREADS = 4


class SchemaFiles:
    """The schema files of a run. Each is stored once, for as long as the table's description stays the same."""

    def __init__(self, store: Store, plan: RunPlan, selection: Selection, before: Sequence[TableState]) -> None:
        """``before``: the newest states of the run's tables."""
        self._store = store
        self._plan = plan
        self._taken = {"columns": list(selection.columns), "where": selection.where}
        self._new: list[tuple[bytes, str]] = []
        files = {state.name: state.schema_file for state in before if state.schema_file is not None}
        known = each(store, lambda file: _digest(json.loads(store.read(file.path))), list(files.values()))
        self._known = {name: (file, digest) for (name, file), digest in zip(files.items(), known, strict=True)}

    def add(self, table: Table) -> FileRef:
        """The file of a table; that of its state before, if nothing has changed."""
        content: dict[str, Any] = {
            "schema": table.name.schema,
            "table": table.name.name,
            "kind": table.kind.value,
            "definition": table.ddl,
            "taken": self._taken,
            "columns": [column.to_json() for column in table.columns],
        }
        file, known = self._known.get(table.name, (None, ""))
        if file is not None and known == _digest(content):
            return file
        data = json.dumps({**content, "run": self._plan.run_id}, sort_keys=True, ensure_ascii=False, indent=1).encode()
        path = layout.schema(self._plan.source, table.name, hashlib.sha256(data).hexdigest())
        self._new.append((data, path))
        return file_ref(path, data)

    def write(self) -> None:
        """Store the new ones, durably."""
        if not self._new:
            return
        folder = self._store.spool / self._plan.run_id
        folder.mkdir(parents=True, exist_ok=True)

        def spool(data: bytes) -> Path:
            local = folder / f"{uuid.uuid4().hex}.json"
            local.write_bytes(data)
            return local

        with ThreadPoolExecutor(_THREADS) as pool:
            written = list(pool.map(spool, (data for data, _ in self._new)))
        self._store.put_all([(local, path) for local, (_, path) in zip(written, self._new, strict=True)])
        self._new.clear()


def _digest(content: dict[str, Any]) -> str:
    """Of a description, whichever run wrote it."""
    kept = {key: value for key, value in content.items() if key != "run"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

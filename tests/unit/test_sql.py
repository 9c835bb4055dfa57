"""SQL over an archive: which views a query gets, and what its engine reaches."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from jivs.api.files import NearFiles, place
from jivs.archive import chain, sql
from jivs.archive.sql import View, mentioned
from jivs.backends.store.local import LocalStore

GOLDEN = Path(__file__).parent.parent / "golden" / "sound"


def view(name: str, schema: str = "main") -> View:
    return View(schema=schema, name=name, files=(), rows=0)


def test_of_many_views_a_query_gets_those_that_it_may_mean() -> None:
    many = [view(f"t{number}") for number in range(500)]
    special = [view('a"b'), view("Straße"), view("Orders"), view("Orders", "sales")]
    both = [*many, *special]

    def names(sql: str) -> set[tuple[str, str]]:
        return {(one.schema, one.name) for one in mentioned(both, sql)}

    assert ("main", "t7") in names("select * from T7")
    assert ("main", "t77") not in names("select * from t7")
    assert ("main", 'a"b') in names('select * from "a""b"')
    assert ("main", "Straße") in names("from STRASSE")
    assert names("from sales.ORDERS") == {("main", "Orders"), ("sales", "Orders")}
    assert len(names("show all")) == len(both)
    assert mentioned(special, "select 1") == special


def test_the_engine_knows_no_file_of_the_machine() -> None:
    """Not even if somebody could unlock its settings: the file systems that it may use have none."""
    views = sql.views(chain.require(LocalStore(GOLDEN)).manifest)
    files = NearFiles(str(GOLDEN), (path for view in views for path in view.files))
    engine = sql.connect(views, place, only=files)
    try:
        assert engine.execute("select count(*) from a").fetchall() == [(400,)]
        for path in ("/etc/passwd", str(GOLDEN / "README.txt"), "file:///etc/passwd", "*"):
            with pytest.raises(duckdb.PermissionException, match="LocalFileSystem"):
                engine.execute(f"from read_text('{path}')")
        assert str(GOLDEN) not in str(engine.execute("from duckdb_settings()").fetchall())
    finally:
        engine.close()


def test_no_file_but_those_of_the_archive_is_opened(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for path in ("data/a", "data/b", "c"):
        (tmp_path / path).write_bytes(b"0123456789")
    files = NearFiles(str(tmp_path), ["data/a", "../x", "data/../c", "c", "data/gone"])
    with_it = files.open(place("data/a"))
    assert (with_it.read(3), with_it.tell(), with_it.seek(-2, 2), with_it.read(), with_it.seek(1), with_it.read(1)) == (
        b"012", 3, 8, b"89", 1, b"1"
    )  # fmt: skip
    with_it.close()
    with_it.close()
    for path in ("data/b", "c", "data/../c", "../x", "/etc/passwd", ""):
        with pytest.raises(FileNotFoundError):
            files.open(place(path))
        assert not files.exists(place(path))
        assert files.glob(place(path)) == []
    assert files.missing == ""
    with pytest.raises(FileNotFoundError):
        files.open(place("data/gone"))
    assert files.missing == "data/gone"
    with pytest.raises(PermissionError):
        files.open(place("data/a"), "wb")

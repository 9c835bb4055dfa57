"""SQL over an archive: which views a query gets."""

from __future__ import annotations

from jivs.archive.sql import View, mentioned


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

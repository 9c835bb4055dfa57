"""Files: strict parsing, nothing dropped, nothing guessed."""

from __future__ import annotations

import bz2
import gzip
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jivs.domain.plan import Level
from jivs.errors import UsageError
from jivs.operations.query import query
from jivs.ports.app import App
from tests import archives
from tests.conftest import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    return made


def values(archive: Path, name: str) -> list[dict[str, object]]:
    return archives.rows(archive, name).to_pylist()


def test_csv_that_hurts(folder: Path, run: Run, tmp_path: Path) -> None:
    (folder / "a.csv").write_bytes(
        b'id,name,id,,amt\r\n1,"x\ny",01,a,1.50\r\n2,short\r\n3,too,many,f,g,h\r\n\r\n4,"qu""ote",0007,\xc3\xa4,2\r\n'
        b'5,n\0ul,,\xc3\xa4\xff,-0.5\r\n6,"bad"quote,1,2,3\r\n7,last,,,1'
    )
    outcome = run(f"file://{folder}/a.csv")
    assert outcome.complete
    [result] = outcome.tables
    assert (result.source_rows, result.archived, result.quarantined_rows, result.quarantined_values) == (8, 4, 4, 1)
    assert values(tmp_path / "archive", "a") == [
        {"id": "1", "name": "x\ny", "id__2": "01", "column_4": "a", "amt": "1.50"},
        {"id": "4", "name": 'qu"ote', "id__2": "0007", "column_4": "ä", "amt": "2"},
        {"id": "5", "name": "n\0ul", "id__2": "", "column_4": None, "amt": "-0.5"},
        {"id": "7", "name": "last", "id__2": "", "column_4": "", "amt": "1"},
    ]
    found = archives.quarantine(tmp_path / "archive", "a")
    assert [(entry["line"], entry["original"]) for entry in found if entry["column"] is None] == [
        (4, b"2,short\r\n"), (5, b"3,too,many,f,g,h\r\n"), (6, b"\r\n"), (9, b'6,"bad"quote,1,2,3\r\n'),
    ]  # fmt: skip
    assert [entry["original"] for entry in found if entry["column"] == "column_4"] == [b"\xc3\xa4\xff"]
    assert archives.independent(tmp_path / "archive") == 0


@pytest.mark.parametrize(
    ("name", "data", "encoding"),
    [
        ("a.csv", "k\nä€\n".encode("cp1252"), "cp1252 (detected)"),
        ("a.csv", "k\nä\x81\n".encode("latin-1"), "iso8859-1 (detected)"),
        ("a.csv", "k\nä€\n".encode(), "utf-8 (detected)"),
        ("a.csv", "k\nä€\n".encode("utf-8-sig"), "utf-8 (byte order mark)"),
        ("a.csv", "\ufeffk\nä€\n".encode("utf-16-le"), "utf-16-le (byte order mark)"),
        ("a.csv", "\ufeffk\nä€\n".encode("utf-16-be"), "utf-16-be (byte order mark)"),
        ("a.csv.gz", gzip.compress(b"k\na\n", mtime=0) + gzip.compress(b"b\n", mtime=0), "utf-8 (detected)"),
        ("a.csv.bz2", bz2.compress("k\nä€\n".encode()), "utf-8 (detected)"),
        ("a.csv.zst", pa.Codec("zstd").compress("k\nä€\n".encode(), asbytes=True), "utf-8 (detected)"),
    ],
)
def test_encodings_and_compression_are_found_and_recorded(
    folder: Path, run: Run, tmp_path: Path, name: str, data: bytes, encoding: str
) -> None:
    (folder / name).write_bytes(data)
    assert run(f"file://{folder}").complete
    expected = [{"k": "a"}, {"k": "b"}] if name.endswith("gz") else [{"k": "ä\x81" if "8859" in encoding else "ä€"}]
    assert values(tmp_path / "archive", "a") == expected
    assert f"encoding {encoding}" in archives.table(tmp_path / "archive", "a")["notes"]


def test_a_truncated_file_is_not_taken_for_a_short_one(folder: Path, run: Run) -> None:
    import random

    text = "k\n" + "".join(f"{random.Random(n).random()}\n" for n in range(20000))
    whole = gzip.compress(text.encode(), mtime=0)
    (folder / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Exception, match="damaged or truncated"):
        run(f"file://{folder}/a.csv.gz")


def test_nothing_is_guessed_unless_asked(folder: Path, run: Run, tmp_path: Path) -> None:
    rows = ["zip,n,d,m,b,x", "01234,1,2020-01-31,1.50,true,1", "98765,-2,1999-12-01,-20.125,false,", "00001,,,,,x"]
    (folder / "a.csv").write_text("\n".join(rows))
    assert run(f"file://{folder}/a.csv").complete
    assert {column["type"] for column in archives.table(tmp_path / "archive", "a")["columns"]} == {"text"}
    inferred = tmp_path / "inferred"
    assert run(f"file://{folder}/a.csv?infer=true", archive=inferred).complete
    types = {column["name"]: column["type"] for column in archives.table(inferred, "a")["columns"]}
    assert types == {"zip": "text", "n": "int64", "d": "date", "m": "decimal(5,3)", "b": "bool", "x": "text"}
    assert archives.independent(inferred) == 0
    stated = tmp_path / "stated"
    assert run(f"file://{folder}/a.csv?types=n:int8,x:int64,m:decimal(6;3)", archive=stated).complete
    assert [entry["original"] for entry in archives.quarantine(stated, "a")] == [b"x"]
    with pytest.raises(UsageError, match="no column nope"):
        run(f"file://{folder}/a.csv?types=nope:int64")


def test_json_lines_keep_what_was_written(folder: Path, run: Run, tmp_path: Path) -> None:
    (folder / "j.jsonl").write_text(
        '{"a":1,"b":"x","c":1.10,"d":{"x": 1.0},"e":null,"m":1}\n'
        '{"a":9223372036854775807,"b":"\\ud83d\\ude00","c":2,"m":"s"}\n\nnot json\n{"a":1,"a":2}\n{"a":NaN}\n'
        '{"a":3,"e":"v","b":"\\ud800"}\n'
    )
    outcome = run(f"file://{folder}")
    assert outcome.complete
    [result] = outcome.tables
    assert (result.source_rows, result.archived, result.quarantined_rows, result.quarantined_values) == (6, 3, 3, 1)
    first, second, third = values(tmp_path / "archive", "j")
    assert first == {
        "a": 1, "b": "x", "c": "1.10", "d": '{"x": 1.0}', "e": None, "e__class": "null", "m": "1", "m__class": "integer",
    }  # fmt: skip
    assert (second["a"], second["b"], second["c"], second["e__class"], second["m__class"]) == (
        2**63 - 1,
        "😀",
        "2",
        "absent",
        "string",
    )
    assert (third["b"], third["e"]) == (None, "v")
    assert archives.independent(tmp_path / "archive") == 0


def test_parquet(folder: Path, run: Run, tmp_path: Path) -> None:
    table = pa.table({
        "i": pa.array([1, None], pa.uint64()), "l": [[1, None], None], "s": pa.array([{"a": 1.5, "b": "x"}, None]),
        "w": pa.array([pa.scalar("1.5").cast(pa.decimal256(50, 3)).as_py(), None], pa.decimal256(50, 3)),
        "ns": pa.array([2**62, None], pa.timestamp("ns")), "ms": pa.array([5, None], pa.timestamp("ms", "Europe/Berlin")),
        "far": pa.array([2**62, None], pa.timestamp("us")), "d": pa.array(["x", None]).dictionary_encode(),
        "t": pa.array([1, None], pa.time64("ns")), "h": pa.array([1.5, None], pa.float16()),
    })  # fmt: skip
    pq.write_table(table, folder / "p.parquet")
    assert run(f"file://{folder}").complete
    found = archives.rows(tmp_path / "archive", "p")
    assert (
        found.column("ns").cast(pa.int64()).to_pylist() == found.column("far").cast(pa.int64()).to_pylist() == [2**62, None]
    )
    [row, _] = found.drop_columns(["ns", "far"]).to_pylist()
    assert (row["l"], row["s"], row["w"], row["t"], row["h"], row["d"]) == (
        "[1,null]",
        '{"a":1.5,"b":"x"}',
        "1.500",
        1,
        1.5,
        "x",
    )
    assert archives.independent(tmp_path / "archive") == 0


def test_globs_folders_and_names(folder: Path, run: Run, tmp_path: Path) -> None:
    (folder / "sub").mkdir()
    for path in ("a.csv", "a.jsonl", "sub/b.csv", "notes.txt"):
        (folder / path).write_text('{"k": 1}\n' if path.endswith("jsonl") else "k\n1\n")
    assert [str(item.table) for item in run(f"file://{folder}").tables] == ["a.csv", "a.jsonl", "b"]
    for pattern, names in (("*.csv", ["a"]), ("**/*.csv", ["a", "b"])):
        outcome = run(f"file://{folder}/{pattern}", archive=tmp_path / str(len(names)))
        assert [str(item.table) for item in outcome.tables] == names


def test_a_file_that_changes_while_it_is_read_does_not_pass(folder: Path, run: Run) -> None:
    path = folder / "a.csv"
    path.write_text("k\n1\n")

    def grow(step: str) -> None:
        if step == "segments written":
            with path.open("a") as file:
                file.write("2\n")

    outcome = run(f"file://{path}", level=Level.NONE, pause=grow)
    assert not outcome.complete
    assert "changed while it was read" in outcome.tables[0].reason


def test_empty_files(folder: Path, run: Run, tmp_path: Path) -> None:
    (folder / "header.csv").write_text("a,b\n")
    (folder / "nothing.csv").touch()
    (folder / "nothing.jsonl").touch()
    outcome = run(f"file://{folder}")
    assert outcome.complete
    assert [item.archived for item in outcome.tables] == [0, 0, 0]
    assert archives.independent(tmp_path / "archive") == 0


def test_files_of_the_same_name_are_all_taken(folder: Path, run: Run, tmp_path: Path) -> None:
    for path, value in (("x/a.csv", "1"), ("y/a.csv", "2"), ("a.csv.gz", "3"), ("z/a.jsonl", "4")):
        (folder / path).parent.mkdir(exist_ok=True)
        data = f'{{"k": "{value}"}}\n' if path.endswith("jsonl") else f"k\n{value}\n"
        (folder / path).write_bytes(gzip.compress(data.encode(), mtime=0) if path.endswith("gz") else data.encode())
    for number, pattern in enumerate((f"{folder}", f"{folder}/*/a.*")):
        archive = tmp_path / str(number)
        outcome = run(f"file://{pattern}", archive=archive)
        found = {row["k"] for item in outcome.tables for row in values(archive, item.table.name)}
        assert found == ({"1", "2", "3", "4"} if number == 0 else {"1", "2", "4"})


def test_links_to_folders_are_said_and_special_files_refused(folder: Path, run: Run, tmp_path: Path) -> None:
    import os

    (folder / "a.csv").write_text("k\n1\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.csv").write_text("k\n1\n")
    (folder / "link").symlink_to(tmp_path / "other")
    outcome = run(f"file://{folder}")
    assert any("was not followed" in note for note in outcome.notes)
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        run(f"file://{folder}/pipe.csv")


@pytest.mark.parametrize("text", ["garbage\n[1,2]\n{}\n", "[1]\n"])
def test_a_file_without_columns_loses_nothing(folder: Path, run: Run, tmp_path: Path, text: str) -> None:
    (folder / "a.jsonl").write_text(text)
    outcome = run(f"file://{folder}")
    [result] = outcome.tables
    rejected = sum(not line.startswith("{") for line in text.splitlines())
    assert (result.quarantined_rows, result.archived) == (rejected, len(text.splitlines()) - rejected)
    assert [entry["original"].decode() for entry in archives.quarantine(tmp_path / "archive", "a")] == [
        line for line in text.splitlines(keepends=True) if not line.startswith("{")
    ]
    assert archives.verdict(tmp_path / "archive").sound
    assert archives.independent(tmp_path / "archive") == 0


def test_a_blank_header_is_refused(folder: Path, run: Run) -> None:
    (folder / "a.csv").write_text("\na,b\n1,2\n")
    with pytest.raises(UsageError, match="is blank"):
        run(f"file://{folder}")


def test_wide_encodings(folder: Path, run: Run, tmp_path: Path) -> None:
    (folder / "a.csv").write_bytes("\ufeffk\nä\n".encode("utf-32-le"))
    assert run(f"file://{folder}/a.csv").complete
    assert values(tmp_path / "archive", "a") == [{"k": "ä"}]
    (folder / "b.csv").write_bytes("k\nä\n".encode("utf-16-le"))
    with pytest.raises(UsageError, match="NUL bytes"):
        run(f"file://{folder}/b.csv")
    assert run(f"file://{folder}/b.csv?encoding=utf-16-le", archive=tmp_path / "b").complete
    assert values(tmp_path / "b", "b") == [{"k": "ä"}]
    for wrong in ("base64", "rot13", "nope"):
        with pytest.raises(UsageError, match="is not read"):
            run(f"file://{folder}/a.csv?encoding={wrong}")


def test_typed_columns_take_only_what_they_hold_exactly(folder: Path, run: Run, tmp_path: Path) -> None:
    """-0, 1e400, 1_000, full-width digits and missing zones are not bent into something near."""
    (folder / "n.csv").write_text("a,b,c\n-0,-0.00,1\n5,1.50,2\n")
    assert run(f"file://{folder}/n.csv?infer=true", archive=tmp_path / "i").complete
    assert values(tmp_path / "i", "n")[0] == {"a": "-0", "b": "-0.00", "c": 1}
    rows = ["1.5", "1e400", "1e-400", "0e5", "-0", "1_0", "１", "inf", "x"]
    (folder / "f.csv").write_text("d\n" + "\n".join(rows) + "\n")
    assert run(f"file://{folder}/f.csv?types=d:double", archive=tmp_path / "f").complete
    assert values(tmp_path / "f", "f") == [
        {"d": value} for value in (1.5, None, None, 0.0, -0.0, None, None, float("inf"), None)
    ]
    (folder / "d.csv").write_text("d\n1.50\n1_000\n 1.5\n１\n1E+1000000\n1.234\n99999999999999999999999999999999999.99\n")
    assert run(f"file://{folder}/d.csv?types=d:decimal(38;2)", archive=tmp_path / "d").complete
    found = [row["d"] for row in values(tmp_path / "d", "d")]
    assert [str(value) for value in found] == ["1.50", *["None"] * 5, "99999999999999999999999999999999999.99"]
    (folder / "t.csv").write_text("t\n" + "2020-01-01 00:00:00\n2020-01-01 00:00:00+00\n" * 20)
    assert run(f"file://{folder}/t.csv?types=t:timestamp(us,utc)".replace(",utc", ";utc"), archive=tmp_path / "t").complete
    assert sum(row["t"] is None for row in values(tmp_path / "t", "t")) == 20
    (folder / "m.csv").write_text('m\nNA\n""\n3\n')
    assert run(f"file://{folder}/m.csv?types=m:int8&null=NA", archive=tmp_path / "m").complete
    assert [entry["row"] for entry in archives.quarantine(tmp_path / "m", "m")] == [1]
    for wrong in ("decimal(99;2)", "decimal(5;9)", "timestamp", "timestamp(zz)", "timestamp(us;foo)"):
        with pytest.raises(UsageError, match="is no column:type"):
            run(f"file://{folder}/d.csv?types=d:{wrong}")


def test_parquet_that_is_easily_bent(folder: Path, run: Run, tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1, 2]), pa.array([30, 40])], names=["a", "a"])
    pq.write_table(table, folder / "twice.parquet")
    far = pa.table({"t": pa.array([253402214400000000, -62135596800000000], pa.timestamp("us"))})
    pq.write_table(far, folder / "int96.parquet", use_deprecated_int96_timestamps=True)
    pq.write_table(pa.table({"j": pa.array(['{"a":1}'], pa.json_())}), folder / "json.parquet")
    pq.write_table(pa.table({"b": pa.array([b"\x00\xff"], pa.binary_view())}), folder / "view.parquet")
    assert run(f"file://{folder}").complete
    archive = tmp_path / "archive"
    assert values(archive, "twice") == [{"a": 1, "a__2": 30}, {"a": 2, "a__2": 40}]
    assert archives.rows(archive, "int96").column("t").cast(pa.int64()).to_pylist() == [
        253402214400000000,
        -62135596800000000,
    ]
    assert values(archive, "json") == [{"j": '{"a":1}'}]
    assert values(archive, "view") == [{"b": b"\x00\xff"}]
    assert archives.independent(archive) == 0


def test_an_open_quote_is_refused_instead_of_eating_the_memory(folder: Path, run: Run) -> None:
    (folder / "a.csv").write_text('k\n"' + "x" * 1000 + "\n" * 18_000_000)
    outcome = run(f"file://{folder}", level=Level.NONE)
    assert not outcome.complete
    assert "JIVS_EXTRACTION__MEMORY_LIMIT" in outcome.tables[0].reason


def test_rejected_rows_before_the_first_good_one_are_kept(run: Run, tmp_path: Path) -> None:
    """Many of them, and then a row that needs a companion column, for which the empty segment is begun anew."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "t.csv").write_text("d,n\n" + "only one field\n" * 50 + "0000-00-00,1\n")
    outcome = run(f"file://{folder}?types=d:date", limits={"batch_rows": 10}, level=Level.COUNT)
    assert outcome.complete
    assert [(item.archived, item.quarantined_rows) for item in outcome.tables] == [(1, 50)]


def test_queries_find_nan_where_it_stands(folder: Path, run: Run, app: App, tmp_path: Path) -> None:
    """Least and greatest values in a segment leave NaN out; DuckDB, which takes NaN for the greatest, would believe them."""
    values = [math.nan if number % 5 == 0 else number / 7 for number in range(1000)]
    pq.write_table(pa.table({"f": values, "g": pa.array(values, pa.float32())}), folder / "t.parquet")
    assert run(f"file://{folder}/t.parquet").complete
    for column in ("f", "g"):
        for condition, count in [
            (f"{column} = 'nan'::double", 200),
            (f"isnan({column})", 200),
            (f"{column} > 1e9", 200),
            (f"{column} between 3 and 'infinity'::double", 784),
        ]:
            with query(app, str(tmp_path / "archive"), f"select count(*) as n from t where {condition}") as reader:
                assert reader.read_all().to_pylist() == [{"n": count}], condition
        with query(app, str(tmp_path / "archive"), f"select isnan(max({column})) as m from t") as reader:
            assert reader.read_all().to_pylist() == [{"m": True}]

"""Small pieces, at their edges."""

from __future__ import annotations

import datetime as dt
import math
import threading
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs import errors
from jivs.archive import layout
from jivs.cli import exits
from jivs.domain.archive import canonical_json
from jivs.domain.arrow import arrow_type
from jivs.domain.fingerprint import Fingerprint
from jivs.domain.schema import ArchiveType, Column, Fidelity, Kind, TableName, assign_fields
from jivs.domain.source import Address, Secret
from jivs.errors import UsageError
from jivs.ports.connector import Chunk
from jivs.settings import size
from jivs.testing.clock import FakeClock
from jivs.transfer.conform import conform
from jivs.transfer.moments import days, parse
from jivs.transfer.throttle import Throttle
from jivs.wire.canonical import column_texts, row_hash
from jivs.wire.rowhash import RowHasher


def column(name: str, type_: str) -> Column:
    return assign_fields(
        [Column(name=name, field=name, type=ArchiveType.parse(type_), source_type="x", fidelity=Fidelity.EXACT)]
    )[0]


@given(st.dates())
def test_days_agree_with_pythons_calendar(day: dt.date) -> None:
    assert days(day.year, day.month, day.day) == day.toordinal() - 719163


@given(st.datetimes())
def test_timestamps_agree_with_pythons(moment: dt.datetime) -> None:
    expected = (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)  # noqa: DTZ001
    text = moment.isoformat(" ")
    assert parse(text, ArchiveType.parse("timestamp(us)")) == expected
    assert parse(f"{text}+00", ArchiveType.parse("timestamp(us,utc)")) == expected
    assert parse(f"{text}+05:30", ArchiveType.parse("timestamp(us,utc)")) == expected - 19800 * 10**6
    assert parse(text, ArchiveType.parse("timestamp(us,utc)")) is None


@pytest.mark.parametrize(
    ("text", "type_", "count"),
    [
        ("0044-03-15 BC", "date", -735160),
        ("0001-12-31 BC", "date", -719163),
        ("5874897-12-31", "date", 2145042905),
        ("2020-02-30", "date", None),
        ("1900-02-29", "date", None),
        ("0000-01-01", "date", None),
        ("2020-13-01", "date", None),
        ("infinity", "date", None),
        ("2020-01-01 00:00:00", "date", None),
        ("2020-01-01", "timestamp(us)", None),
        ("294246-12-31 23:59:59.999999", "timestamp(us)", 9223371244799999999),
        ("294247-01-01 00:00:00", "timestamp(us)", None),
        ("2020-01-01 00:00:00.1234567", "timestamp(us)", None),
        ("2020-01-01 00:00:00.1234567", "timestamp(ns)", 1577836800123456700),
        ("2262-01-01 00:00:00", "timestamp(ns)", None),
        ("23:59:59.999999", "time", 86399999999),
        ("24:00:00", "time", None),
        ("", "time", None),
    ],
)
def test_moments_at_their_edges(text: str, type_: str, count: int | None) -> None:
    assert parse(text, ArchiveType.parse(type_)) == count


CONFORMED = [
    ("int8", ["1", "-128", "128", "x", " 1", "1_0", "", None], [1, -128, None, None, None, None, None, None]),
    ("uint64", ["18446744073709551615", "-1", "+3"], [2**64 - 1, None, 3]),
    ("decimal(5,2)", ["1.2", "-999.99", "1000", "1.234", "NaN", "1e2", "0.10"], ["1.20", "-999.99", None, None, None, "100.00", "0.10"]),
    ("decimal(38,0)", ["9" * 38, "1" + "0" * 38], [int("9" * 38), None]),
    ("bool", ["t", "f", "true", "1", "yes"], [True, False, True, True, None]),
    ("double", ["1.5", "-Infinity", "1e400x", "1_0"], [1.5, -math.inf, None, None]),
    ("text", [b"ok", b"\xff", None, b""], ["ok", None, None, ""]),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "given_", "expected"), CONFORMED)
def test_what_does_not_fit_goes_to_quarantine_with_its_bytes(
    type_: str, given_: list[object], expected: list[object]
) -> None:
    """Rows stay, in their order; every value is either the same or in quarantine."""
    array = pa.array(given_, pa.binary() if type_ == "text" else pa.string())
    done = conform([column("c", type_)], Chunk(batch=pa.RecordBatch.from_arrays([array], ["c0"])))
    values = done.batch.column(0).to_pylist()
    assert [str(value) if isinstance(value, Decimal) else value for value in values] == [
        str(value) if type_.startswith("decimal") and value is not None else value for value in expected
    ]
    quarantined = {value.row: value.original for value in done.values}
    for row, (before, after) in enumerate(zip(given_, values, strict=True)):
        if before is not None and after is None:
            assert quarantined[row] == (before if isinstance(before, bytes) else str(before).encode())
        else:
            assert row not in quarantined


def test_moments_beyond_the_type_are_values_not_errors() -> None:
    array = pa.array(["2020-01-01", "infinity", None, "0044-03-15 BC", "0000-00-00"])
    done = conform([column("d", "date")], Chunk(batch=pa.RecordBatch.from_arrays([array], ["c0"])))
    assert done.values == ()
    assert done.batch.column("d").cast(pa.int32()).to_pylist() == [18262, None, None, -735160, None]
    assert done.batch.column("d__text").to_pylist() == [None, "infinity", None, None, "0000-00-00"]


def test_a_typed_timestamp_at_the_end_of_64_bits_stands_beside_the_column() -> None:
    array = pa.array([2**63 - 1, 0, None], pa.int64()).view(pa.timestamp("us"))
    done = conform([column("t", "timestamp(us)")], Chunk(batch=pa.RecordBatch.from_arrays([array], ["c0"])))
    assert done.batch.column("t").cast(pa.int64()).to_pylist() == [None, 0, None]
    assert done.batch.column("t__text").to_pylist() == [str(2**63 - 1), None, None]


KINDS = ["int8", "int64", "uint64", "double", "float", "decimal(5,5)", "decimal(38,38)", "decimal(38,10)", "decimal(3,0)",
         "text", "binary", "bool", "date", "time", "timestamp(us)", "timestamp(ns)", "timestamp(us,utc)"]  # fmt: skip
VALUES = {
    "int8": st.integers(-128, 127), "int64": st.integers(-(2**63), 2**63 - 1), "uint64": st.integers(0, 2**64 - 1),
    "double": st.floats(), "float": st.floats(width=32), "text": st.text(max_size=1200), "binary": st.binary(max_size=600),
    "bool": st.booleans(), "date": st.integers(-(2**31) + 1, 2**31 - 1), "time": st.integers(0, 86_400_000_000 - 1),
}  # fmt: skip


@given(st.data())
def test_the_fast_hash_is_that_of_the_plain_twin(data: st.DataObject) -> None:
    """Every type, NULLs, long values, quarantined cells and companion values, in any combination."""
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    columns = assign_fields([
        Column(name=f"c{n}", field="", type=ArchiveType.parse(kind), source_type="x", fidelity=Fidelity.EXACT)
        for n, kind in enumerate(kinds)
    ])  # fmt: skip
    rows = data.draw(st.integers(1, 6))
    arrays, names = [], []
    for item in columns:
        type_ = arrow_type(item.type)
        if item.type.kind is Kind.DECIMAL:
            limit = 10**item.type.precision - 1
            digits = data.draw(st.lists(st.none() | st.integers(-limit, limit), min_size=rows, max_size=rows))
            values = [
                None if d is None else Decimal((int(d < 0), tuple(map(int, str(abs(d)))), -item.type.scale)) for d in digits
            ]
            arrays.append(pa.array(values, type_))
        elif item.type.kind in {Kind.DATE, Kind.TIME, Kind.TIMESTAMP}:
            strategy = VALUES.get(item.type.kind.value, st.integers(-(2**62), 2**62))
            storage = pa.int32() if item.type.kind is Kind.DATE else pa.int64()
            counts = data.draw(st.lists(st.none() | strategy, min_size=rows, max_size=rows))
            arrays.append(pa.array(counts, storage).view(type_))
        else:
            values = data.draw(st.lists(st.none() | VALUES[item.type.kind.value], min_size=rows, max_size=rows))
            arrays.append(pa.array(values, type_))
        names.append(item.field)
        if item.companion and data.draw(st.booleans()):
            texts = data.draw(
                st.lists(st.sampled_from([None, "infinity", "-infinity", "0000-00-00"]), min_size=rows, max_size=rows)
            )
            arrays.append(pa.array(texts, pa.string()))
            names.append(item.companion)
    batch = pa.RecordBatch.from_arrays(arrays, names)
    overrides = data.draw(st.dictionaries(st.integers(0, rows - 1), st.just({0: b"\xff quarantined"}), max_size=2))
    texts = [list(row) for row in zip(*(column_texts(batch, item) for item in columns), strict=True)]
    for row, cells in overrides.items():
        texts[row][0] = cells[0]
    expected = [row_hash(row) for row in texts]
    hasher = RowHasher(columns)
    assert hasher.hashes(batch, overrides).to_pylist() == expected
    assert hasher.fingerprint(batch, overrides) == Fingerprint.of(rows, sum(expected))


def test_pairs_of_equal_rows_do_not_cancel_out() -> None:
    one = Fingerprint(1, 7)
    assert one + one != Fingerprint(2, 0)
    assert (one + one) - one == one
    assert Fingerprint.parse(3, str(Fingerprint(3, 2**64 - 1))) == Fingerprint(3, 2**64 - 1)


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_two_names_share_a_path_and_none_leaves_its_folder(one: str, other: str) -> None:
    for name in (one, other):
        part = layout.part(name)
        assert "/" not in part
        assert "." not in part
        assert 0 < len(part.encode()) <= 135
        assert part == part.lower() or "%" in part
    if one != other:
        assert layout.part(one).casefold() != layout.part(other).casefold()


def test_table_folders_keep_schema_and_table_apart() -> None:
    one = layout.table_folder("s", TableName(schema="a.b", name="c"))
    other = layout.table_folder("s", TableName(schema="a", name="b.c"))
    assert one != other
    assert layout.part("..") == "%2E%2E"


def test_fields_that_collide_without_case_get_numbers() -> None:
    names = ["A", "a", "a__2", "d", "d__text", "D__TEXT"]
    types = ["int8", "int8", "int8", "date", "text", "text"]
    columns = assign_fields([
        Column(name=name, field=name, type=ArchiveType.parse(type_), source_type="x", fidelity=Fidelity.EXACT)
        for name, type_ in zip(names, types, strict=True)
    ])  # fmt: skip
    fields = [item.field.casefold() for item in columns] + [item.companion.casefold() for item in columns if item.companion]
    assert len(set(fields)) == len(fields)
    assert columns[0].field == "A"


@pytest.mark.parametrize(
    ("url", "shown", "user", "password"),
    [
        ("postgresql://u:p%40ss@h:1/d?sslmode=require", "postgresql://h:1/d", "u", "p@ss"),
        ("jdbc:mysql://h/d?user=u&password=p", "mysql://h/d", "u", "p"),
        ("mysql+pymysql://u@h/d", "mysql://h/d", "u", ""),
        ("postgresql://u:${PW}@[::1]/d", "postgresql://[::1]/d", "u", "from @:/ environment"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db", "", ""),
        ("sqlite:///rel.db", "sqlite:///rel.db", "", ""),
        ("file:///a/b*.csv?infer=true", "file:///a/b*.csv", "", ""),
    ],
)
def test_urls(url: str, shown: str, user: str, password: str) -> None:
    address = Address.parse(url, {"PW": "from @:/ environment"}.get)
    assert (address.shown, address.username, address.password.reveal()) == (shown, user, password)
    assert len(password) < 3 or password not in repr(address) + str(address)


def test_a_secret_is_not_shown_and_not_serialised() -> None:
    import copy
    import pickle

    secret = Secret("hidden")
    assert "hidden" not in f"{secret} {secret!r} {[secret]}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.copy(secret)
    with pytest.raises(UsageError, match="NOPE"):
        Address.parse("postgresql://u:${NOPE}@h/d", lambda _: None)


def test_canonical_json_has_one_form_and_no_floats() -> None:
    assert canonical_json({"b": ["ä", 1], "a": None}) == '{"a":null,"b":["ä",1]}\n'.encode()
    with pytest.raises(TypeError):
        canonical_json({"a": [1.5]})


def test_every_error_has_an_exit_code_of_the_contract() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.JivsError)]
    codes = {kind.__name__: exits.exit_code(kind("x")) for kind in kinds}
    assert set(codes.values()) == {1, 2, 3, 4, 5, 130}
    assert codes["UsageError"] == 2
    assert codes["UnreachableError"] == 5
    assert codes["SchemaChangedError"] == 4
    for name in codes:
        assert name in (errors.__doc__ or ""), f"{name} is not in the tree"


@pytest.mark.parametrize(("text", "count"), [("512MiB", 512 << 20), ("2gb", 2 << 30), ("64k", 64 << 10), ("7", 7), (9, 9)])
def test_sizes(text: object, count: int) -> None:
    assert size(text) == count


def test_a_throttle_holds_its_rate_over_all_threads() -> None:
    clock = FakeClock()
    throttle = Throttle(1000, clock)
    throttle.take(50)
    for _ in range(100):
        throttle.take(throttle.step)
    assert 9.5 <= clock.monotonic() <= 10.5
    threads = [threading.Thread(target=throttle.take, args=(100,)) for _ in range(10)]
    before = clock.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.monotonic() - before >= 0.9

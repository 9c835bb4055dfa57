"""Demo: a complete run on sample data that needs no service."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from jivs.archive import chain
from jivs.domain.finding import Verdict
from jivs.domain.plan import Level, Selection
from jivs.errors import UsageError
from jivs.operations.extract import extract
from jivs.operations.job import ExtractJob, Outcome, Progress
from jivs.operations.verify import VerifyJob, verify
from jivs.ports.app import App

_MARK = ".jivs-demo"
_CUSTOMERS = 2_000
_ORDERS = 20_000
QUERY = (
    "select c.country, count(*) as orders, sum(o.cents)::bigint as cents from orders o join customers c "
    "on c.id = o.customer group by 1 order by 1"
)


def demo(app: App, folder: Path, tell: Callable[[str], None], show: Callable[[Outcome, str], None]) -> None:
    """Make a sample database, archive it, prove the archive, query it, then damage it and show that this is found.

    ``folder`` is made; one left by an earlier demo is replaced. Raises UsageError for any other existing folder.
    """
    if folder.exists():
        if not (folder / _MARK).exists():
            raise UsageError(f"{folder} exists and is no folder of an earlier demo: choose another with --to.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()
    database, archive = folder / "legacy.db", folder / "archive"
    make_sample(database)
    tell(f"1. A legacy database: {database} ({_CUSTOMERS:,} customers, {_ORDERS:,} orders)")
    job = ExtractJob(
        address=app.address(f"sqlite:///{database.absolute()}"),
        archive=str(archive),
        selection=Selection(),
        limits=app.limits,
        level=Level.FULL,
    )
    tell(f"2. jivs extract sqlite:///{database} --to {archive} --verify full")
    show(extract(app, job, Progress()), str(archive))
    tell(f"3. jivs verify {archive} --level full")
    _tell_verdict(tell, verify(app, VerifyJob(archive=str(archive), level="full", limits=app.limits)))
    tell(f'4. jivs query {archive} "{QUERY}"')


def damage(app: App, folder: Path, tell: Callable[[str], None]) -> bool:
    """Flip one bit in a segment, verify, put it back, verify. True if the first was found and the second is sound."""
    archive = folder / "archive"
    table = chain.require(app.store(str(archive))).manifest.tables[0]
    segment = archive / table.segments[0].path
    whole = segment.read_bytes()
    middle = len(whole) // 2
    job = VerifyJob(archive=str(archive), level="files", limits=app.limits)
    segment.write_bytes(whole[:middle] + bytes((whole[middle] ^ 1,)) + whole[middle + 1 :])
    tell(f"5. One bit of {segment.relative_to(folder)} flipped; jivs verify {archive}")
    broken = verify(app, job)
    _tell_verdict(tell, broken)
    segment.write_bytes(whole)
    tell("6. The bit put back; verified again")
    mended = verify(app, job)
    _tell_verdict(tell, mended)
    return not broken.sound and mended.sound


def _tell_verdict(tell: Callable[[str], None], verdict: Verdict) -> None:
    for finding in verdict.findings:
        tell(f"   {finding.severity.value.upper()} {finding.object}: {finding.message}")
    state = "SOUND" if verdict.sound else "DAMAGED"
    tell(f"   {state} at level {verdict.level}: {verdict.rows:,} rows, {verdict.files} files")


def make_sample(path: Path) -> None:
    """A small order system as it grew over the years: amounts in cents, dates as text, a column of mixed classes."""
    countries = ("AT", "CH", "DE", "FR", "IT", "LI")
    names = ("Ångström", "Brûlé", "Çelik", "Dvořák", "Öztürk", "Müller", "O'Neill", "Σωκράτης")
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "create table customers (id integer primary key, name text not null, country text, born text, photo blob);"
            "create table orders (id integer primary key, customer integer references customers, placed text, cents integer,"
            " discount real, reference);"
            "create view big_orders as select * from orders where cents > 100000;"
        )
        connection.executemany(
            "insert into customers values (?, ?, ?, ?, ?)",
            (
                (
                    number,
                    f"{names[number % len(names)]} {number}",
                    countries[number % len(countries)],
                    f"{1930 + number % 75}-{1 + number % 12:02}-{1 + number % 28:02}",
                    bytes((number % 256, 0, 255)) if number % 3 else None,
                )
                for number in range(1, _CUSTOMERS + 1)
            ),
        )
        connection.executemany(
            "insert into orders values (?, ?, ?, ?, ?, ?)",
            (
                (
                    number,
                    1 + number * 7919 % _CUSTOMERS,
                    f"20{10 + number % 15}-{1 + number % 12:02}-{1 + number % 28:02} 12:{number % 60:02}:00",
                    number * 104_729 % 250_000,
                    number % 7 / 10,
                    number if number % 2 else f"R-{number:06}",
                )
                for number in range(1, _ORDERS + 1)
            ),
        )
    connection.close()

"""Times of cron: against tables made by hand, against every minute of days on which clocks change, against another library."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jivs.domain import cron
from jivs.domain.schedule import Timing
from jivs.errors import UsageError

MINUTE = timedelta(minutes=1)


def times(timing: Timing, after: datetime, end: datetime) -> list[datetime]:
    found, one = [], cron.following(timing, after)
    while one is not None and one < end:
        found.append(one)
        one = cron.following(timing, one)
    return found


@pytest.mark.parametrize(
    ("zone", "text", "day", "expected"),
    [
        # 2026-03-29 in Berlin 02:00 becomes 03:00 (+02:00)
        ("Europe/Berlin", "30 2 * * *", "2026-03-29", ["03:00+02:00"]),
        ("Europe/Berlin", "0,30 2 * * *", "2026-03-29", ["03:00+02:00"]),
        ("Europe/Berlin", "30 2,3 * * *", "2026-03-29", ["03:00+02:00", "03:30+02:00"]),
        ("Europe/Berlin", "0 1-4 * * *", "2026-03-29", ["01:00+01:00", "03:00+02:00", "04:00+02:00"]),
        # 2026-10-25 in Berlin 03:00 becomes 02:00 (+01:00)
        ("Europe/Berlin", "30 2 * * *", "2026-10-25", ["02:30+02:00"]),
        ("Europe/Berlin", "0 1-4 * * *", "2026-10-25", ["01:00+02:00", "02:00+02:00", "03:00+01:00", "04:00+01:00"]),
        # 2026-03-08 in New York 02:00 becomes 03:00 (-04:00), 2026-11-01 02:00 becomes 01:00 (-05:00)
        ("America/New_York", "15 2 * * *", "2026-03-08", ["03:00-04:00"]),
        ("America/New_York", "59 1 * * *", "2026-03-08", ["01:59-05:00"]),
        ("America/New_York", "15 1,2 * * *", "2026-11-01", ["01:15-04:00", "02:15-05:00"]),
        # 2026-10-04 on Lord Howe 02:00 becomes 02:30 (+11:00), 2026-04-05 02:00 becomes 01:30 (+10:30)
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-04", ["02:30+11:00"]),
        ("Australia/Lord_Howe", "15,45 2 * * *", "2026-10-04", ["02:30+11:00", "02:45+11:00"]),
        ("Australia/Lord_Howe", "29,30 2 * * *", "2026-10-04", ["02:30+11:00"]),
        ("Australia/Lord_Howe", "20,40 1 * * *", "2026-04-05", ["01:20+11:00", "01:40+11:00"]),
        (
            "Australia/Lord_Howe",
            "*/30 1,2 * * *",
            "2026-04-05",
            ["01:00+11:00", "01:30+11:00", "02:00+10:30", "02:30+10:30"],
        ),
        # Samoa left 2011-12-30 out
        ("Pacific/Apia", "0 12 30 12 *", "2011-12-31", ["00:00+14:00"]),
        ("UTC", "30 2 * * *", "2026-03-29", ["02:30+00:00"]),
    ],
)
def test_days_on_which_clocks_change(zone: str, text: str, day: str, expected: list[str]) -> None:
    timing = Timing(cron=text, time_zone=zone)
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    found = times(timing, begin - timedelta(seconds=1), begin + timedelta(hours=20))
    assert [cron.local(timing, one).isoformat().replace(":00+", "+").replace(":00-", "-")[11:] for one in found] == expected


CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)), ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)), ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)), ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, 5, tzinfo=UTC)), ("Africa/Cairo", datetime(2026, 4, 23, 22, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 3, 29, 1, tzinfo=UTC)), ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ("Asia/Tokyo", datetime(2026, 3, 29, 1, tzinfo=UTC)),
]  # fmt: skip


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> tuple[str, set[int]]:
    """A field of a pattern, and what it means."""
    whole = list(range(low, high + 1))
    parts: list[tuple[str, list[int]]] = []
    count, step = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    for _ in range(count):
        first, last = draw(st.sampled_from([(one, other) for one in whole for other in whole if one < other]))
        kinds = [
            (str(first), [first]), (f"{first}-{last}", whole[first - low : last - low + 1]), (f"{first}/{step}", whole[first - low :: step]),
            (f"{first}-{last}/{step}", whole[first - low : last - low + 1 : step]),
        ]  # fmt: skip
        if count == 1:  # in lists, programs differ on what a star does to the days
            kinds += [("*", whole), (f"*/{step}", whole[::step])]
        parts.append(draw(st.sampled_from(kinds)))
    return ",".join(text for text, _ in parts), {value for _, meant in parts for value in meant}


@given(change=st.sampled_from(CHANGES), minute=fields(0, 59), hour=fields(0, 23), seed=st.integers(0, 48 * 60))
@settings(max_examples=60)
@example(change=CHANGES[0], minute=("*/20", {0, 20, 40}), hour=("*", set(range(24))), seed=0)
@example(change=CHANGES[4], minute=("45", {45}), hour=("*", set(range(24))), seed=25 * 60)
def test_every_time_comes_once_on_every_clock(
    change: tuple[str, datetime], minute: tuple[str, set[int]], hour: tuple[str, set[int]], seed: int
) -> None:
    """What the clock shows, minute by minute, is the judge."""
    zone, middle = change
    begin, end = middle - timedelta(hours=30), middle + timedelta(hours=30)
    first: dict[datetime, datetime] = {}
    at, shown = begin, begin.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    earliest = shown
    while at < end:
        now = at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        while shown < now:  # minutes that no clock showed
            shown += MINUTE
            if shown < now:
                first.setdefault(shown, at)
        first.setdefault(now, at)
        shown, at = max(now, shown), at + MINUTE
    expected = sorted({
        moment for wall, moment in first.items() if wall > earliest and wall.minute in minute[1] and wall.hour in hour[1]
    })  # fmt: skip
    timing = Timing(cron=f"{minute[0]} {hour[0]} * * *", time_zone=zone)
    assert times(timing, begin, end) == expected
    start = begin + seed * MINUTE + timedelta(seconds=seed % 60, microseconds=1)
    assert times(timing, start, end) == [one for one in expected if one > start], "wherever one begins"


WEEKDAYS = ["*", "*/2", "0", "6", "1-5", "1-6/2", "MON", "tue,THU", "SUN,5", "0,3-4"]
"""Fields in whose meaning programs agree."""


@given(
    minute=fields(0, 59), hour=fields(0, 23), day=fields(1, 28), month=fields(1, 12), weekday=st.sampled_from(WEEKDAYS),
    hours=st.integers(0, 60 * 8766),
)  # fmt: skip
@settings(max_examples=200)
def test_another_library_finds_the_same_times(
    minute: tuple[str, set[int]],
    hour: tuple[str, set[int]],
    day: tuple[str, set[int]],
    month: tuple[str, set[int]],
    weekday: str,
    hours: int,
) -> None:
    text = " ".join(field[0] for field in (minute, hour, day, month)) + f" {weekday}"
    begin = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    other = croniter(text, begin, implement_cron_bug=True)
    at = begin
    for _ in range(5):
        found = cron.following(Timing(cron=text), at)
        assert found is not None
        assert found == other.get_next(datetime), text
        at = found


def test_what_can_be_written() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday
    for text, expected in (
        ("@hourly", "2026-01-01 01:00"), ("@Daily", "2026-01-02 00:00"), ("@midnight", "2026-01-02 00:00"), ("@weekly", "2026-01-04 00:00"),
        ("@monthly", "2026-02-01 00:00"), ("@yearly", "2027-01-01 00:00"), ("@annually", "2027-01-01 00:00"),
        ("0 6 * feb-apr MON", "2026-02-02 06:00"), ("0 0 13 * FRI", "2026-01-02 00:00"), ("0 0 29 2 *", "2028-02-29 00:00"),
        ("0 0 * * 7", "2026-01-04 00:00"), ("0 0 * * 0", "2026-01-04 00:00"), ("0 0 L * *", "2026-01-31 00:00"),
        ("0 0 LW * *", "2026-01-30 00:00"), ("0 0 * * FRI#2", "2026-01-09 00:00"), ("0 0 * * 5L", "2026-01-30 00:00"),
        (" 1-59/29  0,1 * * * ", "2026-01-01 00:01"),
    ):  # fmt: skip
        found = cron.following(Timing(cron=text), begin)
        assert found is not None
        cron.check(Timing(cron=text))
        assert f"{found:%Y-%m-%d %H:%M}" == expected, text


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *", "* * * * 8", "-1 * * * *",
        "*/0 * * * *", "5-1 * * * *", "* * * * FRI-MON", "1,,2 * * * *", "* * * FOO *", "@reboot", "@", "0 0 30 2 *", "0 0 31 4,6 *",
        "٠ * * * *", "²L * * * *", "* * * * ²L", "* * L/ * *", "9" * 180 + " * * * *", "? * * * *", "* * * * #", "* * * * 1#6", "*/* * * * *",
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="cron text"):
        cron.check(Timing(cron=text))


@given(st.text(alphabet="0123456789*/-,#LWMONFRIJAN@ ", max_size=40))
@settings(max_examples=500)
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    timing = Timing(cron=text, time_zone="Europe/Berlin")
    try:
        cron.check(timing)
    except UsageError:
        return
    now = datetime(2026, 3, 1, tzinfo=UTC)
    found = cron.following(timing, now)
    assert found is None or found > now


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "europe/berlin", "../../etc/passwd", "/etc/localtime", "localtime", "Factory", "Europe", "+01:00", "UTC\n"])  # fmt: skip
def test_what_is_no_zone_is_said(zone: str) -> None:
    with pytest.raises(UsageError, match="time zone"):
        cron.check(Timing(cron="@daily", time_zone=zone))


def test_bounds_count_and_belong_to_it() -> None:
    first, last = datetime(2026, 5, 1, 2, 30, tzinfo=UTC), datetime(2026, 5, 3, 2, 30, tzinfo=UTC)
    timing = Timing(cron="30 2 * * *", not_before=first, not_after=last)
    cron.check(timing)
    found = times(timing, datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert (found[0], found[-1], len(found)) == (first, last, 3)
    with pytest.raises(UsageError, match="notAfter"):
        cron.check(Timing(cron="@daily", not_before=last, not_after=first))


def test_seconds_are_for_us_alone() -> None:
    timing = Timing(cron="*/10 * * * * *", time_zone="Europe/Berlin")
    begin = datetime(2026, 3, 29, 0, 59, tzinfo=UTC)
    found = times(timing, begin, begin + timedelta(minutes=5))
    assert {after - before for before, after in pairwise(found)} == {timedelta(seconds=10)}

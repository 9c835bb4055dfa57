"""Dates and times from text, beyond the years that libraries know: BC, year 294276, 0000-00-00."""

from __future__ import annotations

import re

from jivs.domain.schema import ArchiveType, Kind

_DATE = r"(?P<sign>-?)(?P<year>\d{4,7})-(?P<month>\d\d)-(?P<day>\d\d)"
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?"
_ZONE = r"(?P<zone>Z|(?P<zs>[+-])(?P<zh>\d\d)(?::?(?P<zm>\d\d))?(?::?(?P<zx>\d\d))?)"
_MOMENT = re.compile(rf"{_DATE}(?:[ T]{_CLOCK})?{_ZONE}?(?P<bc> BC)?", re.ASCII)
_TIME = re.compile(_CLOCK, re.ASCII)
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_YEAR = r"^(\d{3}[1-9]|\d\d[1-9]\d|\d[1-9]\d\d|[1-9]\d{3})"

ORDINARY = {
    Kind.DATE: _YEAR + r"-\d\d-\d\d$",
    Kind.TIME: r"^([01]\d|2[0-3]):[0-5]\d:[0-5]\d([.]\d{1,6})?$",
    Kind.TIMESTAMP: _YEAR + r"-\d\d-\d\d[ T]([01]\d|2[0-3]):[0-5]\d:[0-5]\d([.]\d{1,6})?$",
}
"""Texts that Arrow's own cast reads exactly, if the day exists (RE2 syntax; for timestamps without their zone)."""


def days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, with a year 0 (which is 1 BC).

    Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
    """
    year -= month <= 2
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


_DAY_US = 86_400_000_000

RANGE: dict[str, tuple[int, int]] = {
    "us": (days(-290000, 1, 1) * _DAY_US, days(294247, 1, 1) * _DAY_US),
    "ns": (days(1678, 1, 1) * _DAY_US * 1000, days(2262, 1, 1) * _DAY_US * 1000),
}
"""First timestamp held, and the first beyond: whole years inside 64 bits and inside the range of the engines that read
the files (a timestamp at the end of int64 is infinity to some of them and makes others fail)."""


def parse(text: str, type_: ArchiveType) -> int | None:
    """The count that the archive holds for a date, time or timestamp in ISO form; None if the type cannot hold it.

    Days, microseconds since midnight, or units since 1970-01-01 00:00 (UTC if zoned). What is no existing day or time of
    day, what lies out of range, and the year 0000 (a zero date of MySQL; 1 BC elsewhere is written with BC) gives None:
    the caller keeps it as text.
    """
    if type_.kind is Kind.TIME:
        match = _TIME.fullmatch(text)
        return _clock(match, 6) if match else None
    match = _MOMENT.fullmatch(text)
    if match is None or (match["zone"] is not None) != type_.zoned:
        return None
    year, month, day = int(match["sign"] + match["year"]), int(match["month"]), int(match["day"])
    if match["bc"]:
        year = 1 - year
    elif year == 0:
        return None
    if not 1 <= month <= 12 or not 1 <= day <= _MONTH_DAYS[month - 1] or (month == 2 and day == 29 and not _leap(year)):
        return None
    count = days(year, month, day)
    if type_.kind is Kind.DATE:
        return count if match["hour"] is None and -(2**31) < count < 2**31 else None
    if match["hour"] is None:
        return None
    digits = 9 if type_.unit == "ns" else 6
    unit: int = 10**digits
    clock = _clock(match, digits)
    if clock is None:
        return None
    value: int = (count * 86400 - _zone(match)) * unit + clock
    low, beyond = RANGE[type_.unit]
    return value if low <= value < beyond else None


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _clock(match: re.Match[str], digits: int) -> int | None:
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    fraction = match["fraction"] or ""
    if hour > 23 or minute > 59 or second > 59 or len(fraction.rstrip("0")) > digits:
        return None
    unit: int = 10**digits
    return ((hour * 60 + minute) * 60 + second) * unit + int(fraction[:digits].ljust(digits, "0"))


def _zone(match: re.Match[str]) -> int:
    if match["zs"] is None:
        return 0
    seconds = int(match["zh"]) * 3600 + int(match["zm"] or 0) * 60 + int(match["zx"] or 0)
    return -seconds if match["zs"] == "-" else seconds

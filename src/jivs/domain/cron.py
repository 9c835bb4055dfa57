"""Times of cron on the clocks of a time zone.

Each time that a pattern names happens once: one that the clocks skip at the first moment after the gap, one that they
show twice at the first of the two. The fields are those of Debian's cron (crontab(5)), evaluated by CronSim.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from jivs.domain.schedule import Timing
from jivs.errors import UsageError

_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_NO_ZONES = {"Factory", "localtime", "posixrules"}
"""Files beside the zones that are none."""

_FIELDS = 5
_HINT = "Write minute, hour, day of month, month and day of week, as in 30 2 * * MON-FRI, or @daily."
_ANY_DAY = datetime(2024, 1, 1)  # noqa: DTZ001 - a wall's clock has no zone


def check(timing: Timing) -> None:
    """Raises UsageError for a pattern or a zone that is none, and for a pattern that no day meets."""
    if len(_pattern(timing.cron).split()) != _FIELDS:
        raise UsageError(f"The cron text {timing.cron!r} has not five fields. {_HINT}")
    _zone(timing.time_zone)
    if next(_walls(timing.cron, _ANY_DAY), None) is None:
        raise UsageError(f"The cron text {timing.cron!r} never comes: no such day within 50 years.")
    if timing.not_before and timing.not_after and timing.not_after < timing.not_before:
        raise UsageError("notAfter is before notBefore: no time is left.")


def following(timing: Timing, after: datetime) -> datetime | None:
    """The first time later than ``after``, in UTC; None if there is none. Raises UsageError as ``check`` does."""
    if timing.not_before is not None:
        after = max(after, timing.not_before - timedelta(microseconds=1))
    zone = _zone(timing.time_zone)
    for wall in _walls(timing.cron, after.astimezone(zone).replace(tzinfo=None)):
        moment = _moment(wall, zone)
        if moment > after:
            return moment if timing.not_after is None or moment <= timing.not_after else None
    return None


def local(timing: Timing, moment: datetime) -> datetime:
    """A moment on the clocks of the timing's zone."""
    return moment.astimezone(_zone(timing.time_zone))


def _walls(text: str, after: datetime) -> Iterator[datetime]:
    """What the clock on the wall shows at the times of a pattern, in its order, whether that day it does or not."""
    try:
        yield from CronSim(_pattern(text), after)
    except CronSimError as error:
        raise UsageError(f"The cron text {text!r} is not understood: {str(error).lower()}. {_HINT}") from None
    except (ValueError, AssertionError):
        raise UsageError(f"The cron text {text!r} is not understood. {_HINT}") from None


def _moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the clocks first show this, or, if they skip it, when they go on behind the gap."""
    while True:
        moment = wall.replace(tzinfo=zone).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == wall:
            return moment
        wall = (wall + timedelta(minutes=1)).replace(second=0)


def _pattern(text: str) -> str:
    return _NAMED.get(text.strip().lower(), text)


def _zone(name: str) -> ZoneInfo:
    if name not in _zones():
        raise UsageError(f"There is no time zone {name!r}: write one of the IANA's, as in Europe/Berlin, or UTC.")
    return ZoneInfo(name)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - _NO_ZONES)

"""The hours in which a node may work, as a volunteer writes them: "22:00-07:00" or "mon-fri 18:00-24:00, sat,sun".

Owns that notation. Minutes of a week count from Monday 00:00, local time.
"""

import re

from kinoswarm_protocol.errors import LocalError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_PER_DAY = 24 * 60
MINUTES_PER_WEEK = 7 * MINUTES_PER_DAY
MAX_TEXT = 500

_SPAN = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_DAYS = re.compile(r"(mon|tue|wed|thu|fri|sat|sun)(?:-(mon|tue|wed|thu|fri|sat|sun))?")
_EXAMPLE = 'expected hours such as "22:00-07:00" or "mon-fri 18:00-24:00 sat-sun 00:00-24:00"'

Spans = tuple[tuple[int, int], ...]
"""(first minute, minute after the last) of the week; empty means always."""


def parse_hours(text: str) -> Spans:
    """The spans of `text`, sorted; () for an empty text, which means always. Raises LocalError with an example.

    Days hold for the times after them, until other days are named; a span that ends before it starts crosses
    midnight into the next day.
    """
    if len(text) > MAX_TEXT:
        raise LocalError(f"hours: {len(text)} characters, at most {MAX_TEXT} are read; {_EXAMPLE}")
    days, fresh = list(range(7)), False
    spans: list[tuple[int, int]] = []
    for word in text.lower().replace(",", " ").split():
        if found := _DAYS.fullmatch(word):
            named = _days(found[1], found[2] or found[1])
            days, fresh = (days + named if fresh else named), True
        elif found := _SPAN.fullmatch(word):
            spans += [span for day in days for span in _spans(day, found)]
            fresh = False
        else:
            raise LocalError(f"hours: {word!r} is neither a day nor a span of time; {_EXAMPLE}")
    if fresh:
        spans += [(day * MINUTES_PER_DAY, (day + 1) * MINUTES_PER_DAY) for day in days]
    return tuple(sorted(set(spans)))


def is_open(spans: Spans, minute_of_week: int) -> bool:
    """Whether work is allowed in this minute."""
    return not spans or any(start <= minute_of_week < stop for start, stop in spans)


def minutes_until_open(spans: Spans, minute_of_week: int) -> int:
    """Minutes until the next span begins; 0 while one is open."""
    if is_open(spans, minute_of_week):
        return 0
    return min((start - minute_of_week) % MINUTES_PER_WEEK for start, _ in spans)


def _days(first: str, last: str) -> list[int]:
    start, stop = DAYS.index(first), DAYS.index(last)
    return [(start + step) % 7 for step in range((stop - start) % 7 + 1)]


def _spans(day: int, found: "re.Match[str]") -> list[tuple[int, int]]:
    start, stop = _minute(found[1], found[2]), _minute(found[3], found[4])
    midnight = day * MINUTES_PER_DAY
    if start < stop:
        return [(midnight + start, midnight + stop)]
    tomorrow = (day + 1) % 7 * MINUTES_PER_DAY
    early = [(tomorrow, tomorrow + stop)] if stop else []
    return [(midnight + start, midnight + MINUTES_PER_DAY), *early]


def _minute(hours: str, minutes: str) -> int:
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > MINUTES_PER_DAY:
        raise LocalError(f"hours: {hours}:{minutes} is no time of day; {_EXAMPLE}")
    return minute

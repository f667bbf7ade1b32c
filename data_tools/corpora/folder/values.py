"""The values in the cells of a table of one's own videos: times, sentiments and labels, or why a cell holds none."""

import math
import re

MAX_SENTIMENT = 100

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,4}):(\d{1,2}(?:[.,]\d{1,9})?)", re.ASCII)
_FLAGS = {"true": 1.0, "false": 0.0}


class UnusableError(Exception):
    """A row that gives no utterance: `reason`, a short code, and `detail`, a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def interval(start: str, end: str) -> tuple[float, float]:
    """Start and end in seconds; 0 and infinity, which is the whole file, where both cells are empty.

    Raises:
        UnusableError: `interval:invalid`.
    """
    if not start and not end:
        return 0.0, math.inf
    start_s, end_s = _seconds(start), _seconds(end)
    if start_s is None or end_s is None or not 0 <= start_s < end_s < math.inf:
        raise UnusableError(
            "interval:invalid",
            f"{start[:80]!r} to {end[:80]!r} is not an interval; expected seconds (1.5) or hh:mm:ss.ms, or both empty",
        )
    return start_s, end_s


def _seconds(text: str) -> float | None:
    """Seconds of `1.5`, `1,5`, `02:05.5` or `1:02:05,500`; None for anything else."""
    clock = _CLOCK.fullmatch(text)
    if not clock:
        return _number(text)
    hours, minutes, seconds = int(clock[1] or 0), int(clock[2]), float(clock[3].replace(",", "."))
    if seconds >= 60 or (clock[1] and minutes >= 60):
        return None
    return 3600 * hours + 60 * minutes + seconds


def _number(text: str) -> float | None:
    """A plain number, with a point or a comma before its decimals; None for anything else."""
    return float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else None


def sentiment_of(text: str) -> float | None:
    """A number from -MAX_SENTIMENT to MAX_SENTIMENT; None for an empty cell.

    Raises:
        UnusableError: `labels:unreadable`.
    """
    if not text:
        return None
    value = _number(text)
    if value is None or abs(value) > MAX_SENTIMENT:
        raise UnusableError(
            "labels:unreadable", f"the sentiment {text[:80]!r} is no number from -{MAX_SENTIMENT} to {MAX_SENTIMENT}"
        )
    return value


def share(name: str, cell: str) -> float:
    """Share of the emotion `name`: a number from 0 to 1, or true or false.

    Raises:
        UnusableError: `labels:unreadable`.
    """
    value = _FLAGS.get(cell.lower(), _number(cell))
    if value is None or not 0 <= value <= 1:
        raise UnusableError("labels:unreadable", f"the label {name!r} is {cell[:80]!r}; expected a number from 0 to 1")
    return value


def whole_number(column: str, cell: str) -> int | None:
    """A whole number from 0 on; None for an empty cell.

    Raises:
        UnusableError: `number:invalid`.
    """
    if not cell:
        return None
    if not re.fullmatch(r"\d{1,3}", cell, re.ASCII):
        raise UnusableError("number:invalid", f"{column} is {cell[:80]!r}; expected a whole number from 0 on")
    return int(cell)

"""Words with times, and the ways in which files write a time."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_tools.errors import DataError

# Hours and the decimals may be missing, and the decimals follow a point or a comma.
CLOCK = r"(?:(\d{1,3}):)?(\d{1,3}):(\d{1,2})(?:[.,](\d{1,9}))?"
_ONE_TIME = re.compile(CLOCK, re.ASCII)


@dataclass(frozen=True)
class Cue:
    """Words between two times, in seconds from the begin of the film, as the file states them.

    A text without times is one cue from 0 to infinity. text: one line without tags. speaker: as the file names them,
    or the tier that the words stand in; empty where it says nothing.
    """

    start_s: float
    end_s: float
    text: str
    speaker: str = ""


class OtherFormError(DataError):
    """A file of a kind that can hold words, with none that are understood."""


def clock_seconds(parts: Sequence[str | None]) -> float:
    """Seconds of the groups of CLOCK."""
    hours, minutes, seconds, decimals = (part or "0" for part in parts)
    return 3600 * int(hours) + 60 * int(minutes) + float(f"{seconds}.{decimals}")


def time_s(value: Any, scale: float = 1.0) -> float | None:
    """Seconds of a number times `scale`, or of a text like 1:02.5; None for anything else."""
    if isinstance(value, str) and (clock := _ONE_TIME.fullmatch(value.strip())):
        return clock_seconds(clock.groups())
    try:
        seconds = float(value) * scale
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None

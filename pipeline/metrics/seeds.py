"""One score over several seeds."""

from collections.abc import Sequence
from statistics import fmean, pstdev

SPREAD = "population standard deviation over the seeds"


def mean_and_spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Their mean and population standard deviation, n > 0; both None where one of them is undefined."""
    known = [value for value in values if value is not None]
    return (fmean(known), pstdev(known)) if len(known) == len(values) else (None, None)

"""AUILC, the area under the line of a metric over rates of missing input (EMT, equation 17; TFR-Net)."""

from collections.abc import Mapping

import numpy as np

# The paper's text begins at 0.1, the code that its authors released at 0.0: two numbers that must not be mixed.
FIRST_RATE = {"auilc": 0.1, "auilc_from_zero": 0.0}
DEFINITIONS = {
    "auilc": "area under the line of the metric over missing rates from 0.1 on, as in EMT's text; not normalised",
    "auilc_from_zero": "the same from rate 0.0 on, as in the code released with EMT; not normalised",
}


def auilc(rates: np.ndarray, values: np.ndarray) -> float:
    """The sum of (v_i + v_i+1) / 2 * (p_i+1 - p_i); rates (n,) increasing, n >= 2, values (n,) of the metric.

    Not divided by the width of the rates: a metric that is 1 everywhere has 0.9 over rates 0.1 ... 1.0 and 0.4 over
    CH-SIMS' 0.1 ... 0.5.

    Raises:
        ValueError: fewer than two rates, or they don't increase.
    """
    if len(rates) < 2 or not (np.diff(rates) > 0).all():
        raise ValueError(f"the rates are {list(rates)}; expected at least two, increasing")
    return float(np.trapezoid(np.asarray(values, np.float64), rates))


def named_auilcs(scores: Mapping[float, float | None]) -> dict[str, float | None]:
    """Each variant of `FIRST_RATE` by name. scores: missing rate -> value of the metric, with rates 0.0 and 0.1.

    None where the metric is undefined at one of the variant's rates.

    Raises:
        ValueError: a variant's first rate is not among the rates, or is the only one.
    """
    areas: dict[str, float | None] = {}
    for name, first in FIRST_RATE.items():
        if first not in scores:
            raise ValueError(f"{name} begins at rate {first}, which is none of {', '.join(map(str, sorted(scores)))}")
        rates = sorted(rate for rate in scores if rate >= first)
        values = [scores[rate] for rate in rates]
        known = [value for value in values if value is not None]
        areas[name] = auilc(np.array(rates), np.array(known)) if len(known) == len(rates) else None
    return areas

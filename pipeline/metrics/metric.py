"""The record of a metric, its entry in metrics.json, and its values over seeds and missing rates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Classes = NDArray[np.integer]

NOBODY = "no utterance of this split has it"
EVERYBODY = "every utterance of this split has it"


@dataclass(frozen=True)
class Metric:
    """All that the program knows of one metric; each task has a tuple of them.

    name: in metrics.json, in log.csv and for the setting `monitor`. definition: for a person.
    function: from truth and answers, as the task's module says, to a value an emotion, of which the mean counts, or to
        one value; None where the split cannot tell.
    baseline: the answer that the metric's baseline is the value of, in words.
    report_title: heading of its column on the report's page; empty for none. by_emotion: it has a table by emotion on
        the page of a comparison.
    """

    name: str
    definition: str
    function: Callable[..., Any]
    baseline: str
    lower_is_better: bool = False
    report_title: str = ""
    by_emotion: bool = False


def mean_defined(values: Sequence[float | None]) -> float | None:
    """The mean over those that are defined; None where none is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def entry(
    value: float | None, baseline: float | None, definition: str, baseline_definition: str, utterances: int
) -> dict[str, Any]:
    """One metric for JSON. utterances: how many it counts."""
    return {
        "value": value,
        "baseline": baseline,
        "definition": definition,
        "baseline_definition": baseline_definition,
        "utterances": utterances,
    }


def mean_entry(
    metric: Metric,
    values: Sequence[float | None],
    baselines: Sequence[float | None],
    emotions: Sequence[str],
    positives: Sequence[int],
    utterances: int,
) -> dict[str, Any]:
    """One metric for JSON that is a mean over emotions, with the value of each of them.

    values, baselines: one an emotion; None where the split cannot tell, which gets a reason.
    positives: utterances with the emotion, of `utterances`.
    """
    per_emotion: dict[str, Any] = {}
    for emotion, value, baseline, count in zip(emotions, values, baselines, positives, strict=True):
        per_emotion[emotion] = {"value": value, "baseline": baseline, "positives": count}
        if value is None:
            per_emotion[emotion]["reason"] = EVERYBODY if count else NOBODY
    found = entry(mean_defined(values), mean_defined(baselines), metric.definition, metric.baseline, utterances)
    found["per_emotion"] = per_emotion
    undefined = [emotion for emotion, value in zip(emotions, values, strict=True) if value is None]
    if undefined:
        found["reason"] = (
            f"undefined for {', '.join(undefined)}, the mean is over the {len(values) - len(undefined)} others"
        )
    return found


SPREAD = "population standard deviation over the seeds"


def mean_and_spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Their mean and population standard deviation, n > 0; both None where one of them is undefined."""
    known = [value for value in values if value is not None]
    return (fmean(known), pstdev(known)) if len(known) == len(values) else (None, None)


def over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    """One score of several runs, ready for JSON: mean, spread (both None without a run) and the values."""
    mean, spread = mean_and_spread(values) if values else (None, None)
    return {"mean": mean, "spread": spread, "values": list(values)}


def full_name(report: Mapping[str, Any], protocol: str, name: str) -> str:
    """A metric's name in one list of all: with its protocol before it where the report, by protocol, has several."""
    return f"{protocol}.{name}" if len(report) > 1 else name


def by_full_name(report: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of all protocols of a report by their full names."""
    return {
        full_name(report, protocol, name): entry
        for protocol, entries in report.items()
        for name, entry in entries.items()
    }


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

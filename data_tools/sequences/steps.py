"""The sequence that every kind of extraction gives: values, and when each of them was."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Steps:
    """The steps of one modality of one utterance, in time order.

    values: (N, D) float32, finite. times: (N, 2) float32, start and end of what each step stands for, in seconds from
    the clip's begin; NaN where a step has no time of its own (a piece of a word).
    """

    values: Floats
    times: Floats

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.times.shape != (len(self.values), 2):
            raise ValueError(f"values {self.values.shape} and times {self.times.shape} do not belong together")
        if not np.isfinite(self.values).all():
            raise ValueError("the values of a step are not all finite")

    def __len__(self) -> int:
        return len(self.values)


def untimed(values: Floats) -> Steps:
    """Steps without times. values: (N, D)."""
    return Steps(values, np.full((len(values), 2), np.nan, np.float32))

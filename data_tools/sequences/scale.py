"""Features on one scale: less the mean of the train split, over its deviation; else a cepstrum drowns the rest."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# A feature that hardly changes in the whole train split is left at its own size.
_SMALLEST_DEVIATION = 1e-5


@dataclass(frozen=True)
class FeatureScale:
    """mean, deviation: (D,) float32 by modality letter; an absent letter is left as it is."""

    mean: dict[str, Tensor]
    deviation: dict[str, Tensor]

    @classmethod
    def of(cls, samples: Iterable[Mapping[str, Tensor]]) -> "FeatureScale":
        """Over all steps of all samples; letter -> (N, D) each. A letter without any step gets no scale."""
        counts: dict[str, int] = {}
        sums: dict[str, Tensor] = {}
        squares: dict[str, Tensor] = {}
        for features in samples:
            for letter, values in features.items():
                wide = values.double()
                counts[letter] = counts.get(letter, 0) + len(wide)
                sums[letter] = sums.get(letter, torch.zeros(())) + wide.sum(0)
                squares[letter] = squares.get(letter, torch.zeros(())) + wide.square().sum(0)
        mean = {letter: sums[letter] / count for letter, count in counts.items() if count}
        variance = {letter: squares[letter] / counts[letter] - mean[letter].square() for letter in mean}
        deviation = {letter: value.clamp_min(0).sqrt() for letter, value in variance.items()}
        return cls(
            {letter: value.float() for letter, value in mean.items()},
            {
                letter: torch.where(value > _SMALLEST_DEVIATION, value, 1.0).float()
                for letter, value in deviation.items()
            },
        )

    @classmethod
    def from_lists(cls, values: Mapping[str, Mapping[str, list[float]]]) -> "FeatureScale":
        """The scale that `lists` gave."""
        mean, deviation = (
            {letter: torch.tensor(numbers) for letter, numbers in values[name].items()}
            for name in ("mean", "deviation")
        )
        return cls(mean, deviation)

    def lists(self) -> dict[str, dict[str, list[float]]]:
        """Plain values for JSON; reading them back gives the same numbers."""
        return {
            name: {letter: value.tolist() for letter, value in part.items()}
            for name, part in (("mean", self.mean), ("deviation", self.deviation))
        }

    def __call__(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(N, D) by letter, standardised."""
        return {
            letter: (values - self.mean[letter]) / self.deviation[letter] if letter in self.mean else values
            for letter, values in features.items()
        }

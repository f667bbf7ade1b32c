"""EMT-DLFR (Sun et al. 2023, sections 3.5 and 3.6): EMT that learns from a damaged view what the complete one says.

In training the batch comes damaged, with the complete one beside it (see data_tools/damage.py and `train.damage`).
The scores are those of the damaged view, and two more losses restore what it lacks:

- `reconstruction`, low-level (eq. 11 and 12): a two-layer decoder guesses the input at the missing steps from the
  promoted sequences; smooth L1. The target of text is the encoder's output, not the tokens.
- `attraction`, high-level (eq. 13 to 15): SimSiam between the two views of h of every modality and of g, and the
  task's loss of the complete view's scores.

Eq. 16 weighs them by lambda 1 and 2: `loss_weights: {reconstruction: ..., attraction: ...}`, both 1 for CMU-MOSI and
CMU-MOSEI, 0.5 for CH-SIMS (Table 3). A batch without a complete view is scored by EMT alone, and both losses are 0.
Decoders, projectors and predictors have no part in that: `restoration` holds them, which Table 8 doesn't count.

Where the paper is silent or wrong: eq. 12 takes the square for x < 1, which would count a negative error by its square
however large it is; |x| < 1 is taken, as smooth L1 is defined. What eq. 11 sums over steps and features is a mean over
those that are missing. No gradient flows into the reconstruction's target, else an encoder that is trained along could
make it easy. Every representation has a projector and a predictor of its own, for g is M times as wide as h; their
batch norm is a layer norm (see `SimSiam`). With `frontend: towers` the input that is guessed is what
the towers made of each face and chunk.
"""

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from data_tools.batch import Batch
from models.emt import EMT, EMTConfig
from models.layers.frontends import FeatureFrontend, TowerFrontend
from models.layers.padded import Padded
from models.layers.reconstruction import Decoders
from models.layers.text import TextEncoder
from models.output import Output

# The predictor's hidden layer is this much narrower, as in SimSiam.
_BOTTLENECK = 4


class EMTDLFRConfig(EMTConfig):
    """Settings of EMT-DLFR: EMT's, and how the views are drawn together."""

    attract_by: Literal["simsiam", "cosine"] = Field(
        "simsiam", description="SimSiam, or nothing but the views' cosine similarity (section 5.3.3, Figure 11)"
    )


class EMTDLFR(EMT):
    """`model(batch) -> Output`; see the head of this file."""

    config: EMTDLFRConfig
    frontend: FeatureFrontend | TowerFrontend

    def __init__(self, config: EMTDLFRConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text)
        self.restoration = Restoration(self.sizes, config.size, config.attract_by)

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:
        """Sequences -> scores (B, outputs), and the losses of restoration where the complete view is known."""
        steps, own, fused = self.promoted(sequences)
        scores = self.scores(own, fused)
        if batch.complete is None:
            return Output(scores, losses=dict.fromkeys(("reconstruction", "attraction"), scores.new_zeros(())))
        complete = self.sequences(batch.complete)
        _, own_complete, fused_complete = self.promoted(complete)
        reconstruction = self.restoration.reconstruct(
            {letter: sequence.values for letter, sequence in steps.items()}, complete, self.frontend.missing(batch)
        )
        attraction = self.restoration.attract((own, fused), (own_complete, fused_complete))
        return Output(
            scores,
            losses={"reconstruction": reconstruction, "attraction": attraction},
            also_scored={"attraction": self.scores(own_complete, fused_complete)},
        )

    def parameters_without_gradient(self) -> list[str]:
        """Those of EMT's pooling alone in training with damage: the reconstruction reads what the scores don't."""
        return self._without_a_choice()


class Restoration(nn.Module):
    """The parts of EMT-DLFR that only training needs. sizes: features of a step of the input, by modality letter."""

    def __init__(self, sizes: dict[str, int], size: int, attract_by: str = "simsiam") -> None:
        super().__init__()
        self.size = size
        self.reconstruct = Decoders(dict.fromkeys(sizes, size), sizes)
        kind = SimSiam if attract_by == "simsiam" else Cosine
        self.own = nn.ModuleList(kind(size) for _ in sizes)
        self.fused = kind(size * len(sizes))

    def attract(self, damaged: tuple[Tensor, Tensor], complete: tuple[Tensor, Tensor]) -> Tensor:
        """Eq. 15 without the last term; each view is h of all modalities and g, both (B, M * size)."""
        views = (damaged[0].split(self.size, dim=1), complete[0].split(self.size, dim=1))
        drawn: Tensor = self.fused(damaged[1], complete[1])
        for siamese, one, other in zip(self.own, *views, strict=True):
            drawn = drawn + siamese(one, other)
        return drawn


class SimSiam(nn.Module):
    """Symmetric loss of two views, with one projector p and one predictor q (Sun et al. 2023, eq. 13 and 14).

    Both are two-layer networks. SimSiam's batch norm is a layer norm here: an utterance does not depend on its batch
    mates, and a last batch of one utterance can be trained on.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        narrow = max(_BOTTLENECK, size // _BOTTLENECK)
        self.project = _two_layers(size, size)
        self.predict = _two_layers(size, narrow)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """(B, size) twice -> scalar in [-1, 1], the mean over the utterances."""
        first, second = self.project(one), self.project(other)
        return (self._pull(first, second) + self._pull(second, first)) / 2

    def _pull(self, moved: Tensor, fixed: Tensor) -> Tensor:
        """D(q(p(x)), sg(p(y))): without the stop both views could meet in one constant vector."""
        return -F.cosine_similarity(self.predict(moved).float(), fixed.detach().float(), dim=1).mean()


class Cosine(nn.Module):
    """Negative cosine similarity of two views, with a gradient into both."""

    def __init__(self, size: int) -> None:  # noqa: ARG002
        super().__init__()

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """(B, size) twice -> scalar in [-1, 1], the mean over the utterances."""
        return -F.cosine_similarity(one.float(), other.float(), dim=1).mean()


def _two_layers(size: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, size))

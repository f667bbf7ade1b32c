"""What every model returns."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Output:
    """The answer of a model to one batch.

    logits: (B, E) float32, before the sigmoid.
    losses: further losses by name, each a scalar; the training settings weigh them.
    computed: what was really computed, by name, for reports: e.g. multiply-adds of each part and the active sites
        after each sparse block, plain numbers summed over the batch.
    kept: for explanations, the kept sites by name, e.g. `face.1` -> (F, H, W) bool; only filled on request.
    """

    logits: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    computed: dict[str, float] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)

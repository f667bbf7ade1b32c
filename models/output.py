"""The return value of every model."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Output:
    """The answer of a model to one batch.

    logits: (B, E) float32, before the sigmoid.
    losses: further losses by name, each a scalar; the training settings weigh them.
    computed: the work done for this batch, by name, e.g. `face.macs` or `mel.active.1` (see
        models/layers): 0-dim float64 tensors without gradient, so that nothing waits for a GPU.
    kept: for explanations, the kept sites by name, e.g. `face.1` -> (F, H, W) bool; only filled on request.
    also_scored: logits (B, E) of other views of the batch, by the name of the one of `losses` that the task's loss
        on them, its mean over the views, is added to.
    """

    logits: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    computed: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    also_scored: dict[str, list[Tensor]] = field(default_factory=dict)

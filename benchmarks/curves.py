"""Whether half precision learns as float32 does: loss curves of the same short training beside each other."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.cases import Case, Precision, Run, where
from data_tools.batch import Batch
from pipeline.counting.noise import random_batch
from pipeline.progress import Reporter

STEPS = 40
# Few utterances and a high rate, so that the noise is learnt by heart and the loss falls by far more than it jitters.
_BATCHES, _UTTERANCES, _FACES, _CHUNKS, _TOKENS = 4, 4, 2, 2, 8
_LEARNING_RATE = 3e-4


def curve_rows(
    reporter: Reporter,
    precisions: Sequence[Precision] = ("32-true", "bf16-mixed"),
    steps: int = STEPS,
    device: str = "cpu",
    width: int = 64,
    top_p: Sequence[float | None] = (None, 0.5, 0.7),
) -> list[dict[str, Any]]:
    """Rows of `loss curve`: the losses of all steps, for each model and precision, from one seed; towers only.

    `largest_difference` is that of two losses of the same step, from the first precision's, and `last_difference` the
    difference of the means over the last fifth of the steps. Dropout draws the same numbers in every precision.
    `control_difference`, with half precision, is the last difference of a training in the first precision whose
    weights were rounded to bfloat16 once, at the start: so far apart two trainings come that begin a rounding apart.
    Where sites are selected, one that falls the other way changes what all later ones see.
    """
    batches = [random_batch(_UTTERANCES, _FACES, _CHUNKS, _TOKENS, seed).to(device) for seed in range(_BATCHES)]
    rows = []
    for p in top_p:
        base: list[float] | None = None
        for precision in precisions:
            case = Case("towers only", p, precision, device, width)
            reporter.say(f"bench: loss curve, {case.name}{'' if p is None else f' p {p}'}, {precision}, {steps} steps")
            losses = _losses(case, batches, steps)
            base = losses if base is None else base
            control = {}
            if precision != precisions[0]:
                rounded = _losses(replace(case, precision=precisions[0]), batches, steps, rounded=True)
                control = {"control_difference": round(abs(_end(rounded) - _end(base)), 4)}
            rows.append(
                {
                    "work": "loss curve, towers only",
                    "model": case.name,
                    "top_p": p,
                    "batch": _UTTERANCES,
                    "precision": precision,
                    "first_loss": round(losses[0], 4),
                    "last_loss": round(_end(losses), 4),
                    "largest_difference": round(max(abs(a - b) for a, b in zip(losses, base, strict=True)), 4),
                    "last_difference": round(abs(_end(losses) - _end(base)), 4),
                    "losses": [round(loss, 4) for loss in losses],
                }
                | control
                | where(device)
            )
    return rows


def _losses(case: Case, batches: Sequence[Batch], steps: int, rounded: bool = False) -> list[float]:
    run = Run(case, batches[0], _LEARNING_RATE)
    if rounded:
        with torch.no_grad():
            for weight in run.model.parameters():
                weight.copy_(weight.bfloat16())
    return [float(run.do("training step", batches[step % _BATCHES])) for step in range(steps)]


def _end(losses: Sequence[float]) -> float:
    """The mean over the last fifth."""
    count = max(1, len(losses) // 5)
    return sum(losses[-count:]) / count

"""Multiply-adds and parameters of the fusion models, counted on an input of stated lengths."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data_tools.batch import Batch
from models.cmt import CMT
from models.fusion import FusionModel
from pipeline.counting.published import published, published_lines


def flops_fusion(model: FusionModel, name: str, batch: Batch, described: str) -> dict[str, Any]:
    """Multiply-adds of one utterance by part, and parameters, ready for JSON.

    Counted by torch's own counter on the real forward pass: matrix products and convolutions, those of the attention
    included. `fusion` is the network between the modalities' own parts and the head, as the papers count it.
    `published`: what its paper states of a model with these settings, and how far our count is from it.
    """
    model = model.eval()
    # The counter knows matrix products, and not what the fused kernels of attention and LSTM do on a CPU.
    own = {torch.ops.aten.mkldnn_rnn_layer: _of_lstm}
    counter = FlopCounterMode(display=False, custom_mapping=own)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _layer_by_layer(), counter:
        model(batch)
    counts = {part: sum(found.values()) / 2 for part, found in counter.get_flop_counts().items()}
    parts = {part: _of_part(counts, f"{type(model).__name__}.{part}") for part, _ in model.named_children()}
    total = counts["Global"]
    for encoder in {"text", "speech"} & set(parts):
        parts["frontend"] -= parts[encoder]  # which calls it
    # What a model multiplies outside its parts.
    parts["other"] = total - sum(parts.values())
    settings = model.config.model_dump()
    sizes = {"parameters": _size(model), "fusion_parameters": _size(model.fusion)} | _per_layer(model)
    return {
        "model": name,
        "settings": settings,
        "unit": "multiply-adds",
        "input": described,
        "utterance": {**{part: macs for part, macs in parts.items() if macs}, "total": total},
        **sizes,
        "parameters_by_part": {part: _size(module) for part, module in model.named_children() if _size(module)},
        "published": published(name, settings, {**sizes, "fusion_multiply_adds": parts["fusion"]}),
    }


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _per_layer(model: FusionModel) -> dict[str, int]:
    """Of one layer on one side of CMT, by which its paper states the size: all of them are equal."""
    if not isinstance(model, CMT):
        return {}
    side, *_ = model.fusion.sides.values()
    return {"parameters_per_layer": _size(cast(nn.ModuleList, side)[0])}


@contextmanager
def _layer_by_layer() -> Iterator[None]:
    """Without the one kernel for a whole nn.TransformerEncoderLayer, of which the counter would see nothing."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _of_part(counts: dict[str, float], name: str) -> float:
    """Lists and dictionaries of modules are never called themselves: their members are."""
    return counts.get(name, sum(macs for part, macs in counts.items() if part.rpartition(".")[0] == name))


def _of_lstm(steps: Sequence[int], of_input: Sequence[int], of_state: Sequence[int], *_: Any, **__: Any) -> int:
    """Operations (two a multiply-add) of one layer and direction: shapes of its input and of its two matrices."""
    return 2 * math.prod(steps[:2]) * (math.prod(of_input) + math.prod(of_state))


def format_fusion(summary: dict[str, Any]) -> str:
    """The summary as lines for a person; figures in units of 1e6 (M)."""
    parts = ", ".join(f"{name} {macs / 1e6:.2f}M" for name, macs in summary["utterance"].items() if name != "total")
    by_part = ", ".join(f"{name} {count:,}" for name, count in summary["parameters_by_part"].items())
    return "\n".join(
        [
            f"{summary['model']}: multiply-adds for {summary['input']}",
            f"utterance  {summary['utterance']['total'] / 1e6:.2f}M   {parts}",
            f"parameters {summary['parameters']:,}   {by_part}",
            *_layer_line(summary),
            *published_lines(summary["published"]),
        ]
    )


def _layer_line(summary: dict[str, Any]) -> list[str]:
    if "parameters_per_layer" not in summary:
        return []
    return [f"one layer of one side {summary['parameters_per_layer']:,}"]

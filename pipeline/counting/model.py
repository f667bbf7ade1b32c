"""Multiply-adds of a model by part, counted on an input of stated size or by a run, beside the figures of the paper."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import models
from data_tools.batch import Batch
from models.base import Model
from models.cmt import CMT
from models.fe2e import FE2EConfig
from models.fusion import FusionModel
from pipeline.counting import published as paper
from pipeline.counting.noise import feature_batch, random_batch, with_waveform
from pipeline.counting.published import published, published_lines
from pipeline.run import RunDir

# A mean utterance of IEMOCAP: 4.5 s at two faces a second and 400 ms a chunk, and its words as tokens.
MEAN_FACES, MEAN_CHUNKS, MEAN_TOKENS = 9, 12, 20
MEAN_UTTERANCE_S = 4.5

# The parts of a tower that are counted for every image; the sequence encoder is counted for the utterance.
_PER_IMAGE = ("stem", "stages", "attention", "linear")


def count_model(
    name: str,
    settings: dict[str, Any],
    faces: int = MEAN_FACES,
    chunks: int = MEAN_CHUNKS,
    tokens: int = MEAN_TOKENS,
    seed: int = 0,
    trained: Model | None = None,
) -> dict[str, Any]:
    """Multiply-adds and parameters of one utterance of `faces`, `chunks` and `tokens`, ready for JSON.

    Dense parts are exact. What MESM's sparse parts do depends on which sites its attention keeps: they are counted
    on seeded random faces and mels, with the weights of `trained` or else with new ones. `per_face` and `per_chunk`
    are means over the input. Where backend `auto` takes a dense convolution, a dense one is counted.
    `convolutions`: of the utterance; for a sparse model also `of_fe2e`, their share of FE2E's on the same input.
    For a fusion model see pipeline/counting/model.py.

    Raises:
        ModelError: unknown model or setting, or the text encoder cannot be read.
    """
    torch.manual_seed(seed)
    model = (models.build(name, **settings) if trained is None else trained).eval()
    batch = random_batch(1, faces, chunks, tokens, seed)
    if isinstance(model, FusionModel):
        described = _described(faces, chunks, tokens, {}, "", trained is not None)
        if model.config.frontend == "features":
            batch, described = feature_batch(model.config, seed)
        elif model.config.waveform_encoder is not None:
            batch = with_waveform(batch, MEAN_UTTERANCE_S, seed)
            described = f"one utterance of {MEAN_UTTERANCE_S} s of sound and {tokens} tokens"
        return flops_fusion(model, name, batch, described)
    with torch.no_grad():
        computed = {key: float(value) for key, value in model(batch).computed.items()}
    counted = {part: computed[f"{part}.macs"] for part in ("face", "mel", "text") if f"{part}.macs" in computed}
    shares = {key: value for key, value in computed.items() if ".share." in key}
    config = model.config.model_dump()
    per_face, per_chunk = _per_image(computed, "face", faces), _per_image(computed, "mel", chunks)
    convolutions = {"macs": _convolutions(per_face, faces) + _convolutions(per_chunk, chunks)}
    if "top_p" in config and convolutions["macs"]:
        convolutions["of_fe2e"] = convolutions["macs"] / _dense_convolutions(config, faces, chunks)
    return {
        "model": name,
        "settings": config,
        "unit": "multiply-adds",
        "input": _described(faces, chunks, tokens, shares, config.get("backend", ""), trained is not None),
        "utterance": {**counted, "total": sum(counted.values())},
        "per_face": per_face,
        "per_chunk": per_chunk,
        "convolutions": convolutions,
        "sequence": {part: computed[f"{part}.macs.sequence"] for part in counted if part != "text"},
        "per_token": counted["text"] / tokens if "text" in counted and tokens else 0.0,
        "share_of_sites": shares,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "parameters_by_part": _parameters(model),
        "paper": {
            "flops": {"FE2E": paper.FE2E} | {f"MESM, top_p {top_p}": count for top_p, count in paper.MESM.items()},
            "of_fe2e": {f"top_p {top_p}": paper.of_fe2e(top_p) for top_p in paper.MESM},
            "explanation": list(paper.EXPLANATION),
        },
    }


def count_run(run_dir: Path) -> dict[str, Any]:
    """`count_model` of the model that a run kept, with what the run itself counted under "run".

    "run": as `pipeline.training.log.done_in_training`; a shared model has none.

    Raises:
        ConfigError: not a run, or no epoch of it is finished.
        ModelError: its model cannot be read.
    """
    # Brings TensorBoard, which counting a new model doesn't need.
    from pipeline.training.log import done_in_training

    run = RunDir.existing(run_dir)
    done = {} if run.is_shared else {"run": done_in_training(run)}
    model = models.load(run.path)
    (name,) = (name for name, (_, kind) in models.REGISTRY.items() if type(model) is kind)
    return count_model(name, {}, trained=model) | done


def multiply_adds(model: Model, batch: Batch) -> float:
    """Those of one forward pass over `batch`, pretrained encoders that the model has included."""
    if isinstance(model, FusionModel):
        return float(flops_fusion(model, "", batch, "")["utterance"]["total"])
    with torch.no_grad():
        computed = model.eval()(batch).computed
    return sum(float(computed[f"{part}.macs"]) for part in ("face", "mel", "text") if f"{part}.macs" in computed)


def _described(faces: int, chunks: int, tokens: int, shares: dict[str, float], backend: str, trained: bool) -> str:
    text = f"one utterance of {faces} faces, {chunks} chunks and {tokens} tokens"
    if (faces, chunks, tokens) == (MEAN_FACES, MEAN_CHUNKS, MEAN_TOKENS):
        text += f" (a mean utterance of IEMOCAP, {MEAN_UTTERANCE_S} s)"
    if any(share < 1 for share in shares.values()):
        weights = "trained" if trained else "untrained"
        text += f"; sparse parts counted as done by backend {backend!r} on seeded random input with {weights} attention"
    return text


def _per_image(computed: dict[str, float], part: str, images: int) -> dict[str, float]:
    if f"{part}.macs" not in computed or not images:
        return {}
    means = {name: computed[f"{part}.macs.{name}"] / images for name in _PER_IMAGE}
    return {**means, "convolutions": means["stem"] + means["stages"], "total": sum(means.values())}


def _convolutions(per_image: dict[str, float], images: int) -> float:
    return images * per_image.get("convolutions", 0.0)


def _dense_convolutions(config: dict[str, Any], faces: int, chunks: int) -> float:
    """Of FE2E's towers, with the sizes in `config`, on the same input: so many times those of one image."""
    towers = "".join(letter for letter in config["modalities"] if letter in "av")
    same = {key: value for key, value in config.items() if key in FE2EConfig.model_fields}
    one = count_model("fe2e", same | {"modalities": towers}, faces=1, chunks=1)
    return _convolutions(one["per_face"], faces) + _convolutions(one["per_chunk"], chunks)


def _parameters(model: Model) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        kind, part = name.split(".")[:2] if "." in name else (name, "")
        key = part if kind in ("towers", "sequences", "heads") else kind
        counts[key] = counts.get(key, 0) + parameter.numel()
    return counts


def format_model(summary: dict[str, Any]) -> str:
    """The summary as lines for a person; figures in units of 1e6 (M) and 1e9 (G)."""
    if "fusion_parameters" in summary:
        return format_fusion(summary)
    settings = summary["settings"]
    title = summary["model"] + (f", top_p {settings['top_p']}" if "top_p" in settings else "")
    lines = [f"{title}: multiply-adds for {summary['input']}", ""]
    for label, key in (("one face", "per_face"), ("one chunk", "per_chunk")):
        parts = summary[key]
        if parts:
            detail = ", ".join(f"{name} {parts[name] / 1e6:.2f}M" for name in _PER_IMAGE if parts[name])
            lines.append(f"{label:<10} {parts['total'] / 1e6:>9.2f}M   {detail}")
    if summary["per_token"]:
        lines.append(f"{'one token':<10} {summary['per_token'] / 1e6:>9.2f}M")
    parts = ", ".join(f"{name} {value / 1e9:.3f}G" for name, value in summary["utterance"].items() if name != "total")
    lines.append(f"{'utterance':<10} {summary['utterance']['total'] / 1e9:>9.3f}G   {parts}")
    lines += _sites_line(summary["share_of_sites"])
    convolutions = summary["convolutions"]
    if "of_fe2e" in convolutions:
        ratios = ", ".join(f"{ratio:.2f} at {name}" for name, ratio in summary["paper"]["of_fe2e"].items())
        lines.append(
            f"convolutions {convolutions['macs'] / 1e9:.3f}G, {convolutions['of_fe2e']:.2f} of FE2E's on this input "
            f"(the paper's totals: {ratios})"
        )
    if "run" in summary:
        lines += ["", *_run_lines(summary["run"])]
    by_part = ", ".join(f"{name} {count:,}" for name, count in summary["parameters_by_part"].items())
    lines += ["", f"parameters {summary['parameters']:,}   {by_part}", ""]
    published = ", ".join(f"{name} {value / 1e9:.2f}G" for name, value in summary["paper"]["flops"].items())
    return "\n".join([*lines, f"paper: {published}", *summary["paper"]["explanation"]])


def _sites_line(shares: dict[str, float]) -> list[str]:
    if not any(share < 1 for share in shares.values()):
        return []
    listed = ", ".join(f"{key.replace('.share', '')} {share:.0%}" for key, share in shares.items())
    return [f"sites computed: {listed}"]


def _run_lines(run: dict[str, Any]) -> list[str]:
    done = run["per_utterance"]
    parts = ", ".join(f"{name} {value / 1e9:.3f}G" for name, value in done.items() if name != "total")
    title = f"{run['folder']}, training pass of epoch {run['epoch']}, a mean utterance of its own data, forward:"
    return [title, f"{'utterance':<10} {done['total'] / 1e9:>9.3f}G   {parts}", *_sites_line(run["share_of_sites"])]


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
    if not isinstance(model, CMT) or not model.config.depth:
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

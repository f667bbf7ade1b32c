"""Multiply-adds of a model by part, counted on an input of stated size, beside the figures of the paper."""

from typing import Any

import torch

import models
from data_tools.batch import Batch
from models.base import Model

# A mean utterance of IEMOCAP: 4.5 s at two faces a second and 400 ms a chunk, and its words as tokens.
MEAN_FACES, MEAN_CHUNKS, MEAN_TOKENS = 9, 12, 20
MEAN_UTTERANCE_S = 4.5

# Dai et al. 2021, Tables 3 and 4: FLOPs x 1e9 for one sample, by model and top_p.
PAPER = {"FE2E": 8.65e9, "MESM, top_p 0.7": 5.18e9, "MESM, top_p 0.5": 4.34e9}
PAPER_NOTE = (
    "The paper's figures are for a sample of unstated size and do not agree with these: no whole number of faces and "
    "chunks gives 8.65e9 with the towers that it describes (4 faces and 8 chunks come to 8.649e9 only if bias, batch "
    "norm and ReLU are counted for every output)."
)

# The parts of a tower that are counted for every image; the sequence encoder is counted for the utterance.
_PER_IMAGE = ("stem", "stages", "attention", "linear")


def flops(
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

    Raises:
        ModelError: unknown model or setting, or the text encoder cannot be read.
    """
    torch.manual_seed(seed)
    model = (models.build(name, **settings) if trained is None else trained).eval()
    batch = random_batch(1, faces, chunks, tokens, seed)
    with torch.no_grad():
        computed = {key: float(value) for key, value in model(batch).computed.items()}
    counted = {part: computed[f"{part}.macs"] for part in ("face", "mel", "text") if f"{part}.macs" in computed}
    shares = {key: value for key, value in computed.items() if ".share." in key}
    config = model.config.model_dump()
    return {
        "model": name,
        "settings": config,
        "unit": "multiply-adds",
        "input": _described(faces, chunks, tokens, shares, config.get("backend", ""), trained is not None),
        "utterance": {**counted, "total": sum(counted.values())},
        "per_face": _per_image(computed, "face", faces),
        "per_chunk": _per_image(computed, "mel", chunks),
        "sequence": {part: computed[f"{part}.macs.sequence"] for part in counted if part != "text"},
        "per_token": counted["text"] / tokens if "text" in counted and tokens else 0.0,
        "share_of_sites": shares,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "parameters_by_part": _parameters(model),
        "paper": {"flops": PAPER, "note": PAPER_NOTE},
    }


def random_batch(utterances: int, faces: int, chunks: int, tokens: int, seed: int = 0) -> Batch:
    """Seeded noise of stated size: `faces`, `chunks` and `tokens` are of each utterance. Six labels."""
    generator = torch.Generator().manual_seed(seed)
    n_faces, n_chunks = utterances * faces, utterances * chunks
    return Batch(
        faces=torch.randint(0, 256, (n_faces, 3, 48, 48), dtype=torch.uint8, generator=generator),
        face_counts=torch.full((utterances,), faces),
        chunks=torch.randn(n_chunks, 1, 128, 32, generator=generator),
        chunk_counts=torch.full((utterances,), chunks),
        # Ids that every encoder has: the smallest vocabulary here is far above 1,000.
        tokens=torch.randint(3, 1000, (utterances, tokens), generator=generator),
        token_mask=torch.ones(utterances, tokens, dtype=torch.bool),
        labels=torch.randint(0, 2, (utterances, 6), generator=generator).float(),
        sentiment=torch.zeros(utterances),
        ids=tuple(f"random{i}" for i in range(utterances)),
    )


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


def _parameters(model: Model) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        kind, part = name.split(".")[:2] if "." in name else (name, "")
        key = part if kind in ("towers", "sequences", "heads") else kind
        counts[key] = counts.get(key, 0) + parameter.numel()
    return counts


def format_flops(summary: dict[str, Any]) -> str:
    """The summary as lines for a person; figures in units of 1e6 (M) and 1e9 (G)."""
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
    if any(share < 1 for share in summary["share_of_sites"].values()):
        shares = ", ".join(f"{key.replace('.share', '')} {v:.0%}" for key, v in summary["share_of_sites"].items())
        lines.append(f"sites computed: {shares}")
    by_part = ", ".join(f"{name} {count:,}" for name, count in summary["parameters_by_part"].items())
    lines += ["", f"parameters {summary['parameters']:,}   {by_part}", ""]
    paper = ", ".join(f"{name} {value / 1e9:.2f}G" for name, value in summary["paper"]["flops"].items())
    return "\n".join([*lines, f"paper: {paper}. {summary['paper']['note']}"])

"""Search for the samples and the ways to count that give the figures of Dai et al. 2021.

`pipeline.counting.published` has the figures and says in plain sentences what is found here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

import models
from models.layers.vgg import DenseConv2d, DenseMap
from pipeline.counting.noise import random_batch
from pipeline.counting.published import CODE_OF_FE2E, FE2E, of_fe2e

# The tables have two decimals of 1e9.
_HALF_A_DECIMAL = 0.005e9

# Operations for one output of a convolution, besides its multiply-adds: bias 1, batch norm 2 (scale, shift), ReLU 1.
OPERATIONS_OF_AN_OUTPUT = 4


@dataclass(frozen=True)
class ImageCount:
    """Counts of one image in a tower of FE2E: multiply-adds, and the numbers that its convolutions put out."""

    convolutions: float
    linear: float
    outputs: int


@lru_cache(maxsize=1)
def image_counts() -> tuple[ImageCount, ImageCount]:
    """Counts of a face and of a chunk in FE2E with the paper's sizes, from a forward pass."""
    model = models.build("fe2e", modalities="av").eval()
    batch = random_batch(1, faces=1, chunks=1, tokens=1)
    return (
        _counted(model.get_submodule("towers.face"), batch.faces),
        _counted(model.get_submodule("towers.mel"), batch.chunks),
    )


def _counted(tower: nn.Module, images: Tensor) -> ImageCount:
    outputs = 0

    def add(_: nn.Module, __: tuple[Any, ...], found: DenseMap) -> None:
        nonlocal outputs
        outputs += found.features.numel()

    for module in tower.modules():
        if isinstance(module, DenseConv2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        macs = tower(images, None).macs
    return ImageCount(float(macs["stem"] + macs["stages"]), float(macs["linear"]), outputs)


def sizes_that_give(published: float, per_face: float, per_chunk: float) -> list[tuple[int, int, float]]:
    """Every (faces, chunks, count) whose count is `published` to the paper's two decimals, best first."""
    most_faces, most_chunks = int(published // per_face) + 1, int(published // per_chunk) + 1
    counts = [
        (faces, chunks, faces * per_face + chunks * per_chunk)
        for faces in range(most_faces + 1)
        for chunks in range(most_chunks + 1)
    ]
    close = [found for found in counts if abs(found[2] - published) <= _HALF_A_DECIMAL]
    return sorted(close, key=lambda found: abs(found[2] - published))


def ways_to_count() -> dict[str, list[tuple[int, int, float]]]:
    """Way to count -> the samples (faces, chunks, count) for which FE2E then has the paper's figure; none for most."""
    images = image_counts()

    def per_image(operations: float, linear: bool, of_output: int) -> Iterable[float]:
        return (operations * (i.convolutions + linear * i.linear) + of_output * i.outputs for i in images)

    every = OPERATIONS_OF_AN_OUTPUT
    ways = {
        "convolutions": per_image(1, False, 0),
        "convolutions and linear layers": per_image(1, True, 0),
        "convolutions with two operations a multiply-add": per_image(2, False, 0),
        "convolutions and linear layers with two operations a multiply-add": per_image(2, True, 0),
        "convolutions with bias, batch norm and ReLU for every output": per_image(1, False, every),
        "convolutions and linear layers with bias, batch norm and ReLU": per_image(1, True, every),
        "convolutions with bias, batch norm and ReLU, and two operations a multiply-add": per_image(2, False, every),
    }
    return {way: sizes_that_give(FE2E, *counts) for way, counts in ways.items()}


def explanation() -> list[str]:
    """Sentences that say what can explain the paper's figures and what cannot, from the search."""
    face, chunk = image_counts()
    ways = ways_to_count()
    without = [way for way, samples in ways.items() if not samples]
    mean = 10 * face.convolutions + 12 * chunk.convolutions
    lines = [
        "The paper's figures do not agree with these counts, and it does not say of which sample they are.",
        f"Ten faces and 12 chunks, an average utterance of IEMOCAP, are {mean / 1e9:.2f}G by convolutions. "
        f"No whole number of faces and chunks gives {FE2E / 1e9:.2f}G, if this is counted: " + "; ".join(without) + ".",
    ]
    for way, samples in ways.items():
        if samples:
            shown = ", ".join(f"{faces} and {chunks} ({count / 1e9:.3f}G)" for faces, chunks, count in samples)
            lines.append(f"What gives it: {way}, of so many faces and chunks: {shown}.")
    ratios = "; ".join(
        f"top_p {top_p}: {of_fe2e(top_p):.2f} in the paper, {code:.2f} in the code"
        for top_p, code in CODE_OF_FE2E.items()
    )
    added = OPERATIONS_OF_AN_OUTPUT * face.outputs / face.convolutions
    lines.append(
        "Nor is its saving that of the sites really active: counted from them on the authors' released code, the share "
        f"of FE2E is lower than the paper's ({ratios}). Counting bias, batch norm and ReLU too does not explain that: "
        f"for a face they are {added:.1%} of the multiply-adds."
    )
    return lines

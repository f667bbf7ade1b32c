"""A model as the benchmarks time it: how it is built, and one forward or one training step of it."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import models
from data_tools.batch import Batch
from models.base import Model
from models.layers.text import TextEncoder
from models.layers.tokenizers import HashTokenizer
from models.layers.tower import Tower, TowerResult
from pipeline.training.device import keep_freed_memory

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
# compile: torch.compile of the whole model. cuda graph: the towers, whose work has one size, replayed as one launch.
Mode = Literal["eager", "compile", "cuda graph"]
LEARNING_RATE = 5e-5
# Where only the towers are timed, the text encoder is left out.
SCOPES = {"towers only": "va", "whole model": "tav"}
WORKS = ("forward", "training step")
# The text encoder of the papers, as Hugging Face's albert-base-v2 states its sizes; the weights are random here.
ALBERT_BASE: dict[str, Any] = {
    "embedding_size": 128,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Case:
    """One model with its settings. top_p: None is FE2E. backend: of sparse convolutions. width: 64 is the paper's."""

    scope: str
    top_p: float | None
    precision: Precision = "32-true"
    device: str = "cpu"
    width: int = 64
    backend: str = "auto"
    mode: Mode = "eager"

    @property
    def name(self) -> str:
        """The model's name, fe2e or mesm."""
        return "fe2e" if self.top_p is None else "mesm"

    def build(self) -> Model:
        """Build the model with fixed random weights, on its device, in training mode."""
        torch.manual_seed(0)
        settings: dict[str, Any] = {"modalities": SCOPES[self.scope], "width": self.width}
        sparse = {} if self.top_p is None else {"top_p": self.top_p, "backend": self.backend}
        config = models.config_of(self.name, settings | sparse)
        text = albert_base() if "t" in config.modalities else None
        return models.REGISTRY[self.name][1](config, text).to(self.device)


def albert_base() -> TextEncoder:
    """Text encoder of albert-base-v2's sizes with random weights and a hashed vocabulary."""
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(**ALBERT_BASE)
    return TextEncoder(AlbertModel(config), HashTokenizer(config.vocab_size, config.max_position_embeddings))


class Run:
    """A model with its optimizer, ready for work on batches of the size of `inputs`."""

    def __init__(self, case: Case, inputs: Batch, learning_rate: float = LEARNING_RATE) -> None:
        self.case = case
        self.inputs = inputs
        self.kind = torch.device(case.device).type
        if self.kind == "cpu":
            keep_freed_memory()  # as training does
        self.model = case.build()
        fused = case.precision != "16-mixed"  # as training does
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=learning_rate, fused=fused)
        self.scaler = torch.amp.GradScaler(self.kind, enabled=case.precision == "16-mixed")
        self.call: Any = self.model
        if case.mode == "compile":
            self.call = torch.compile(self.model)
        elif case.mode == "cuda graph":
            self._capture_towers()

    def do(self, work: str, inputs: Batch | None = None) -> Tensor:
        """Start one forward or one training step and return its loss; on CUDA it may be running still."""
        self.model.train(work != "forward")
        inputs = self.inputs if inputs is None else inputs
        if work == "forward":
            with torch.no_grad():
                return self._loss(inputs)
        loss = self._loss(inputs)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def wait(self) -> None:
        """Return when all that was started is finished."""
        if self.kind == "cuda":
            torch.cuda.synchronize()

    def autocast(self) -> torch.autocast:
        """Context in which the model computes in the case's precision."""
        dtype = _HALF.get(self.case.precision)
        # Weights that a graph reads may not come from a cache of casts, which lies outside of it.
        cached = self.case.mode != "cuda graph"
        return torch.autocast(self.kind, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=cached)

    def _loss(self, inputs: Batch) -> Tensor:
        with self.autocast():
            logits = self.call(inputs).logits
        return F.binary_cross_entropy_with_logits(logits.float(), inputs.labels)

    def _capture_towers(self) -> None:
        images = {"face": self.inputs.faces, "mel": self.inputs.chunks}
        towers: Any = self.model.towers
        for name, tower in list(towers.items()):
            with self.autocast():
                graphed: Any = torch.cuda.make_graphed_callables(TowerFeatures(tower), (images[name],))
            towers[name] = GraphedTower(graphed)


class TowerFeatures(nn.Module):
    """A dense tower that returns its features alone, as a captured graph has to."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images: Tensor) -> Tensor:
        """Features (I, D) of images (I, C, H, W)."""
        features: Tensor = self.tower(images, None).features
        return features


class GraphedTower(nn.Module):
    """The captured graph of a tower in its place; it counts nothing."""

    def __init__(self, graphed: nn.Module) -> None:
        super().__init__()
        self.graphed = graphed

    def forward(self, images: Tensor, query: Tensor | None) -> TowerResult:  # noqa: ARG002
        """Features as `Tower.forward` gives them, without counts and stages."""
        return TowerResult(self.graphed(images), {}, ())


def device_name(device: str) -> str:
    """Name of the GPU, or of a CPU its instruction set and torch's threads."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    return f"CPU {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"

"""How fast the models are, side by side: FE2E and MESM in turn in one process, so that their ratios hold."""

import statistics
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import torch
from torch.nn import functional as F

import models
from data_tools.batch import Batch
from models.base import Model
from models.layers.text import TextEncoder
from models.layers.tokenizers import HashTokenizer
from pipeline.bench.peak_memory import with_peak
from pipeline.flops.noise import random_batch
from pipeline.progress import Reporter

Precision = Literal["32-true", "bf16-mixed"]
TOP_P = (0.5, 0.7, 0.9)
LEARNING_RATE = 5e-5
# Where only the towers are timed, the text encoder is left out.
SCOPES = {"towers only": "va", "whole model": "tav"}
# The text encoder of the papers, as Hugging Face's albert-base-v2 states its sizes; the weights are random here.
ALBERT_BASE: dict[str, Any] = {
    "embedding_size": 128,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
WORKS = ("forward", "training step")


@dataclass(frozen=True)
class _Case:
    """One model as it is timed; `top_p` None is FE2E."""

    scope: str
    top_p: float | None
    precision: Precision
    device: str
    width: int

    def build(self) -> Model:
        torch.manual_seed(0)
        settings: dict[str, Any] = {"modalities": SCOPES[self.scope], "width": self.width}
        sparse = {} if self.top_p is None else {"top_p": self.top_p}
        config = models.config_of(self.name, settings | sparse)
        text = _albert_base() if "t" in config.modalities else None
        return models.REGISTRY[self.name][1](config, text).to(self.device)

    @property
    def name(self) -> str:
        return "fe2e" if self.top_p is None else "mesm"


def _albert_base() -> TextEncoder:
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(**ALBERT_BASE)
    return TextEncoder(AlbertModel(config), HashTokenizer(config.vocab_size, config.max_position_embeddings))


def bench_models(
    reporter: Reporter,
    batch: int = 8,
    faces: int = 72,
    chunks: int = 96,
    tokens: int = 50,
    top_p: tuple[float, ...] = TOP_P,
    repeats: int = 5,
    precision: Precision = "32-true",
    device: str = "cpu",
    scopes: tuple[str, ...] = tuple(SCOPES),
    width: int = 64,
) -> list[dict[str, Any]]:
    """Rows for docs/benchmarks: FE2E and MESM at each `top_p`, forward and training step, towers only and whole model.

    faces, chunks: of the whole batch, the same number for each utterance. tokens: of each text. The input is seeded
    noise and the weights are new, so the attention keeps about as many sites as at the start of a training.
    A forward is in evaluation mode, without gradients. A training step is forward, loss, backward and Adam.
    `median_s` and `min_s` are over `repeats`, after one that isn't timed; `ratio_to_fe2e` is of medians.
    The whole model has a text encoder of albert-base-v2's sizes with random weights. scopes: keys of SCOPES.
    width: of the models, 64 is the paper's.
    `peak_bytes` is the most memory that a fresh process held resident while it took three training steps, the
    interpreter and torch included; on CUDA it is the most that torch had allocated on the device.
    """
    inputs = random_batch(batch, faces // batch, chunks // batch, tokens).to(device)
    rows = []
    for scope in scopes:
        cases = [_Case(scope, p, precision, device, width) for p in (None, *top_p)]
        peaks = {case: _peak_in_fresh_process(case, inputs) for case in cases}
        for work in WORKS:
            reporter.say(f"bench: {work}, {scope}, {repeats} times")
            times = _times(cases, inputs, work, repeats)
            base = statistics.median(times[cases[0]])
            rows += [_row(case, work, batch, times[case], base, peaks[case]) for case in cases]
    return rows


def _times(cases: list[_Case], inputs: Batch, work: str, repeats: int) -> dict[_Case, list[float]]:
    """Seconds of `work`, the cases in turn, so that a busy moment of the machine hits them all."""
    runs = {case: _Run(case, inputs) for case in cases}
    times: dict[_Case, list[float]] = {case: [] for case in cases}
    for turn in range(repeats + 1):
        for case, run in runs.items():
            started = time.perf_counter()
            run.do(work)
            if turn > 0:
                times[case].append(time.perf_counter() - started)
    return times


class _Run:
    """A model with its optimizer and its input."""

    def __init__(self, case: _Case, inputs: Batch) -> None:
        self.case = case
        self.inputs = inputs
        self.model = case.build()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)

    def do(self, work: str) -> None:
        """One forward or one training step, finished when this returns."""
        self.model.train(work != "forward")
        if work == "forward":
            with torch.no_grad():
                self._loss()
        else:
            loss = self._loss()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        if self.case.device != "cpu":
            torch.cuda.synchronize()

    def _loss(self) -> torch.Tensor:
        mixed = self.case.precision == "bf16-mixed"
        with torch.autocast(torch.device(self.case.device).type, torch.bfloat16, enabled=mixed):
            return F.binary_cross_entropy_with_logits(self.model(self.inputs).logits, self.inputs.labels)


def _peak_in_fresh_process(case: _Case, inputs: Batch) -> int:
    on_device, resident = with_peak(_three_steps, case, inputs.to("cpu"), torch.get_num_threads())
    return resident if case.device == "cpu" else on_device


def _three_steps(case: _Case, inputs: Batch, threads: int) -> int:
    """The most bytes of the device's memory that they took; 0 on a CPU."""
    torch.set_num_threads(threads)
    run = _Run(case, inputs.to(case.device))
    for _ in range(3):
        run.do("training step")
    return 0 if case.device == "cpu" else torch.cuda.max_memory_allocated()


def _row(case: _Case, work: str, batch: int, times: list[float], base: float, peak: int) -> dict[str, Any]:
    median = statistics.median(times)
    return {
        "work": f"{work}, {case.scope}",
        "model": case.name,
        "top_p": case.top_p,
        "batch": batch,
        "precision": case.precision,
        "backend": "dense" if case.top_p is None else "auto",
        "median_s": round(median, 4),
        "min_s": round(min(times), 4),
        "ratio_to_fe2e": round(median / base, 3),
        "peak_bytes": peak if work == "training step" else None,
        "device": _device(case.device),
        "versions": {"torch": torch.__version__, "python": sys.version.split()[0]},
        "date": datetime.now(UTC).date().isoformat(),
    }


def _device(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name()
    return f"CPU {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"

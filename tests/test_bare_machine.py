"""Models and training on batches in memory, on a machine with torch, pydantic, numpy and safetensors alone."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# A process of its own that finds nothing but Python, this project, these four packages and what they need themselves.
PROGRAM = """
import sys
from importlib.metadata import packages_distributions

NEEDED = {"torch", "pydantic", "numpy", "safetensors"}
OF_THESE = {"annotated_types", "filelock", "fsspec", "functorch", "jinja2", "markupsafe", "mpmath", "networkx"}
OF_THESE |= {"packaging", "pydantic_core", "setuptools", "sympy", "torchgen", "triton", "typing_extensions"}
OF_THESE |= {"typing_inspection", "nvidia", "cuda"}
OWN = {"models", "data_tools", "pipeline"}
for name in set(packages_distributions()) - NEEDED - OF_THESE - OWN - set(sys.stdlib_module_names):
    if name.isidentifier() and not name.startswith("_"):
        sys.modules[name] = None  # importing it fails

from contextlib import nullcontext

import torch

import models
from data_tools.batch import Batch
from pipeline.progress import Reporter
from pipeline.training.losses import Loss
from pipeline.training.loop import Update, run_epoch

model = models.build("mesm", modalities="va", width=4, layers=1)


class Trainer:
    device = torch.device("cpu")

    def __init__(self, model):
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters())

    def __call__(self, batch):
        return self.model(batch)

    def without_exchange(self, enabled=True):
        return nullcontext()

    def backward(self, loss):
        loss.backward()

    def step(self, clip_norm):
        self.optimizer.step()
        self.optimizer.zero_grad()


def objective(output, batch):
    found = torch.nn.functional.binary_cross_entropy_with_logits(output.logits, batch.labels)
    return Loss(found, {})


batch = Batch(
    faces=torch.zeros(3, 3, 48, 48, dtype=torch.uint8), face_counts=torch.tensor([2, 1]),
    chunks=torch.zeros(2, 1, 128, 32), chunk_counts=torch.tensor([0, 2]),
    tokens=torch.zeros(2, 1, dtype=torch.int64), token_mask=torch.zeros(2, 1, dtype=torch.bool),
    labels=torch.ones(2, 6), sentiment=torch.zeros(2), ids=("a", "b"),
)
found = run_epoch(Trainer(model), [batch, batch], objective, Reporter(quiet=True), "train", Update(1.0))
assert found.steps == 2 and found.loss > 0
models.save(model, sys.argv[1])
assert torch.equal(models.load(sys.argv[1])(batch).logits, model.eval()(batch).logits)
"""


def test_models_train_on_batches_in_memory_and_are_saved_and_read(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "model")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]

"""Gradient of the training loss that reaches the attention of a MESM."""

from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

import models
from benchmarks.selection.sites import load_mesm
from models.base import Model
from pipeline.run import RunDir
from pipeline.training.batches import ordered_loader
from pipeline.training.data import load_unseen
from pipeline.training.device import seed_everything
from pipeline.training.scoring import task_objective, task_of_run

# Of train, in its order.
BATCHES = 8
# Eq. 1 and 2; the head that chooses p has a loss of its own.
_PARTS = (".attention.of_map.", ".attention.of_query.", ".attention.score.")


def gradient_norms(run: RunDir) -> dict[str, Any]:
    """Norms of the gradient that reaches the attention, with the weights at the start and with the best ones.

    Returns `gradient` -> `start` (the weights that the run's seed draws) and `best` -> two numbers.
    `norm`: the Euclidean norm of the training loss' gradient over all parameters of eq. 1 and 2 in all stages and
    towers, the median over the first `BATCHES` batches of train in the manifest's order, in training mode; 0 where none
    arrives. `share`: that norm over the norm of the towers' whole gradient, the median too.
    """
    best = load_mesm(run)
    settings = run.read_settings()[0]
    seed_everything(settings.seed)
    start = models.build("mesm", **best.config.model_dump())
    return {"gradient": {"start": _norms(run, start), "best": _norms(run, best)}}


def _norms(run: RunDir, model: Model) -> dict[str, float]:
    settings = run.read_settings()[0]
    dataset = load_unseen(run, Path(run.facts().folder), "train")
    loader = ordered_loader(dataset, settings.batch_size, models.tokenizer_for(model))
    objective = task_objective(task_of_run(run), torch.device("cpu"), settings.loss_weights)
    seed_everything(settings.seed)
    norms, shares = [], []
    model.train()
    for batch in islice(loader, BATCHES):
        model.zero_grad(set_to_none=True)
        objective(model(batch), batch).total.backward()
        of_attention, of_towers = _norm(model, _PARTS), _norm(model, ("towers.",))
        norms.append(of_attention)
        shares.append(of_attention / of_towers if of_towers else 0.0)
    return {"norm": median(norms), "share": median(shares)}


def _norm(model: Model, parts: tuple[str, ...]) -> float:
    """Norm of the gradient over all parameters whose name has one of `parts` in it."""
    squares = [
        parameter.grad.double().square().sum().item()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and any(part in name for part in parts)
    ]
    return sum(squares) ** 0.5

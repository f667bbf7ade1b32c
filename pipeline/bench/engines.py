"""Which engine each sparse convolution of a model really used."""

from typing import Any

from torch import Tensor

from models.layers.sparse.backends import resolve_backend
from models.layers.sparse.precision import compute_dtype
from models.layers.sparse.submanifold import SubmanifoldConv2d
from pipeline.bench.cases import Run


def engines_used(run: Run, work: str) -> str:
    """The engines of one more forward or training step, e.g. `dense, torch`; `dense` for one without sparse maps.

    What `auto` takes is a rule, so this asks it again.
    """
    used: set[str] = set()

    def note(layer: SubmanifoldConv2d, args: tuple[Any, ...]) -> None:
        rows: Tensor = args[0].features
        used.add(resolve_backend(layer.backend, rows.to(compute_dtype(rows)), args[0].sites))

    layers = [layer for layer in run.model.modules() if isinstance(layer, SubmanifoldConv2d)]
    if not layers:
        return "dense"
    if run.case.mode != "eager":  # a hook would be compiled into it
        return run.case.backend
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        run.do(work)
    finally:
        for hook in hooks:
            hook.remove()
    return ", ".join(sorted(used))

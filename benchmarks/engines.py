"""Which engine each sparse convolution of a model really used."""

from typing import Any

from torch import Tensor

from benchmarks.cases import Run
from models.layers.sparse.backends import engine_for
from models.layers.sparse.precision import computed_in
from models.layers.sparse.submanifold import SubmanifoldConv2d


def engines_used(run: Run, work: str) -> str:
    """The engines of one more forward or training step, e.g. `dense, torch`; `dense` for one without sparse maps.

    What `auto` takes is measured where it meets its sizes for the first time, and kept; so this asks it again.
    """
    used: set[str] = set()

    def note(layer: SubmanifoldConv2d, args: tuple[Any, ...]) -> None:
        rows: Tensor = args[0].features
        used.add(engine_for(layer.backend, rows.to(computed_in(rows)), layer.weight, args[0].sites)[0])

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

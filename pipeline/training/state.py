"""The state after an epoch, as one safetensors file: tensors by name, plain values as JSON in its header.

One file, so that the rename that ends the writing moves weights, optimizer, random numbers and progress at once.
Parameters that don't learn, such as a pretrained encoder's gigabytes, stand in a file beside it that is written once.
Nothing is pickled: reading a checkpoint runs no code.
"""

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from data_tools.files import atomic_path
from models.errors import ModelError

if TYPE_CHECKING:  # importing it takes seconds
    from pipeline.training.engine import Engine

STATE_VERSION = 1
FROZEN_FILE = "frozen.safetensors"


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    epoch: the last finished one, counted from 1; 0 before the first. best_score, best_loss: the monitored value and the
    loss on valid at `best_epoch`, None before the first. waited: finished epochs since `best_epoch`.
    lowest_loss, waited_for_loss: on valid, and finished epochs since, for `plateau` of the settings.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    best_loss: float | None = None
    waited: int = 0
    lowest_loss: float | None = None
    waited_for_loss: int = 0

    def after(self, score: float, loss: float, lower_is_better: bool) -> "Progress":
        """The progress one epoch later, which had `score` and `loss` on valid.

        Of equal scores the one with the smaller loss is better: on a small split F1 moves in steps, and training that
        is under way must not look like standing still.
        """
        sign = -1 if lower_is_better else 1
        epoch = self.epoch + 1
        if self.best_score is None or self.best_loss is None:
            better = True
        else:
            better = (sign * score, -loss) > (sign * self.best_score, -self.best_loss)
        if better:
            return replace(self, epoch=epoch, best_epoch=epoch, best_score=score, best_loss=loss, waited=0)
        return replace(self, epoch=epoch, waited=self.waited + 1)


def save_state(path: Path, engine: "Engine", progress: Progress) -> None:
    """Write everything that the next epoch depends on: weights, optimizer, scaling, random numbers, progress.

    Frozen parameters go into FROZEN_FILE beside `path`, after the first epoch and never again in this folder; the
    state names them by their hash.

    Raises:
        DataError: a file cannot be written; what was there stays.
    """
    weights = engine.model.state_dict(keep_vars=True)
    frozen = {
        name: value for name, value in weights.items() if isinstance(value, Parameter) and not value.requires_grad
    }
    tensors = {f"model.{name}": value for name, value in weights.items() if name not in frozen}
    optimizer_tensors, groups = _flatten(engine.optimizer)
    random_tensors, random_values = _random_state()
    tensors |= optimizer_tensors | random_tensors
    header = {
        "version": STATE_VERSION,
        "progress": asdict(progress),
        "groups": groups,
        "random": random_values,
        "scaler": engine.scaler_state(),
    }
    if frozen:
        header["frozen"] = _write_frozen(path.with_name(FROZEN_FILE), frozen, anew=progress.epoch <= 1)
    with atomic_path(path) as temporary:
        save_file(_separate(tensors), temporary, metadata={"state": json.dumps(header)})


def _write_frozen(path: Path, frozen: Mapping[str, Tensor], anew: bool) -> str:
    """The hash of what `path` holds. anew: write it even if it is there, from a start that came to no state."""
    if path.is_file() and not anew:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {})["sha256"]
    separate = _separate(frozen)
    digest = hashlib.sha256()
    for name, value in sorted(separate.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    with atomic_path(path) as temporary:
        save_file(separate, temporary, metadata={"sha256": digest.hexdigest()})
    return digest.hexdigest()


def _read_frozen(path: Path, digest: str) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        if (found := (file.metadata() or {}).get("sha256")) != digest:
            raise ModelError(
                f"{path} holds the frozen weights {found}, but the state was written with {digest}; "
                "bring back the file of this run, or start anew with another --out"
            )
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, copied only where two share memory (tied weights do), which safetensors refuses."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        on_host = tensor.detach().cpu().contiguous()
        memory = on_host.untyped_storage().data_ptr()
        separate[name] = on_host.clone() if memory in seen else on_host
        seen.add(memory)
    return separate


def load_state(path: Path, engine: "Engine") -> Progress:
    """Put the state at `path` into `engine` and the random number generators; returns the progress.

    Raises:
        ModelError: a file is broken or missing, of another version, or of another model or optimizer.
    """
    try:
        path.open("rb").close()  # safetensors says "No such file" of any that it cannot open
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if header["version"] != STATE_VERSION:
            raise ModelError(f"{path} has version {header['version']}, this program reads {STATE_VERSION}; start anew")
        frozen = _read_frozen(path.with_name(FROZEN_FILE), header["frozen"]) if "frozen" in header else {}
        engine.model.load_state_dict(_below("model.", tensors) | frozen)
        _unflatten(engine.optimizer, _below("optimizer.", tensors), header["groups"])
        engine.load_scaler_state(header["scaler"])
        _restore_random_state(_below("random.", tensors), header["random"])
        return Progress(**header["progress"])
    except ModelError:
        raise
    except Exception as error:  # a damaged state fails in torch, numpy, Python's random numbers or here
        raise ModelError(f"{path} does not fit this run ({error}); start anew with another --out") from error


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _flatten(optimizer: Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The optimizer's tensors as `optimizer.<parameter>|<key>`, and its groups as plain values.

    Parameters go by name and not by position, so that a state is never read into the wrong one.
    """
    state = optimizer.state_dict()
    names = {i: n for g in state["param_groups"] for i, n in zip(g["params"], g["param_names"], strict=True)}
    tensors = {
        f"optimizer.{names[position]}|{key}": value
        for position, values in state["state"].items()
        for key, value in values.items()
    }
    return tensors, [{key: value for key, value in g.items() if key != "params"} for g in state["param_groups"]]


def _unflatten(optimizer: Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]) -> None:
    state = optimizer.state_dict()
    ours = [group["param_names"] for group in state["param_groups"]]
    theirs = [group["param_names"] for group in groups]
    if ours != theirs:
        raise ValueError("the optimizer's parameters are others")
    positions = {n: i for g in state["param_groups"] for i, n in zip(g["params"], g["param_names"], strict=True)}
    parameters = {n: p for g in optimizer.param_groups for n, p in zip(g["param_names"], g["params"], strict=True)}
    values: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition("|")
        values.setdefault(positions[parameter], {})[key] = _laid_out_like(parameters[parameter], tensor)
    # JSON knows no tuples, and Adam's betas are one.
    plain = [{key: tuple(v) if key == "betas" else v for key, v in group.items()} for group in groups]
    param_groups = [{**g, "params": old["params"]} for g, old in zip(plain, state["param_groups"], strict=True)]
    optimizer.load_state_dict({"state": values, "param_groups": param_groups})


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """`tensor` with the strides of `parameter` where both have one shape.

    A file knows no strides, and torch's fused Adam reads memory in order without comparing them: beside a channels_last
    weight a contiguous average would be applied to the wrong elements, without an error.
    """
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    tensors = {
        "random.python": torch.tensor(words, dtype=torch.int64),
        "random.numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "random.torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    values = {
        "python": {"version": version, "gauss": gauss},
        "numpy": {"name": name, "position": position, "has_gauss": has_gauss, "cached": cached},
    }
    return tensors, values


def _restore_random_state(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    python, plain = values["python"], values["numpy"]
    random.setstate((python["version"], tuple(tensors["python"].tolist()), python["gauss"]))
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((plain["name"], keys, plain["position"], plain["has_gauss"], plain["cached"]))
    torch.set_rng_state(tensors["torch"])
    # A run that moves from a CPU to CUDA has no such state, and then goes on with the seed's.
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])

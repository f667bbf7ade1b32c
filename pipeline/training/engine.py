"""Device and precision by Lightning Fabric, and how our frozen records pass through it."""

import logging
import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from data_tools.batch import Batch
from models.base import Model
from models.output import Output
from pipeline.settings import ConfigError
from pipeline.training.device import check_compiler, choose_device
from pipeline.training.settings import PlateauSettings, TrainSettings
from pipeline.training.state import Progress

# Fabric asks for the version of torchmetrics by importing it, which brings transformers, matplotlib and librosa and
# takes longer than torch. Nothing here uses the part of Fabric that needs it.
_torchmetrics = sys.modules.get("torchmetrics")
sys.modules["torchmetrics"] = None  # type: ignore[assignment]
try:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy
finally:
    if _torchmetrics is None:
        del sys.modules["torchmetrics"]
    else:
        sys.modules["torchmetrics"] = _torchmetrics

T = TypeVar("T")
# Share by which a loss must be lower to count as lower, torch's own default.
_LOWER = 1e-4

# Lightning logs which precision it uses, to whatever standard error was when it was imported.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)


def start_fabric(device: str = "auto", precision: str = "32-true", devices: int = 1, nodes: int = 1) -> Fabric:
    """Fabric on one device, or on `devices` of each of `nodes` machines; `auto` takes CUDA where torch sees it.

    With more than one device this command is started again for each further one of this machine, unless torchrun or
    SLURM has started them all; when it returns, all of them have met.

    Raises:
        ConfigError: CUDA is asked for and not there, fewer devices than asked for, or a precision that the device
            doesn't have.
    """
    accelerator = choose_device(device).type
    # By default cuDNN rounds what float32 convolutions read to TF32's 10 bits; `32-true` means float32.
    if precision == "32-true":
        torch.backends.cudnn.allow_tf32 = False
    if accelerator == "cpu" and precision == "16-mixed":
        raise ConfigError("precision is '16-mixed', which needs CUDA; on a CPU use bf16-mixed or 32-true")
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise ConfigError(f"devices is {devices}, but torch sees {torch.cuda.device_count()} CUDA devices; give fewer")
    if devices * nodes == 1:
        return Fabric(accelerator=accelerator, devices=1, precision=precision)  # type: ignore[arg-type]
    # Unused ones are looked for: some models name parameters that no loss reaches, and a share of a batch without any
    # face reaches no parameter of the face tower.
    strategy = DDPStrategy(find_unused_parameters=True)
    fabric = Fabric(
        accelerator=accelerator,
        strategy=strategy,
        devices=devices,
        num_nodes=nodes,
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def devices_started(devices: int, nodes: int) -> tuple[int, int]:
    """(devices of a machine, machines): as torchrun or SLURM has started this process, else as given.

    Raises:
        ConfigError: more than one was asked for, and another number was started.
    """
    if TorchElasticEnvironment.detect():
        here, world, by = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"]), "torchrun"
        found = here, world // here
    elif SLURMEnvironment.detect():
        machines, by = int(os.environ["SLURM_NNODES"]), "SLURM"
        found = int(os.environ["SLURM_NTASKS"]) // machines, machines
    else:
        return devices, nodes
    if (devices, nodes) not in ((1, 1), found):
        raise ConfigError(
            f"devices is {devices} and nodes {nodes}, but {by} has started {found[0]} processes on each of {found[1]} "
            "machines; give the same, or leave both out"
        )
    return found


class _Sealed(Generic[T]):
    """Holds a value so that Fabric hands it on as it is.

    Fabric takes dataclasses apart, refuses frozen ones, and turns every floating tensor that it sees into float32.
    """

    def __init__(self, value: T) -> None:
        self.value = value


class _Opened(nn.Module):
    """The model as Fabric sees it: a sealed batch in, and out what Fabric is to convert, beside all else sealed."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sealed: _Sealed[Batch]) -> tuple[dict[str, Any], _Sealed[dict[str, Any]]]:
        output: Output = self.model(sealed.value)
        # The counts stay float64: float32 holds whole numbers only up to 2^24.
        own = {"computed": output.computed, "kept": output.kept}
        learnt = {"logits": output.logits, "losses": output.losses, "also_scored": output.also_scored}
        return learnt, _Sealed(own)


class Engine:
    """`engine(batch) -> Output` on the device and in the precision of `fabric`, and the optimizer's step.

    Where several processes train together (DDP), gradients are averaged over them in the backward pass. Batch
    norm takes the statistics of each process' own share of a batch, and of its running averages those of the first
    process count: a network with batch norm learns as with batches of that share's size.

    compiled: by torch.compile, for any sizes of batches; the weights keep their names.

    Attributes:
        model: the network itself, moved to the device.
        device: where batches are expected.
    """

    def __init__(
        self, fabric: Fabric, model: Model, optimizer: Optimizer | None = None, compiled: bool = False
    ) -> None:
        self.fabric = fabric
        self.device = fabric.device
        self.model = model
        self._optimizer = optimizer
        if compiled:
            check_compiler()
            model.compile(dynamic=True)
        if optimizer is None:
            self._wrapped = fabric.setup(_Opened(model))
        else:
            self._wrapped, self._stepper = fabric.setup(_Opened(model), optimizer)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer as it was given; only an engine that has one can train."""
        assert self._optimizer is not None
        return self._optimizer

    def __call__(self, batch: Batch) -> Output:
        """The model's answer; `batch` is on the device."""
        converted, own = self._wrapped(_Sealed(batch))
        return Output(**converted, **own.value)

    def without_exchange(self, enabled: bool = True) -> AbstractContextManager[Any]:
        """Context for the forward and backward pass of a batch that another one follows before the step.

        Gradients are then averaged over the processes once a step, by the last batch, not after each. enabled: False
        for that one.
        """
        return self.fabric.no_backward_sync(self._wrapped, enabled=enabled)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss` (scaled as the precision needs it)."""
        self.fabric.backward(loss, model=self._wrapped)

    def step(self, clip_norm: float) -> None:
        """Clip the gradients' norm to `clip_norm`, update the parameters, clear the gradients."""
        # A gradient that isn't finite is not an error here: float16 scaling makes some and skips their step. One that
        # matters makes the next loss NaN, and that is reported with its batch.
        self.fabric.clip_gradients(self._wrapped, self._stepper, max_norm=clip_norm, error_if_nonfinite=False)
        self._stepper.step()
        self._stepper.zero_grad(set_to_none=True)

    def scaler_state(self) -> dict[str, Any]:
        """The state of float16's loss scaling as plain values; empty in other precisions."""
        return self.fabric.strategy.precision.state_dict()

    def load_scaler_state(self, state: dict[str, Any]) -> None:
        """Take `scaler_state` up again."""
        self.fabric.strategy.precision.load_state_dict(state)


def parameter_groups(
    model: nn.Module, text_encoder: Iterable[nn.Parameter], learning_rate: float, text_scale: float
) -> list[dict[str, Any]]:
    """Parameters with their names in at most two groups, `rest` and `text_encoder`, each with its own `lr`.

    The text encoder comes pretrained and learns at `text_scale` times `learning_rate`; 0 freezes it: its parameters
    get no gradient, and the optimizer holds no state for them. Parameters that are frozen already stay out.
    """
    pretrained = {id(parameter) for parameter in text_encoder}
    if text_scale == 0:
        for parameter in model.parameters():
            if id(parameter) in pretrained:
                parameter.requires_grad_(False)
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    rest = [(name, parameter) for name, parameter in trained if id(parameter) not in pretrained]
    text = [(name, parameter) for name, parameter in trained if id(parameter) in pretrained]
    groups: list[dict[str, Any]] = [
        {"name": "rest", "params": rest, "lr": learning_rate},
        {"name": "text_encoder", "params": text, "lr": learning_rate * text_scale},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, text_encoder: Iterable[nn.Parameter], settings: TrainSettings) -> Optimizer:
    """Adam over `parameter_groups`.

    Raises:
        ConfigError: nothing is left to train.
    """
    groups = parameter_groups(model, text_encoder, settings.learning_rate, settings.text_learning_rate_scale)
    if not groups:
        raise ConfigError(
            f"no parameter is left to train: text_learning_rate_scale is {settings.text_learning_rate_scale} "
            "and the model has only its text encoder; raise the scale or add a modality"
        )
    # One fused kernel: a quarter of the time on a CPU too. Not with float16, whose unscaling it would take from Fabric.
    return Adam(groups, weight_decay=settings.weight_decay, fused=settings.precision != "16-mixed")


def lower_rates(optimizer: Optimizer, progress: Progress, loss: float, plateau: PlateauSettings) -> Progress:
    """Lower all learning rates where the loss on valid stands still; return the progress with what was waited.

    As torch's ReduceLROnPlateau: a loss is lower that is below 0.9999 of the lowest before, and after `patience` epochs
    without one the next without lowers the rates.
    """
    if progress.lowest_loss is None or loss < progress.lowest_loss * (1 - _LOWER):
        return replace(progress, lowest_loss=loss, waited_for_loss=0)
    if progress.waited_for_loss < plateau.patience:
        return replace(progress, waited_for_loss=progress.waited_for_loss + 1)
    for group in optimizer.param_groups:
        group["lr"] *= plateau.factor
    return replace(progress, waited_for_loss=0)


def learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """The learning rate of each group, by the group's name."""
    return {group["name"]: group["lr"] for group in optimizer.param_groups}

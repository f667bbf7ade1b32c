"""`pipeline pretrain`: CMT by masked language modelling, on any data (mlm), then on the task's own (tapt).

No label is read.

The run folder is as that of `pipeline train`: the model in it is what `--set init=FOLDER` starts from, of the next
stage and of training. `pretraining.safetensors` beside it is what only pretraining needs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from sklearn.cluster import KMeans
from torch import Tensor
from torch.optim import AdamW

import models
from data_tools.batch import Batch
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import atomic_path, folder_lock
from data_tools.impostor import check_genuine
from models.base import Model
from models.checkpoint import read_weights, write_weights
from models.cmt import CMT
from models.layers.padded import Padded
from models.output import Output
from models.pretraining import CMTPretraining, Masks
from pipeline.command import Command
from pipeline.model_configs import read_model
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.run_data import DataFacts
from pipeline.settings import ConfigError, ModelFlags, ModelSpec, ResumeFlag, Settings, flag
from pipeline.training.batches import EpochBatches, OrderedBatches, StepLimit, lengths_of, ordered_loader, train_loader
from pipeline.training.data import load_split
from pipeline.training.device import choose_device, resolve_precision, seed_everything
from pipeline.training.driver import Epochs, Scores, is_over, open_run, resume_progress, run_epochs, start_run
from pipeline.training.engine import Engine, start_fabric
from pipeline.training.loop import Pass
from pipeline.training.losses import Loss
from pipeline.training.settings import TrainSettings
from pipeline.training.state import Progress

HEADS_FILE = "pretraining.safetensors"


class PretrainSettings(Settings):
    """Settings of pretraining beside `TrainSettings`; the defaults are the paper's, or HuBERT's where it is silent."""

    stage: Literal["mlm", "tapt"] = flag(help="mlm: anew; tapt: on the task's data, goes on from --set init=FOLDER.")
    mask_tokens: float = Field(0.15, gt=0, lt=1, description="share of the text's tokens that is to be guessed")
    mask_spans: float = Field(0.075, gt=0, lt=1, description="chance that a step of sound begins a hidden span")
    span: int = Field(10, ge=1, description="steps of sound in a hidden span, 20 ms each")
    codewords: int = Field(500, ge=2, description="clusters of the speech encoder's states")
    code_size: int = Field(256, ge=1, description="features in which a guess and the codewords are compared")
    cluster_states: int = Field(100_000, ge=2, description="states that the clusters are found from, at most")

    @property
    def masks(self) -> Masks:
        """Shares of the input that are hidden."""
        return Masks(self.mask_tokens, self.mask_spans, self.span)


def pretrain(
    settings: TrainSettings, own: PretrainSettings, model: ModelSpec, reporter: Reporter, resume: bool = False
) -> dict[str, Any]:
    """Learn from the train split's audio and words; the epoch with the smallest loss on valid is kept.

    settings: those of training, of which the task's have no meaning here; AdamW, with a rate that falls in a line from
    epoch to epoch. own: of pretraining alone. model: cmt, whose frontend becomes encoders.
    resume: go on in `settings.out`. Returns what the command prints, ready for JSON.

    Raises:
        ConfigError, ModelError: settings that cannot work, a run folder that is there already, nothing to resume.
        DataError: data is missing, without train or valid, or other than when the run was started; a full disk.
        TrainingError: the loss is not finite.
    """
    _check(settings, own, model)
    model = model.with_settings(frontend="encoders")
    precision = resolve_precision(settings.precision, settings.device)
    settings = settings.model_copy(update={"precision": precision, "monitor": "loss"})
    fabric = start_fabric(settings.device, settings.precision)
    splits = _Splits(*(load_split(settings.data, part, protocol=settings.split) for part in ("train", "valid")))
    splits.train.waveforms = splits.valid.waveforms = True
    facts = DataFacts.from_splits(settings.data, splits.train, splits.valid)
    recorded = {**model.recorded(), "pretraining": own.model_dump(mode="json")}
    run = open_run(f"cmt-{own.stage}", settings, recorded, resume)
    seed_everything(settings.seed)
    cmt = cast(CMT, models.build("cmt", **model.given))
    with folder_lock(run.path):
        # First, for too few states to cluster should leave no run behind.
        network = _network(cmt, settings, own, splits.train, run, reporter)
        start_run(run, settings, recorded, facts, splits.train, splits.valid)
        reporter.say(f"{own.stage} of cmt on {settings.data} into {run.path}")
        learning = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
        group = {"name": "rest", "params": learning, "lr": settings.learning_rate}
        optimizer = AdamW([group], weight_decay=settings.weight_decay)
        # An engine and its state ask no more of a network than forward and weights.
        engine = Engine(fabric, cast(Model, network), optimizer)
        progress = resume_progress(run, engine, lambda: _save(run, network))
        run.note_environment(fabric.device, progress.epoch + 1)
        if not is_over(progress, settings):
            progress = run_epochs(
                run, engine, settings, progress, _epochs(run, engine, network, settings, splits), reporter
            )
    return {
        "run": str(run.path),
        "stage": own.stage,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "valid_loss": progress.best_score,
        "codewords": own.codewords,
        "parameters": sum(parameter.numel() for parameter in cmt.parameters()),
        "learning": sum(parameter.numel() for _, parameter in learning),
        "notice": facts.notice,
    }


@dataclass(frozen=True)
class _Splits:
    train: UtteranceDataset
    valid: UtteranceDataset


def _check(settings: TrainSettings, own: PretrainSettings, model: ModelSpec) -> None:
    if model.name != "cmt":
        raise ConfigError(f"model is {model.name!r}; pretraining is defined for cmt")
    if model.given.get("frontend", "encoders") != "encoders":
        raise ConfigError(f"frontend is {model.given['frontend']!r}; pretraining needs encoders: leave it out")
    if settings.more_data or settings.labels:
        raise ConfigError("pretraining reads one data folder and no labels: leave more --data and --labels out")
    if settings.devices * settings.nodes > 1 or settings.compile:
        raise ConfigError("pretraining runs on one device, not compiled: leave devices, nodes and compile out")
    if own.stage == "tapt" and settings.init is None:
        raise ConfigError("stage tapt goes on from stage mlm: add --set init=FOLDER, the run folder of that stage")
    if own.stage == "mlm" and settings.init is not None:
        raise ConfigError(f"init is {settings.init}, but stage mlm starts anew; leave init out, or use --stage tapt")
    if settings.init is not None and not (settings.init / HEADS_FILE).is_file():
        raise ConfigError(
            f"init is {settings.init}, which has no {HEADS_FILE}: give the run folder of `pipeline pretrain`"
        )


def _network(
    model: CMT,
    settings: TrainSettings,
    own: PretrainSettings,
    train_split: UtteranceDataset,
    run: RunDir,
    reporter: Reporter,
) -> CMTPretraining:
    """The network with its codewords: of this run's state, of `init`, or made now."""

    def made(centres: Tensor) -> CMTPretraining:
        return CMTPretraining(model, centres, own.code_size, own.masks, settings.seed)

    unknown = torch.zeros(own.codewords, model.sizes["a"])  # for centres that are read
    if run.state.is_file():  # which brings all weights, the centres too
        return made(unknown)
    if settings.init is not None:
        models.start_from(model, settings.init)
        heads = _read_heads(settings.init / HEADS_FILE)
        network = made(unknown)
        network.load_heads(heads)
        return network
    loader = ordered_loader(train_split, settings.batch_size, models.tokenizer_for(model), settings.loader_workers)
    device = choose_device(settings.device)
    encoders = model.to(device).eval()
    batches = (batch.to(device) for batch in reporter.track(loader, len(loader), "codewords", "batches"))
    centres = cluster_states(
        lambda batch: encoders.frontend(batch)["a"], batches, own.codewords, own.cluster_states, settings.seed
    )
    return made(centres).train()


def _read_heads(path: Path) -> dict[str, Tensor]:
    try:
        check_genuine(path)
        return read_weights(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); pretrain again") from error


def cluster_states(
    states_of: Callable[[Batch], Padded], batches: Iterable[Batch], count: int, most: int, seed: int
) -> Tensor:
    """(count, D) float32: centres of the states of `batches`, of which at most `most` are used, drawn by `seed`.

    Raises:
        ConfigError: fewer states than codewords.
    """
    draw = np.random.default_rng(seed)
    states, keys = torch.zeros(0), torch.zeros(0)
    with torch.no_grad():
        for batch in batches:
            sequence = states_of(batch)
            new = sequence.values[sequence.present].float().cpu()
            # Those with the smallest of random keys stay: each state has the same chance, and memory stays small.
            keys = torch.cat([keys, torch.from_numpy(draw.random(len(new)))])
            states = torch.cat([states, new]) if len(states) else new
            kept = keys.argsort(stable=True)[:most].sort().values
            states, keys = states[kept], keys[kept]
    if len(states) < count:
        raise ConfigError(
            f"codewords is {count}, but the sound of train has {len(states)} states of 20 ms (cluster_states at "
            "most); use --set codewords with a smaller number, or more data"
        )
    found = KMeans(count, n_init=1, random_state=seed).fit(states.numpy())
    return torch.from_numpy(found.cluster_centers_.astype(np.float32))


def _epochs(run: RunDir, engine: Engine, network: CMTPretraining, settings: TrainSettings, splits: _Splits) -> Epochs:
    """The epochs of pretraining: other masks in each, a rate that falls in a line, the best one by the loss."""
    tokenize = models.tokenizer_for(network.model)
    lengths = lengths_of(splits.train) if settings.batching == "length" else None
    limit, valid_limit = (
        StepLimit.from_dataset(split, settings.max_batch_steps) for split in (splits.train, splits.valid)
    )
    order = EpochBatches(len(splits.train), settings.batch_size, settings.seed, lengths, limit=limit)
    valid_order = OrderedBatches(len(splits.valid), settings.batch_size, limit=valid_limit)

    def begin(epoch: int) -> None:
        network.epoch = epoch
        engine.optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - (epoch - 1) / settings.epochs)

    return Epochs(
        order,
        valid_order,
        batches=train_loader(splits.train, order, tokenize, settings.loader_workers),
        valid_batches=train_loader(splits.valid, valid_order, tokenize, settings.loader_workers),
        objective=masked_loss,
        scores=lambda validated: {"loss": validated.loss},
        monitored=lambda scores: cast(float, scores["loss"]),
        lower_is_better=True,
        line=_epoch_line,
        begin=begin,
        save_best=lambda: _save(run, network),
    )


def masked_loss(output: Output, batch: Batch) -> Loss:  # noqa: ARG001
    """L_a + L_w, the sum of what both sides guess wrong."""
    return Loss(output.losses["text"] + output.losses["audio"], dict(output.losses))


def _save(run: RunDir, network: CMTPretraining) -> None:
    """Write what the next stage starts from: the model, and beside it what only pretraining needs."""
    heads = {name: value.detach().cpu().contiguous() for name, value in network.heads().items()}
    with atomic_path(run.path / HEADS_FILE) as temporary:
        write_weights(temporary, heads)
    models.save(network.model, run.path)


def _epoch_line(label: str, trained: Pass, validated: Pass, _: Scores, progress: Progress) -> str:
    parts = ", ".join(f"{name} {value:.4f}" for name, value in validated.parts.items())
    return (
        f"{label}: train loss {trained.loss:.4f}; valid loss {validated.loss:.4f} ({parts}); best "
        f"{progress.best_score:.4f} in epoch {progress.best_epoch}; {trained.seconds / trained.steps:.2f} s a step"
    )


def _read_command(flags: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `pretrain`. A file's section `train` is about training: pretraining has its own values."""
    flags = dict(flags)
    model, config, resume = flags.pop("model", None), flags.pop("config", None), flags.pop("resume", False)
    values = {**assignments, **flags}
    own = {key: values.pop(key) for key in list(values) if key in PretrainSettings.model_fields}
    train_values = {key: value for key, value in values.items() if key in TrainSettings.model_fields}
    _, spec = read_model(model, config, values, TrainSettings.model_fields)
    settings, pretraining = TrainSettings.checked(train_values, "flags"), PretrainSettings.checked(own, "flags")
    return {"settings": settings, "own": pretraining, "model": spec, "resume": resume}


COMMAND = Command(
    pretrain,
    (PretrainSettings, ModelFlags, TrainSettings, ResumeFlag),
    without=("devices", "nodes", "precision", "compile", "labels"),
    example="pipeline pretrain --model cmt --stage mlm --data data/librispeech --out runs/mlm",
    read=_read_command,
    takes_set=True,
)

"""Pretraining of CMT by masked language modelling: on any data (mlm), then on the task's own (tapt). No label is read.

The run folder is as that of `pipeline train`: the model in it is what `--set init=FOLDER` starts from, of the next
stage and of training. `pretraining.safetensors` beside it is what only pretraining needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import AdamW

import models
from data_tools.batch import Batch
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import atomic_path, folder_lock
from models.base import Model
from models.cmt import CMT
from models.output import Output
from models.pretraining import CMTPretraining, Masks
from pipeline.evaluate import load_split
from pipeline.facts import DataFacts
from pipeline.progress import Reporter
from pipeline.run import RunDir, default_path, new_run, resumed_run
from pipeline.settings import ConfigError, Settings, TrainSettings
from pipeline.training.batches import EpochBatches, lengths_of, ordered_loader, train_loader
from pipeline.training.codewords import cluster
from pipeline.training.engine import Engine, resolved_precision, start_fabric
from pipeline.training.log import TrainLog
from pipeline.training.loop import Pass, Update, run_epoch
from pipeline.training.losses import Loss
from pipeline.training.optim import learning_rates
from pipeline.training.state import Progress, load_state, save_state, seed_everything

HEADS_FILE = "pretraining.safetensors"


class PretrainSettings(Settings):
    """What pretraining has beside `TrainSettings`; the defaults are the paper's, or HuBERT's where it is silent."""

    stage: Literal["mlm", "tapt"] = Field(description="mlm starts anew; tapt goes on from `init` on the task's data")
    mask_tokens: float = Field(0.15, gt=0, lt=1, description="share of the text's tokens that is to be guessed")
    mask_spans: float = Field(0.075, gt=0, lt=1, description="chance that a step of sound begins a hidden span")
    span: int = Field(10, ge=1, description="steps of sound in a hidden span, 20 ms each")
    codewords: int = Field(500, ge=2, description="clusters of the speech encoder's states")
    code_size: int = Field(256, ge=1, description="features in which a guess and the codewords are compared")
    cluster_states: int = Field(100_000, ge=2, description="states that the clusters are found from, at most")

    @property
    def masks(self) -> Masks:
        """How much is hidden."""
        return Masks(self.mask_tokens, self.mask_spans, self.span)


def pretrain(
    settings: TrainSettings,
    own: PretrainSettings,
    model_settings: Mapping[str, Any],
    reporter: Reporter,
    resume: bool = False,
) -> dict[str, Any]:
    """Learn from the train split's sound and words; the epoch with the smallest loss on valid is kept.

    settings: those of training, of which the task's have no meaning here; AdamW, with a rate that falls in a line from
    epoch to epoch. own: of pretraining alone. model_settings: with the model's `name`, cmt; `frontend` is encoders.
    resume: go on in `settings.out`. Returns what the command prints, ready for JSON.

    Raises:
        ConfigError, ModelError: settings that cannot work, a run folder that is there already, nothing to resume.
        DataError: data is missing, without train or valid, or other than when the run was started; a full disk.
        TrainingError: the loss is not finite.
    """
    _check(settings, own, model_settings)
    model_settings = {**model_settings, "frontend": "encoders"}
    values = {key: value for key, value in model_settings.items() if key != "name"}
    models.config_of("cmt", values)
    precision = resolved_precision(settings.precision, settings.device)
    settings = settings.model_copy(update={"precision": precision, "monitor": "loss"})
    fabric = start_fabric(settings.device, settings.precision)
    splits = _Splits(load_split(settings.data, "train"), load_split(settings.data, "valid"))
    splits.train.waveforms = splits.valid.waveforms = True
    facts = DataFacts.of(settings.data, splits.train, splits.valid)
    recorded = {**model_settings, "pretraining": own.model_dump(mode="json")}
    run = _run_folder(settings, own, recorded, resume)
    seed_everything(settings.seed)
    model = cast(CMT, models.build("cmt", **values))
    with folder_lock(run.path):
        # First, for too few states to cluster should leave no run behind.
        network = _network(model, settings, own, splits.train, run, reporter)
        _start(run, settings, recorded, facts, splits)
        reporter.say(f"{own.stage} of cmt on {settings.data} into {run.path}")
        learning = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
        group = {"name": "rest", "params": learning, "lr": settings.learning_rate}
        optimizer = AdamW([group], weight_decay=settings.weight_decay)
        # An engine and its state ask no more of a network than forward and weights.
        engine = Engine(fabric, cast(Model, network), optimizer)
        progress = load_state(run.state, engine) if run.state.is_file() else Progress()
        run.note_environment(fabric.device, progress.epoch + 1)
        if progress.epoch and progress.best_epoch == progress.epoch:
            _save(run, network)
        progress = _fit(run, engine, network, settings, progress, splits, reporter)
    return {
        "run": str(run.path),
        "stage": own.stage,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "valid_loss": progress.best_score,
        "codewords": own.codewords,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "learning": sum(parameter.numel() for _, parameter in learning),
        "notice": facts.notice,
    }


@dataclass(frozen=True)
class _Splits:
    train: UtteranceDataset
    valid: UtteranceDataset


def _check(settings: TrainSettings, own: PretrainSettings, model_settings: Mapping[str, Any]) -> None:
    if model_settings["name"] != "cmt":
        raise ConfigError(f"model is {model_settings['name']!r}; pretraining is defined for cmt")
    if model_settings.get("frontend", "encoders") != "encoders":
        raise ConfigError(f"frontend is {model_settings['frontend']!r}; pretraining needs encoders: leave it out")
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


def _run_folder(settings: TrainSettings, own: PretrainSettings, recorded: Mapping[str, Any], resume: bool) -> RunDir:
    if resume:
        return resumed_run(settings.out, settings, recorded)
    return new_run(settings.out or default_path(f"cmt-{own.stage}", settings.data, datetime.now()))


def _start(
    run: RunDir, settings: TrainSettings, recorded: Mapping[str, Any], facts: DataFacts, splits: _Splits
) -> None:
    run.sweep()
    before = run.facts() if run.settings.is_file() else facts
    if (before.fingerprint, before.preprocessing) != (facts.fingerprint, facts.preprocessing):
        raise DataError(
            f"{settings.data} has other utterances, labels or preprocessing than when {run.path} was started; "
            "give the old data folder, or start a new run"
        )
    train_ids, valid_ids = (split.table["utterance_id"].tolist() for split in (splits.train, splits.valid))
    run.write_start(settings.model_copy(update={"out": run.path}), recorded, facts, train_ids, valid_ids)


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
    device = start_fabric(settings.device).device
    encoders = model.to(device).eval()
    batches = (batch.to(device) for batch in reporter.track(loader, len(loader), "codewords", "batches"))
    centres = cluster(
        lambda batch: encoders.frontend(batch)["a"], batches, own.codewords, own.cluster_states, settings.seed
    )
    return made(centres).train()


def _read_heads(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({error}); pretrain again") from error


def _fit(
    run: RunDir,
    engine: Engine,
    network: CMTPretraining,
    settings: TrainSettings,
    progress: Progress,
    splits: _Splits,
    reporter: Reporter,
) -> Progress:
    """Epoch after epoch until there are enough, or `patience` of them brought nothing better."""
    tokenize = models.tokenizer_for(network.model)
    lengths = lengths_of(splits.train) if settings.batching == "length" else None
    order = EpochBatches(len(splits.train), settings.batch_size, settings.seed, lengths)
    batches = train_loader(splits.train, order, tokenize, settings.loader_workers)
    valid_batches = ordered_loader(splits.valid, settings.batch_size, tokenize, settings.loader_workers)
    update = Update(settings.clip_norm, settings.accumulate)
    with TrainLog(run, progress.epoch) as log:
        while progress.epoch < settings.epochs and progress.waited < settings.patience:
            order.epoch = network.epoch = progress.epoch + 1
            engine.optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - progress.epoch / settings.epochs)
            label = f"epoch {order.epoch}/{settings.epochs}"
            trained = run_epoch(engine, batches, masked_loss, reporter, label, update)
            validated = run_epoch(engine, valid_batches, masked_loss, reporter, f"{label}, valid")
            progress = progress.after(validated.loss, validated.loss, lower_is_better=True)
            log.add(progress.epoch, trained, validated, {"loss": validated.loss}, learning_rates(engine.optimizer))
            save_state(run.state, engine, progress)
            if progress.best_epoch == progress.epoch:
                _save(run, network)
            reporter.say(_epoch_line(label, trained, validated, progress))
    return progress


def masked_loss(output: Output, batch: Batch) -> Loss:  # noqa: ARG001
    """L_a + L_w, the sum of what both sides guess wrong."""
    return Loss(output.losses["text"] + output.losses["audio"], dict(output.losses))


def _save(run: RunDir, network: CMTPretraining) -> None:
    """What the next stage takes up: the model, and beside it what only pretraining needs."""
    heads = {name: value.detach().cpu().contiguous() for name, value in network.heads().items()}
    with atomic_path(run.path / HEADS_FILE) as temporary:
        save_file(heads, temporary)
    models.save(network.model, run.path)


def _epoch_line(label: str, trained: Pass, validated: Pass, progress: Progress) -> str:
    parts = ", ".join(f"{name} {value:.4f}" for name, value in validated.parts.items())
    return (
        f"{label}: train loss {trained.loss:.4f}; valid loss {validated.loss:.4f} ({parts}); best "
        f"{progress.best_score:.4f} in epoch {progress.best_epoch}; {trained.seconds / trained.steps:.2f} s a step"
    )

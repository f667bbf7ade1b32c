"""`pipeline train`: manifest, store and settings -> run folder."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

import models
from data_tools.about import read_dataset_facts
from data_tools.damage import uniform
from data_tools.dataset import UtteranceDataset
from data_tools.files import folder_lock
from pipeline.command import Command
from pipeline.model_configs import read_model
from pipeline.progress import Reporter
from pipeline.published import language_warning
from pipeline.run import RunDir
from pipeline.run_data import DataFacts, dataset_name
from pipeline.settings import ConfigError, ModelFlags, ModelSettingFlags, ModelSpec, ResumeFlag
from pipeline.tasks.resolve import build_task, check_same_range, resolve_settings, resolve_task, with_label
from pipeline.tasks.task import Task
from pipeline.training.batches import (
    EpochBatches,
    HeldBatches,
    OrderedBatches,
    StepLimit,
    is_to_be_held,
    lengths_of,
    train_loader,
)
from pipeline.training.damage import (
    Changed,
    ModalityDropout,
    damaged_for_training,
    damaged_for_validation,
    modality_dropout,
    subset_changes,
)
from pipeline.training.data import folders_with_test, load_both, load_parts, load_unseen
from pipeline.training.device import (
    Ranks,
    check_compiler,
    from_first_process,
    peak_of,
    resolve_precision,
    seed_everything,
)
from pipeline.training.driver import Epochs, Scores, is_over, log_of, open_run, resume_progress, run_epochs, start_run
from pipeline.training.engine import Engine, build_optimizer, devices_started, start_fabric
from pipeline.training.features import read_for, wanted_features, with_sizes
from pipeline.training.loop import Batches, Pass
from pipeline.training.scoring import BestModel, record, task_objective
from pipeline.training.settings import TrainSettings
from pipeline.training.state import Progress


def train(
    settings: TrainSettings, model: ModelSpec, reporter: Reporter, resume: bool = False, test: bool = True
) -> dict[str, Any]:
    """Train a model and keep its best epoch by `settings.monitor` on valid; then evaluate it on valid and test.

    resume: go on in `settings.out` after the last finished epoch; on a CPU the weights come out the same as without
    the interruption. test: False leaves test unread. Returns what the command prints, ready for JSON.

    With `devices` or `nodes` above 1 this process starts the others of its machine (unless torchrun or SLURM did),
    which run the same command. Each takes its share of every batch; the first one alone writes the run folder and
    speaks. All return the same.

    Raises:
        ConfigError, ModelError: settings that cannot work, a run folder that is there already, nothing to resume.
        DataError: data is missing, without train or valid, or other than when the run was started; a full disk.
        TrainingError: the loss is not finite.
    """
    prepared = prepare(settings, model)
    settings, model = prepared.settings, prepared.model
    train_split, valid_split = prepared.train_split, prepared.valid_split
    if test:
        _check_test(settings)
    if settings.compile:
        check_compiler()
    fabric = start_fabric(settings.device, settings.precision, settings.devices, settings.nodes)
    ranks = Ranks.from_fabric(fabric)
    if not ranks.first:
        reporter = Reporter(quiet=True)
    if settings.features is not None and settings.standardise:
        train_split.scale = valid_split.scale = train_split.fit_scale()
    facts = DataFacts.from_splits(settings.data, train_split, valid_split)
    task = build_task(settings, facts)
    _check_fit(task, model, valid_split)
    run = from_first_process(fabric, lambda: open_run(model.name, settings, model.recorded(), resume))
    seed_everything(settings.seed)
    network = models.build(**model.recorded() | {"outputs": task.outputs})
    if settings.init is not None and not run.state.is_file():
        models.start_from(network, settings.init)
    optimizer = build_optimizer(network, network.text_parameters(), settings)
    with folder_lock(run.path) if ranks.first else nullcontext():
        from_first_process(fabric, lambda: start_run(run, settings, model.recorded(), facts, train_split, valid_split))
        engine = Engine(fabric, network, optimizer, settings.compile)
        progress = resume_progress(run, engine, lambda: models.save(network, run.path) if ranks.first else None)
        if ranks.first:
            run.note_environment(fabric.device, progress.epoch + 1)
        listed = " and ".join(map(str, settings.folders))
        reporter.say(f"{model.name} on {listed} into {run.path}" + _notice(facts))
        reporter.say(_task_line(task))
        if model.note:
            reporter.say(f"  {model.note}")
        encoder = model.config.text_encoder if model.config.reads_tokens else ""
        if warning := language_warning(dataset_name(settings.data), encoder):
            reporter.say(f"  {warning}")
        try:
            if not is_over(progress, settings):
                epochs = _epochs(run, engine, task, train_split, valid_split)
                progress = run_epochs(run, engine, settings, progress, epochs, reporter)
        except KeyboardInterrupt:
            reporter.say(f"interrupted; the same command with --resume --out {run.path} goes on after the last epoch")
            raise
        scores = from_first_process(fabric, lambda: _finish(run, task, valid_split, reporter, test))
        peak = peak_of(fabric.device)
        return from_first_process(
            fabric, lambda: _summary(run, settings, model, network, progress, scores, facts, peak)
        )


@dataclass(frozen=True)
class Prepared:
    """A training that can begin: settings as they are used, and the utterances that have the label of the task."""

    settings: TrainSettings
    model: ModelSpec
    train_split: UtteranceDataset
    valid_split: UtteranceDataset


def prepare(settings: TrainSettings, model: ModelSpec) -> Prepared:
    """Fill in all that is left to the data and the machine. Reads the tables alone, no media.

    Raises:
        ConfigError, ModelError, DataError: as `train`.
    """
    # As it is on this machine, so that the run folder says what was used and a resumed run goes on in it.
    precision = resolve_precision(settings.precision, settings.device)
    features = wanted_features(settings, model)
    devices, nodes = devices_started(settings.devices, settings.nodes)
    as_used = {"precision": precision, "features": features, "devices": devices, "nodes": nodes}
    settings = settings.model_copy(update=as_used)
    train_split, valid_split = load_both(settings, features)
    for dataset in (train_split, valid_split):
        read_for(model.config, dataset)
    settings, train_split, valid_split = _for_task(settings, train_split, valid_split)
    train_split = _part_of(train_split, settings)
    _check_enough(settings, train_split, valid_split)
    return Prepared(settings, with_sizes(model, train_split), train_split, valid_split)


def _for_task(
    settings: TrainSettings, train_split: UtteranceDataset, valid_split: UtteranceDataset
) -> tuple[TrainSettings, UtteranceDataset, UtteranceDataset]:
    """Settings without `auto` about the task, and the utterances of both splits that have its label."""
    stated = {read_dataset_facts(folder).get("task") for folder in settings.folders}
    task = resolve_task(settings.task, train_split.emotions, stated.pop() if len(stated) == 1 else None)
    train_split, valid_split = with_label(train_split, task), with_label(valid_split, task)
    if task == "sentiment":
        check_same_range(train_split)
    return resolve_settings(settings, task, [train_split, valid_split]), train_split, valid_split


def _part_of(train_split: UtteranceDataset, settings: TrainSettings) -> UtteranceDataset:
    """The utterances of train whose draw from their id is below `train_fraction`, at least one, for all seeds alike."""
    if settings.train_fraction == 1:
        return train_split
    draws = np.array([uniform(name, 0, 0, "train")(1)[0] for name in train_split.table["utterance_id"]])
    part = train_split.only((draws < settings.train_fraction) | (draws == draws.min()))
    part.left_out = train_split.left_out  # these have the label of the task
    return part


def _check_test(settings: TrainSettings) -> None:
    """Open the test split, if there is one, and let it go: what is wrong with it is not to be found after training."""
    if folders_with_test(settings):
        load_parts(settings.folders, "test", settings.features, settings.split)


def _check_enough(settings: TrainSettings, train_split: UtteranceDataset, valid_split: UtteranceDataset) -> None:
    """Every process is to have something to count in every pass."""
    processes = settings.devices * settings.nodes
    if (smallest := min(settings.batch_size, len(train_split), len(valid_split))) < processes:
        raise ConfigError(
            f"{processes} processes share every batch, but batch_size is {settings.batch_size}, train has "
            f"{len(train_split)} utterances and valid {len(valid_split)}; use at most {smallest} processes"
        )


def _check_fit(task: Task, model: ModelSpec, valid_split: UtteranceDataset) -> None:
    """Refuse what cannot work on this data, before there is a run folder."""
    outputs, monitor = model.given.get("outputs"), task.settings.monitor
    if outputs is not None and outputs != task.outputs:
        raise ConfigError(
            f"outputs is {outputs}, but {task.why_outputs}; leave outputs out, it follows from the data and the task"
        )
    # What is defined depends on the truth alone, so the truth as the answer shows it.
    if task.values_of_truth(valid_split)[monitor] is None:
        raise ConfigError(
            f"monitor is {monitor!r}, which is undefined on valid: its {len(valid_split)} utterances cannot tell, "
            "whatever the answers are; use --set monitor=loss, or another split"
        )


def _task_line(task: Task) -> str:
    """The task with what follows from it, and what was left out for it."""
    settings, left_out = task.settings, {split: n for split, n in task.facts.left_out.items() if n}
    line = f"  task {settings.task}: loss {settings.loss}, best epoch by {settings.monitor}"
    if left_out:
        counts = ", ".join(f"{n} of {split}" for split, n in left_out.items())
        line += f"; left out, with {task.unlabelled}: {counts}"
    if task.facts.label_map is not None:
        line += f"\n  labels by the map {task.facts.label_map.name}: {', '.join(task.emotions)}"
    for split, found in task.facts.without_counterpart.items():
        if found:
            counts = ", ".join(f"{n} with {name}" for name, n in found.items())
            line += f"; left out of {split}, without counterpart: {counts}"
    return line


def _notice(facts: DataFacts) -> str:
    return f" [{facts.notice}]" if facts.notice else ""


def _epochs(
    run: RunDir, engine: Engine, task: Task, train_split: UtteranceDataset, valid_split: UtteranceDataset
) -> Epochs:
    """The epochs of supervised training: the task's loss, its metrics on valid, the best epoch by `monitor`."""
    settings, ranks = task.settings, Ranks.from_fabric(engine.fabric)
    lengths = lengths_of(train_split) if settings.batching == "length" else None
    limit, valid_limit = (StepLimit.from_dataset(part, settings.max_batch_steps) for part in (train_split, valid_split))
    order = EpochBatches(len(train_split), settings.batch_size, settings.seed, lengths, ranks, limit)
    valid_order = OrderedBatches(len(valid_split), settings.batch_size, ranks, valid_limit)
    # Valid is left with modalities absent too, the same ones in each epoch: the best epoch is to be good at both.
    dropouts = [modality_dropout(engine.model, settings.seed, each) for each in (order, None)]
    batches, valid_batches = _read(engine, settings, [(train_split, order), (valid_split, valid_order)], dropouts)
    if settings.damage is not None:
        batches = damaged_for_training(batches, settings.damage, engine.model, order)
        if settings.damage.valid:
            valid_batches = damaged_for_validation(valid_batches, settings.damage, engine.model)

    def line(label: str, trained: Pass, _: Pass, scores: Scores, progress: Progress) -> str:
        peak = peak_of(engine.device)
        return _epoch_line(label, trained, scores, progress, settings.monitor, peak) + _notice(task.facts)

    return Epochs(
        order,
        valid_order,
        batches,
        valid_batches,
        objective=task_objective(task, engine.device, settings.loss_weights),
        # At the thresholds that this epoch would get on valid.
        scores=lambda validated: task.values(validated, task.choose(validated)),
        monitored=task.monitored,
        lower_is_better=task.lower_is_better(settings.monitor),
        line=line,
        save_best=lambda: models.save(engine.model, run.path),
    )


def _read(
    engine: Engine,
    settings: TrainSettings,
    splits: Sequence[tuple[UtteranceDataset, EpochBatches | OrderedBatches]],
    dropouts: Sequence[ModalityDropout | None],
) -> list[Batches]:
    """The batches of each split in its order: out of memory where all of them fit, else read anew in each epoch."""
    device, tokenize = engine.device, models.tokenizer_for(engine.model)
    # Damage is drawn on the host.
    place = torch.device("cpu") if settings.damage else device
    if is_to_be_held([split for split, _ in splits], place, settings.keep_on_device, settings.loader_workers):
        return [HeldBatches(*split, tokenize, place, each) for split, each in zip(splits, dropouts, strict=True)]
    pin, workers = device.type == "cuda", settings.loader_workers
    read = [train_loader(split, order, tokenize, workers, pin) for split, order in splits]
    return [loader if each is None else Changed(loader, each) for loader, each in zip(read, dropouts, strict=True)]


def _epoch_line(
    label: str, trained: Pass, scores: Mapping[str, float | None], progress: Progress, monitor: str, peak: str
) -> str:
    shown = {name: scores[name] for name in ("loss", monitor)}  # all of them are in log.csv
    found = ", ".join(f"{name} {'undefined' if value is None else f'{value:.4f}'}" for name, value in shown.items())
    return (
        f"{label}: train loss {trained.loss:.4f}; valid {found}; best {monitor} {progress.best_score:.4f} "
        f"in epoch {progress.best_epoch}; {trained.seconds / trained.steps:.2f} s a step, "
        f"{trained.wait_s / trained.seconds:.0%} of it waiting for data, {len(trained.ids) / trained.seconds:.1f} "
        f"utterances/s, at most {trained.peak_bytes / 2**20:.0f} MiB {peak}"
    )


def _finish(run: RunDir, task: Task, valid_split: UtteranceDataset, reporter: Reporter, test: bool) -> dict[str, Any]:
    """Choose the thresholds of the best weights on valid, then write the scores on valid and, if there is one, test.

    A model that was trained with modalities left out gets thresholds for each subset of them too.
    """
    settings = task.settings
    best = BestModel.load(run, settings.device, settings.batch_size)
    validated = best.score(valid_split, reporter, "valid")
    by_present = {
        present: task.choose(best.score(valid_split, reporter, f"valid, {present} alone", change))
        for present, change in subset_changes(best.scorer.model).items()
    }
    run.write_thresholds(task.choose(validated), "valid", task.reading, by_present)
    reports = {"valid": record(run, valid_split, "valid", validated, reporter, whole=True)}
    tested = folders_with_test(settings) if test else []
    if tested:
        test_split = load_unseen(run, settings.folders, "test")
        found = best.score(test_split, reporter, "test")
        reports["test"] = record(run, test_split, "test", found, reporter, whole=True)
    for folder in tested if settings.more_data else ():
        test_split = load_unseen(run, folder, "test")
        record(run, test_split, "test", best.score(test_split, reporter, f"test of {folder}"), reporter)
    return reports


def _summary(
    run: RunDir,
    settings: TrainSettings,
    model: ModelSpec,
    network: nn.Module,
    progress: Progress,
    scores: Mapping[str, Any],
    facts: DataFacts,
    peak: str,
) -> dict[str, Any]:
    rows = log_of(run, progress)
    seconds = [float(row["train_seconds"]) for row in rows]
    return {
        "run": str(run.path),
        "model": model.name,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "task": settings.task,
        "monitor": settings.monitor,
        "valid_score": progress.best_score,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "train_seconds": sum(seconds),
        "seconds": sum(seconds) + sum(float(row["valid_seconds"]) for row in rows),
        "step_seconds": median(float(row["step_seconds"]) for row in rows),
        "data_wait_share": sum(float(row["wait_seconds"]) for row in rows) / sum(seconds),
        "samples_per_second": median(_known(rows, "samples_per_second")),
        "peak_bytes": max(_known(rows, "peak_bytes")),
        "peak_of": peak,
        "notice": facts.notice,
        "splits": dict(scores),
    }


def _known(rows: Sequence[Mapping[str, str]], name: str) -> list[float]:
    """A column of the log without the empty cells of epochs from before there was such a column; at least one 0."""
    return [float(row[name]) for row in rows if row.get(name)] or [0.0]


def _read_command(flags: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `train`: a model's file, over it `--set`, over both the flags."""
    flags = dict(flags)
    model, config, resume = flags.pop("model", None), flags.pop("config", None), flags.pop("resume", False)
    train_values, spec = read_model(model, config, {**assignments, **flags}, TrainSettings.model_fields)
    origin = f"--{f'config {config}' if config else f'model {model}'} and flags"
    return {"settings": TrainSettings.checked(train_values, origin), "model": spec, "resume": resume}


COMMAND = Command(
    train,
    (ModelFlags, ModelSettingFlags, TrainSettings, ResumeFlag),
    example="pipeline train --model mesm --top-p 0.5 --data data/iemocap --out runs/first",
    read=_read_command,
    takes_set=True,
)

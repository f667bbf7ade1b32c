"""Stage 3: manifest + store + settings -> run directory."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

import torch
from torch import nn

import models
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import folder_lock, read_json_if_any
from data_tools.manifest import read_manifest
from pipeline.checkpoint import Progress, load_state, save_state, seed_everything
from pipeline.config import ConfigError, TrainSettings
from pipeline.damaging import damaged_for_training
from pipeline.engine import Engine, check_compiler, devices_started, resolved_precision, start_fabric
from pipeline.evaluate import BestModel, load_split, load_unseen, record, task_objective
from pipeline.extraction.use import wanted_features, with_sizes
from pipeline.facts import DataFacts
from pipeline.held import HeldBatches, is_to_be_held
from pipeline.loaders import EpochBatches, OrderedBatches, lengths_of, train_loader
from pipeline.loop import Batches, Pass, Share, Update, run_epoch
from pipeline.memory import peak_of
from pipeline.optim import build_optimizer, learning_rates
from pipeline.progress import Reporter
from pipeline.rundir import RunDir, default_path, new_run, resumed_run
from pipeline.sharing import Ranks, agreed
from pipeline.tasks import Task, named, settled, task_of, with_label
from pipeline.trainlog import TrainLog


def train(
    settings: TrainSettings, model_settings: Mapping[str, Any], reporter: Reporter, resume: bool = False
) -> dict[str, Any]:
    """Train a model and keep its best epoch by `settings.monitor` on valid; then evaluate it on valid and test.

    model_settings: what `models.build` takes, with the model's `name`. resume: go on in `settings.out` after the last
    finished epoch; on a CPU the weights come out the same as without the interruption. Returns what the command
    prints, ready for JSON.

    With `devices` or `nodes` above 1 this process starts the others of its machine (unless torchrun or SLURM did),
    which run the same command. Each takes its share of every batch; the first one alone writes the run folder and
    speaks. All return the same.

    Raises:
        ConfigError, ModelError: settings that cannot work, a run folder that is there already, nothing to resume.
        DataError: data is missing, without train or valid, or other than when the run was started; a full disk.
        TrainingError: the loss is not finite.
    """
    prepared = prepare(settings, model_settings)
    settings, model_settings = prepared.settings, prepared.model_settings
    train_split, valid_split = prepared.train_split, prepared.valid_split
    if settings.compile:
        check_compiler()
    fabric = start_fabric(settings.device, settings.precision, settings.devices, settings.nodes)
    ranks = Ranks.of(fabric)
    if not ranks.first:
        reporter = Reporter(quiet=True)
    if settings.features is not None and settings.standardise:
        train_split.scale = valid_split.scale = train_split.fit_scale()
    facts = DataFacts.of(settings.data, train_split, valid_split)
    task = task_of(settings, facts)
    _check_fit(task, model_settings, valid_split)
    run = agreed(fabric, lambda: _run_folder(settings, model_settings, resume))
    seed_everything(settings.seed)
    model = models.build(**{**model_settings, "outputs": task.outputs})
    if settings.init is not None and not run.state.is_file():
        models.start_from(model, settings.init)
    optimizer = build_optimizer(model, model.text_parameters(), settings)
    with folder_lock(run.path) if ranks.first else nullcontext():
        agreed(fabric, lambda: _start(run, settings, model_settings, facts, train_split, valid_split))
        engine = Engine(fabric, model, optimizer, settings.compile)
        progress = _take_up(run, engine, ranks)
        if ranks.first:
            run.note_environment(fabric.device, progress.epoch + 1)
        reporter.say(f"{model_settings['name']} on {settings.data} into {run.path}" + _notice(facts))
        reporter.say(_task_line(task))
        try:
            progress = _fit(run, engine, task, progress, train_split, valid_split, reporter)
        except KeyboardInterrupt:
            reporter.say(f"interrupted; the same command with --resume --out {run.path} goes on after the last epoch")
            raise
        scores = agreed(fabric, lambda: _finish(run, task, valid_split, reporter))
        peak = peak_of(fabric.device)
        return agreed(fabric, lambda: _summary(run, settings, model_settings, model, progress, scores, facts, peak))


@dataclass(frozen=True)
class Prepared:
    """A training that can begin: settings as they are used, and the utterances that have the label of the task."""

    settings: TrainSettings
    model_settings: dict[str, Any]
    train_split: UtteranceDataset
    valid_split: UtteranceDataset


def prepare(settings: TrainSettings, model_settings: Mapping[str, Any]) -> Prepared:
    """Fill in all that is left to the data and the machine. Reads the tables alone, no media.

    Raises:
        ConfigError, ModelError, DataError: as `train`.
    """
    # Before any data is read: a misspelt setting should not cost minutes.
    config = models.config_of(str(model_settings["name"]), {k: v for k, v in model_settings.items() if k != "name"})
    # As it is on this machine, so that the run folder says what was used and a resumed run goes on in it.
    precision = resolved_precision(settings.precision, settings.device)
    features = wanted_features(settings, model_settings)
    devices, nodes = devices_started(settings.devices, settings.nodes)
    as_used = {"precision": precision, "features": features, "devices": devices, "nodes": nodes}
    settings = settings.model_copy(update=as_used)
    train_split, valid_split = (load_split(settings.data, split, features) for split in ("train", "valid"))
    train_split.waveforms = valid_split.waveforms = config.waveform_encoder is not None
    settings, train_split, valid_split = _for_task(settings, train_split, valid_split)
    _check_enough(settings, train_split, valid_split)
    return Prepared(settings, with_sizes(model_settings, train_split), train_split, valid_split)


def _for_task(
    settings: TrainSettings, train_split: UtteranceDataset, valid_split: UtteranceDataset
) -> tuple[TrainSettings, UtteranceDataset, UtteranceDataset]:
    """Settings without `auto` about the task, and the utterances of both splits that have its label."""
    stated = read_json_if_any(settings.data / "dataset.json").get("task")
    task = named(settings.task, train_split.emotions, stated)
    train_split, valid_split = with_label(train_split, task), with_label(valid_split, task)
    return settled(settings, task, [train_split, valid_split]), train_split, valid_split


def _check_enough(settings: TrainSettings, train_split: UtteranceDataset, valid_split: UtteranceDataset) -> None:
    """Every process is to have something to count in every pass."""
    processes = settings.devices * settings.nodes
    if (smallest := min(settings.batch_size, len(train_split), len(valid_split))) < processes:
        raise ConfigError(
            f"{processes} processes share every batch, but batch_size is {settings.batch_size}, train has "
            f"{len(train_split)} utterances and valid {len(valid_split)}; use at most {smallest} processes"
        )


def _check_fit(task: Task, model_settings: Mapping[str, Any], valid_split: UtteranceDataset) -> None:
    """Refuse what cannot work on this data, before there is a run folder."""
    outputs, monitor = model_settings.get("outputs"), task.settings.monitor
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
    return line


def _run_folder(settings: TrainSettings, model_settings: Mapping[str, Any], resume: bool) -> RunDir:
    if resume:
        return resumed_run(settings.out, settings, model_settings)
    return new_run(settings.out or default_path(str(model_settings["name"]), settings.data, datetime.now()))


def _notice(facts: DataFacts) -> str:
    return f" [{facts.notice}]" if facts.notice else ""


def _start(
    run: RunDir,
    settings: TrainSettings,
    model_settings: Mapping[str, Any],
    facts: DataFacts,
    train_split: UtteranceDataset,
    valid_split: UtteranceDataset,
) -> None:
    """Put the run folder in order before the first epoch of this start."""
    run.sweep()
    before = run.facts() if run.settings.is_file() else facts
    if _made_from(before) != _made_from(facts):
        raise DataError(
            f"{settings.data} has other utterances, labels or preprocessing, or other features, than when {run.path} "
            "was started; give the old data folder, or start a new run"
        )
    train_ids, valid_ids = (split.table["utterance_id"].tolist() for split in (train_split, valid_split))
    run.write_start(settings.model_copy(update={"out": run.path}), model_settings, facts, train_ids, valid_ids)


def _made_from(facts: DataFacts) -> tuple[Any, ...]:
    return facts.fingerprint, facts.preprocessing, facts.features


def _take_up(run: RunDir, engine: Engine, ranks: Ranks) -> Progress:
    """The progress of the run so far, its state put into `engine`."""
    if not run.state.is_file():
        return Progress()
    progress = load_state(run.state, engine)
    if progress.best_epoch == progress.epoch and ranks.first:
        # Killed between the two writings, or not: after this the best weights are those of the state.
        models.save(engine.model, run.path)
    return progress


def _fit(
    run: RunDir,
    engine: Engine,
    task: Task,
    progress: Progress,
    train_split: UtteranceDataset,
    valid_split: UtteranceDataset,
    reporter: Reporter,
) -> Progress:
    """Epoch after epoch until there are enough, or `patience` of them brought nothing better."""
    settings, ranks = task.settings, Ranks.of(engine.fabric)
    if _is_over(progress, settings):
        return progress
    lengths = lengths_of(train_split) if settings.batching == "length" else None
    order = EpochBatches(len(train_split), settings.batch_size, settings.seed, lengths, ranks)
    valid_order = OrderedBatches(len(valid_split), settings.batch_size, ranks)
    batches, valid_batches = _read(engine, settings, [(train_split, order), (valid_split, valid_order)])
    if settings.damage is not None:
        batches = damaged_for_training(batches, settings.damage, engine.model, order)
    objective = task_objective(task, engine.fabric.device, settings.loss_weights)
    update = Update(settings.clip_norm, settings.accumulate)
    if ranks.first:
        run.reopen()
    with TrainLog(run, progress.epoch) if ranks.first else nullcontext() as log:
        while not _is_over(progress, settings):
            order.epoch = progress.epoch + 1
            ranks.seed_epoch(settings.seed, order.epoch)
            label = f"epoch {order.epoch}/{settings.epochs}"
            share, valid_share = (None if ranks.alone else Share(ranks, o.sizes()) for o in (order, valid_order))
            trained = run_epoch(engine, batches, objective, reporter, label, update, share)
            validated = run_epoch(engine, valid_batches, objective, reporter, f"{label}, valid", share=valid_share)
            # At the thresholds that this epoch would get on valid.
            scores = task.values(validated, task.choose(validated))
            lower_is_better = task.lower_is_better(settings.monitor)
            progress = progress.after(task.monitored(scores), validated.loss, lower_is_better)
            if log is None:
                continue
            # The row first: one without its state is dropped when the epoch is done again. The best weights last:
            # they can be written again from the state.
            log.add(progress.epoch, trained, validated, scores, learning_rates(engine.optimizer))
            save_state(run.state, engine, progress)
            if progress.best_epoch == progress.epoch:
                models.save(engine.model, run.path)
            line = _epoch_line(label, trained, scores, progress, settings.monitor, peak_of(engine.fabric.device))
            reporter.say(line + _notice(task.facts))
    return progress


def _read(
    engine: Engine,
    settings: TrainSettings,
    splits: Sequence[tuple[UtteranceDataset, EpochBatches | OrderedBatches]],
) -> list[Batches]:
    """The batches of each split in its order: out of memory where all of them fit, else read anew in each epoch."""
    device, tokenize = engine.fabric.device, models.tokenizer_for(engine.model)
    # Damage is drawn on the host.
    place = torch.device("cpu") if settings.damage else device
    if is_to_be_held([split for split, _ in splits], place, settings.keep_on_device, settings.loader_workers):
        return [HeldBatches(split, order, tokenize, place) for split, order in splits]
    pin, workers = device.type == "cuda", settings.loader_workers
    return [train_loader(split, order, tokenize, workers, pin) for split, order in splits]


def _is_over(progress: Progress, settings: TrainSettings) -> bool:
    return progress.epoch >= settings.epochs or progress.waited >= settings.patience


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


def _finish(run: RunDir, task: Task, valid_split: UtteranceDataset, reporter: Reporter) -> dict[str, Any]:
    """Choose the thresholds of the best weights on valid, then write the scores on valid and, if there is one, test."""
    settings = task.settings
    best = BestModel.load(run, settings.device, settings.batch_size)
    validated = best.score(valid_split, reporter, "valid")
    run.write_thresholds(task.choose(validated), "valid", task.reading)
    reports = {"valid": record(run, valid_split, "valid", validated, reporter)}
    if (read_manifest(settings.data)["split"] == "test").any():
        test_split = load_unseen(run, settings.data, "test")
        tested = best.score(test_split, reporter, "test")
        reports["test"] = record(run, test_split, "test", tested, reporter)
    return reports


def _summary(
    run: RunDir,
    settings: TrainSettings,
    model_settings: Mapping[str, Any],
    model: nn.Module,
    progress: Progress,
    scores: Mapping[str, Any],
    facts: DataFacts,
    peak: str,
) -> dict[str, Any]:
    # A later row is of an epoch that was broken off, where a resumed run needed no more epochs.
    rows = [row for row in TrainLog.read(run.log) if int(row["epoch"]) <= progress.epoch]
    seconds = [float(row["train_seconds"]) for row in rows]
    return {
        "run": str(run.path),
        "model": model_settings["name"],
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "task": settings.task,
        "monitor": settings.monitor,
        "valid_score": progress.best_score,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
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

"""A training from its run folder to its last epoch, for `train` and `pretrain`: start, resume, epochs, best weights."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from data_tools.batch import Batch
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from models.output import Output
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.run_data import DataFacts
from pipeline.run_start import default_path, new_run, resumed_run
from pipeline.training.batches import EpochBatches, OrderedBatches
from pipeline.training.device import Ranks
from pipeline.training.engine import Engine, learning_rates, lower_rates
from pipeline.training.log import TrainLog
from pipeline.training.loop import Batches, Pass, Share, Update, run_epoch
from pipeline.training.losses import Loss
from pipeline.training.settings import TrainSettings
from pipeline.training.state import Progress, load_state, save_state

Scores = dict[str, float | None]


@dataclass(frozen=True)
class Epochs:
    """The parts of an epoch in which trainings differ.

    order, valid_order: batches of positions of both splits. batches, valid_batches: the same as tensors.
    scores: metrics of a pass over valid by name. monitored: the one of them that the best epoch is chosen by.
    line: what a person reads of an epoch (label, passes over train and valid, scores, progress).
    save_best: writes the best weights. begin: called with each epoch's number before it.
    """

    order: EpochBatches
    valid_order: OrderedBatches
    batches: Batches
    valid_batches: Batches
    objective: Callable[[Output, Batch], Loss]
    scores: Callable[[Pass], Scores]
    monitored: Callable[[Scores], float]
    lower_is_better: bool
    line: Callable[[str, Pass, Pass, Scores, Progress], str]
    save_best: Callable[[], None]
    begin: Callable[[int], None] | None = None


def open_run(name: str, settings: TrainSettings, recorded: Mapping[str, Any], resume: bool) -> RunDir:
    """The run folder that `settings.out` names: a new one, or with `resume` the one to go on in.

    name: begins the default folder's. recorded: what settings.yaml has under `model`.

    Raises:
        ConfigError: the folder is there already, or there is nothing to resume, or it was started with other settings.
    """
    if resume:
        return resumed_run(settings.out, settings, recorded)
    return new_run(settings.out or default_path(name, settings.folders, datetime.now()))


def start_run(
    run: RunDir,
    settings: TrainSettings,
    recorded: Mapping[str, Any],
    facts: DataFacts,
    train_split: UtteranceDataset,
    valid_split: UtteranceDataset,
) -> None:
    """Put the run folder in order before the first epoch of this start.

    Raises:
        DataError: a run that is resumed was started on other data, or the folder cannot be written.
    """
    run.sweep()
    if run.settings.is_file() and not run.facts().same_data(facts):
        raise DataError(
            f"{settings.data} has other utterances, labels or preprocessing, or other words or features, than when "
            f"{run.path} was started; give the old data folder, or start a new run"
        )
    train_ids, valid_ids = (split.table["utterance_id"].tolist() for split in (train_split, valid_split))
    run.write_start(settings.model_copy(update={"out": run.path}), recorded, facts, train_ids, valid_ids)


def resume_progress(run: RunDir, engine: Engine, save_best: Callable[[], None]) -> Progress:
    """The progress of the run so far, its state put into `engine`; the best weights are written where it holds them."""
    if not run.state.is_file():
        return Progress()
    progress = load_state(run.state, engine)
    if progress.best_epoch == progress.epoch:
        # Killed between the two writings, or not: after this the best weights are those of the state.
        save_best()
    return progress


def is_over(progress: Progress, settings: TrainSettings) -> bool:
    """True where there are enough epochs, or `patience` of them brought nothing better."""
    return progress.epoch >= settings.epochs or progress.waited >= settings.patience


def run_epochs(
    run: RunDir, engine: Engine, settings: TrainSettings, progress: Progress, epochs: Epochs, reporter: Reporter
) -> Progress:
    """Epoch after epoch until the training is over; the first process alone writes and speaks. One line an epoch.

    Raises:
        TrainingError: the loss is not finite. DataError: something cannot be written.
    """
    ranks = Ranks.from_fabric(engine.fabric)
    if ranks.first:
        run.reopen()
    with TrainLog(run, progress.epoch) if ranks.first else nullcontext() as log:
        while not is_over(progress, settings):
            number = progress.epoch + 1
            epochs.order.epoch = number
            ranks.seed_epoch(settings.seed, number)
            if epochs.begin is not None:
                epochs.begin(number)
            label = f"epoch {number}/{settings.epochs}"
            orders = epochs.order, epochs.valid_order
            share, valid_share = (None if ranks.alone else Share(ranks, order.sizes()) for order in orders)
            update = Update(settings.clip_norm, settings.accumulate, epochs.order.parts())
            trained = run_epoch(engine, epochs.batches, epochs.objective, reporter, label, update, share)
            validated = run_epoch(
                engine, epochs.valid_batches, epochs.objective, reporter, f"{label}, valid", share=valid_share
            )
            scores = epochs.scores(validated)
            progress = progress.after(epochs.monitored(scores), validated.loss, epochs.lower_is_better)
            # Those that this epoch had.
            rates = learning_rates(engine.optimizer)
            if settings.plateau is not None:
                progress = lower_rates(engine.optimizer, progress, validated.loss, settings.plateau)
            if log is None:
                continue
            # The row first: one without its state is dropped when the epoch is done again. The best weights last:
            # they can be written again from the state.
            log.add(progress.epoch, trained, validated, scores, rates)
            save_state(run.state, engine, progress)
            if progress.best_epoch == progress.epoch:
                epochs.save_best()
            reporter.say(epochs.line(label, trained, validated, scores, progress))
    return progress


def log_of(run: RunDir, progress: Progress) -> list[dict[str, str]]:
    """Rows of log.csv up to `progress`: a later one is of an epoch that was broken off before a resumed run ended."""
    return [row for row in TrainLog.read(run.log) if int(row["epoch"]) <= progress.epoch]

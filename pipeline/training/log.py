"""The course of a training: one row an epoch in log.csv, the same numbers as TensorBoard events."""

import csv
import io
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from data_tools.errors import DataError
from data_tools.files import read_limited, write_text
from pipeline.run import RunDir
from pipeline.settings import ConfigError
from pipeline.training.loop import Pass

_EPOCH = re.compile("[0-9]{1,9}")
_EVENTS = re.compile(r"events\.out\.tfevents\.(\d{1,12})\..*", re.DOTALL)


class TrainLog:
    """Rows up to `epoch` are kept from an earlier start; later ones belong to an epoch that is done again.

    Raises:
        DataError: the log or the events cannot be written, or an earlier log cannot be read.
    """

    def __init__(self, run: RunDir, epoch: int) -> None:
        self.path = run.log
        self.rows = [row for row in self.read(run.log) if int(row["epoch"]) <= epoch]
        self.events = run.events
        # Importing it takes most of a second, which no other reader of a log needs.
        from torch.utils.tensorboard import SummaryWriter

        with self._writing():
            _wait_for_a_later_name(run.events)
            self.writer = SummaryWriter(str(run.events), purge_step=epoch + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writing():
            self.writer.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"cannot write {self.events}: {reason}; check permissions and free space") from error

    @staticmethod
    def read(path: Path) -> list[dict[str, str]]:
        """The rows of a log.csv, in order; none where there is no file.

        Raises:
            DataError: a cell is neither empty nor a number, or the file cannot be read.
        """
        if not path.is_file():
            return []
        try:
            rows = list(csv.DictReader(io.StringIO(read_limited(path).decode("utf-8"), newline="")))
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{path} cannot be read ({error}); restore it or train again") from error
        if not all(_EPOCH.fullmatch(str(row.get("epoch"))) for row in rows):
            raise DataError(f"{path} is damaged: a row without the number of its epoch; restore it or train again")
        for row in rows:
            if odd := [name for name, cell in row.items() if not _is_number(cell)]:
                raise DataError(
                    f"{path} is damaged: {odd[0]} in the row of epoch {row['epoch']} is no number; restore it or train "
                    "again"
                )
        return rows

    def add(
        self,
        epoch: int,
        trained: Pass,
        validated: Pass,
        scores: Mapping[str, float | None],
        learning_rates: Mapping[str, float],
    ) -> None:
        """One more epoch. Columns that two runs of one seed share come first, the times last.

        What the model computed in training (`face.macs`, `mel.share.1` ...) stands under its own name, per utterance.
        """
        row: dict[str, Any] = {"epoch": epoch, "train_loss": trained.loss}
        row |= {f"train_{name}": value for name, value in trained.parts.items()}
        # An empty cell is a score that is undefined on this split.
        row |= {f"valid_{name}": value for name, value in scores.items()}
        row |= {f"valid_{name}": value for name, value in validated.parts.items()}
        row |= {f"learning_rate_{name}": value for name, value in learning_rates.items()}
        row |= trained.computed
        row |= {
            "steps": trained.steps,
            "train_seconds": trained.seconds,
            "valid_seconds": validated.seconds,
            "step_seconds": trained.seconds / trained.steps,
            "wait_seconds": trained.wait_s,
            "data_wait_share": trained.wait_s / trained.seconds,
            "samples_per_second": len(trained.ids) / trained.seconds,
            "peak_bytes": trained.peak_bytes,
        }
        self.rows.append({name: "" if value is None else str(value) for name, value in row.items()})
        text = io.StringIO()
        table = csv.DictWriter(text, list(row), lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_text(self.path, text.getvalue())
        with self._writing():
            for name, value in row.items():
                if value is not None and name != "epoch":
                    self.writer.add_scalar(name, value, epoch)
            self.writer.flush()


def _is_number(cell: Any) -> bool:
    """Return True for the text of a number, and for an empty cell: a score that is undefined, or a column of later."""
    try:
        return not cell or math.isfinite(float(cell))
    except (TypeError, ValueError):
        return False


def done_in_training(run: RunDir) -> dict[str, Any]:
    """Multiply-adds of the forward passes of the last epoch's training, per utterance of the run's own data.

    Returns {"folder", "epoch", "per_utterance": mean multiply-adds by part and "total", "share_of_sites": means over
    the epoch's batches, e.g. "face.share.1"}. Parts are those that the model has; none for a model that counts none.

    Raises:
        ConfigError: no epoch is finished.
        DataError: the log is damaged.
    """
    rows = TrainLog.read(run.log)
    if not rows:
        raise ConfigError(f"{run.log} has no finished epoch; go on with `pipeline train --resume` on it")
    last = rows[-1]
    done = {part: float(last[f"{part}.macs"]) for part in ("face", "mel", "text") if last.get(f"{part}.macs")}
    return {
        "folder": str(run.path),
        "epoch": int(last["epoch"]),
        "per_utterance": {**done, "total": sum(done.values())},
        "share_of_sites": {key: float(value) for key, value in last.items() if ".share." in key},
    }


def _wait_for_a_later_name(events: Path) -> None:
    """Wait until the second is over in which the last file of events was begun.

    TensorBoard reads them by name: second, machine, process, a count that is no longer in order from 10 on. A start
    within the same second as the one before could be read as the earlier one, and the epoch done again would stay.
    """
    names = map(_EVENTS.fullmatch, (path.name for path in events.glob("events.out.tfevents.*")))
    last_s = max((int(name[1]) for name in names if name), default=0)
    # A clock that was set back since then is not waited for.
    while int(time.time()) == last_s:
        time.sleep(0.02)

"""The multiply-adds that a training really did, read from its log."""

from typing import Any

from pipeline.run import RunDir
from pipeline.settings import ConfigError
from pipeline.training.log import TrainLog

PARTS = ("face", "mel", "text")


def done_in_training(run: RunDir) -> dict[str, Any]:
    """What the forward passes of the last epoch's training multiplied, per utterance of the run's own data.

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
    done = {part: float(last[f"{part}.macs"]) for part in PARTS if last.get(f"{part}.macs")}
    return {
        "folder": str(run.path),
        "epoch": int(last["epoch"]),
        "per_utterance": {**done, "total": sum(done.values())},
        "share_of_sites": {key: float(value) for key, value in last.items() if ".share." in key},
    }

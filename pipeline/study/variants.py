"""What the studies share: variants of a model's settings, each trained with every seed, in one folder with one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.counting.done import done_in_training
from pipeline.metrics.seeds import mean_and_spread
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.settings import ConfigError
from pipeline.study.grid import check_runs
from pipeline.study.plan import CompareSettings, Planned, plan
from pipeline.study.runs import Trained, train_all, wanted_runs


def refuse_own(asked: CompareSettings, key: str, instead: str) -> None:
    """Refuse a setting that the study itself gives to each run. instead: what to do.

    Raises:
        ConfigError: `--set` has it.
    """
    if key in asked.values:
        raise ConfigError(f"--set {key}: {instead}")


def planned_variant(asked: CompareSettings, reporter: Reporter, **values: Any) -> list[Planned]:
    """Every model of the study with `values` laid over its settings, where it has them; as `compare.plan.plan`."""
    return plan(asked.model_copy(update={"values": {**asked.values, **values}}), reporter).planned


def train_rows(
    out: Path, rows: Mapping[str, tuple[str, Planned]], asked: CompareSettings, reporter: Reporter
) -> Trained:
    """Train what is not trained yet. rows: label -> (its folder in `out`, what is trained).

    Raises:
        ConfigError, DataError: as `pipeline.study.runs.train_all`; too many runs.
    """
    check_runs(len(rows) * asked.seeds, f"{len(rows)} rows with --seeds {asked.seeds}")
    trainings = {label: (folder, planned.prepared) for label, (folder, planned) in rows.items()}
    return train_all(wanted_runs(out, trainings, asked.seeds), reporter)


def metric_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The metric that the best epochs were chosen by: its `name`, and what the result says of it."""
    name: str = result["monitor"]
    return {"name": name} | result["metrics"][_protocol(result)][name]


def main_scores(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Label -> mean, spread and values of that metric over the seeds, of those that came to an end."""
    metric = result["monitor"]
    return {row["model"]: row["scores"][_protocol(result)][metric] for row in result["models"]}


def _protocol(result: Mapping[str, Any]) -> str:
    task: str = result["task"]
    return task.replace("-", "_")


def done_over_seeds(runs: Sequence[RunDir]) -> dict[str, Any]:
    """What the runs of one row really multiplied in training, per utterance, means over the seeds.

    Returns {"towers": of faces and sound with attention and sequence encoders, "towers_spread", "text", "total",
    "share_of_sites"}; the first four are 0 for a model that counts nothing.
    """
    done = [done_in_training(run) for run in runs]
    towers = [sum(one["per_utterance"].get(part, 0.0) for part in ("face", "mel")) for one in done]
    mean, spread = mean_and_spread(towers)
    return {
        "towers": mean,
        "towers_spread": spread,
        "text": _mean([one["per_utterance"].get("text", 0.0) for one in done]),
        "total": _mean([one["per_utterance"]["total"] for one in done]),
        "share_of_sites": {
            key: _mean([one["share_of_sites"][key] for one in done]) for key in done[0]["share_of_sites"]
        },
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

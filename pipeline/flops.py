"""`pipeline flops`: multiply-adds by part and parameters, beside the figures of the papers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.command import Command
from pipeline.counting import published as paper
from pipeline.model_configs import read_model
from pipeline.settings import (
    ConfigError,
    LocalPath,
    ModelFlags,
    ModelSettingFlags,
    ModelSpec,
    Settings,
    flag,
)
from pipeline.training.settings import TrainSettings


class RunFlag(Settings):
    """The flag `--run`."""

    run: LocalPath | None = flag(None, help="A run folder: also what its training really multiplied.")


def flops(model: ModelSpec | None = None, run: Path | None = None) -> dict[str, Any]:
    """Counts of a model, or of the model that a run kept, or with neither FE2E and MESM beside Tables 3 and 4.

    Raises:
        ConfigError: not a run, or no epoch of it is finished. ModelError: the text encoder or the model cannot be read.
    """
    # Torch is needed only here: for the flags it is not.
    from pipeline.counting.model import count_model, count_run

    if run is not None:
        return count_run(run)
    return beside_paper() if model is None else count_model(model.name, model.given)


def format_flops(result: dict[str, Any]) -> str:
    """The result as lines for a person; figures in units of 1e6 (M) and 1e9 (G)."""
    from pipeline.counting.model import format_model

    return format_beside(result) if "rows" in result else format_model(result)


def _read_command(flags: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    flags = dict(flags)
    run = RunFlag.checked({"run": flags.pop("run", None)}, "flags").run
    if run is not None and (flags or assignments):
        raise ConfigError("--run says which model it is: leave the other flags out")
    if unused := set(assignments) & set(TrainSettings.model_fields):
        raise ConfigError(f"--set {', '.join(sorted(unused))}: a setting of training, which changes no count here")
    if run is not None or not (flags or assignments):
        return {"run": run}
    model, config = flags.pop("model", None), flags.pop("config", None)
    return {"model": read_model(model, config, {**assignments, **flags}, ())[1]}


_COLUMNS = (
    "model",
    "one face",
    "one chunk",
    "convolutions",
    "utterance",
    "of FE2E",
    "paper",
    "of FE2E",
    "code, of FE2E",
)


def beside_paper() -> dict[str, Any]:
    """Our counts of the models in the paper's tables, ready for JSON.

    Of MESM what sites that are really active need is counted (backend `torch`), on seeded random faces and mels with
    new weights: `pipeline flops --run` counts a trained one. `of_fe2e`: by convolutions of the utterance.
    """
    from pipeline.counting.model import count_model

    sparse = {top_p: count_model("mesm", {"top_p": top_p, "backend": "torch"}) for top_p in paper.MESM}
    dense = count_model("fe2e", {})
    rows = [_row("fe2e", None, dense, 1.0, paper.FE2E, 1.0, 1.0)]
    for top_p, counted in sparse.items():
        share = counted["convolutions"]["of_fe2e"]
        of_fe2e, of_code = paper.of_fe2e(top_p), paper.CODE_OF_FE2E[top_p]
        rows.append(_row("mesm", top_p, counted, share, paper.MESM[top_p], of_fe2e, of_code))
    inputs = {"fe2e": dense["input"], "mesm": sparse[min(sparse)]["input"]}
    return {"unit": "multiply-adds", "input": inputs, "rows": rows, "explanation": list(paper.EXPLANATION)}


def _row(
    model: str,
    top_p: float | None,
    counted: dict[str, Any],
    share: float,
    published: float,
    published_share: float,
    code_share: float,
) -> dict[str, Any]:
    return {
        "model": model,
        "top_p": top_p,
        "per_face": counted["per_face"]["total"],
        "per_chunk": counted["per_chunk"]["total"],
        "convolutions": counted["convolutions"]["macs"],
        "utterance": counted["utterance"],
        "of_fe2e": share,
        "paper": {"flops": published, "of_fe2e": published_share},
        "code_of_fe2e": code_share,
    }


def format_beside(found: dict[str, Any]) -> str:
    """The counts as a table for a person; figures in units of 1e6 (M) and 1e9 (G)."""
    table = [_COLUMNS, *(_cells(row) for row in found["rows"])]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(_COLUMNS))]
    first, *others = found["input"].values()
    lines = [f"multiply-adds for {first}", *(f"mesm: {text}" for text in others), ""]
    for cells in table:
        name, *numbers = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join([name, *numbers]))
    return "\n".join([*lines, "", *found["explanation"]])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    published = row["paper"]
    return (
        row["model"] + ("" if row["top_p"] is None else f", top_p {row['top_p']}"),
        f"{row['per_face'] / 1e6:.2f}M",
        f"{row['per_chunk'] / 1e6:.2f}M",
        f"{row['convolutions'] / 1e9:.2f}G",
        f"{row['utterance']['total'] / 1e9:.2f}G",
        f"{row['of_fe2e']:.2f}",
        f"{published['flops'] / 1e9:.2f}G",
        f"{published['of_fe2e']:.2f}",
        f"{row['code_of_fe2e']:.2f}",
    )


COMMAND = Command(
    flops,
    (ModelFlags, ModelSettingFlags, RunFlag),
    example="pipeline flops --model mesm --top-p 0.5",
    read=_read_command,
    takes_set=True,
    for_people=format_flops,
)

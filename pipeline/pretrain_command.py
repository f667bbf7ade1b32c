"""The sub-command `pretrain`: parsing only."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.options import Config, Json, Resume, Set, TrainData, TrainDevice, flags_given, model_config, print_result
from pipeline.progress import Reporter
from pipeline.settings import TrainSettings, parse_assignments

PRETRAIN_EXAMPLE = "Example: pipeline pretrain --model cmt --stage mlm --data data/librispeech --out runs/mlm"


def pretrain(
    stage: Annotated[str, typer.Option(help="mlm: anew; tapt: on the task's data, goes on from --set init=FOLDER.")],
    model: Annotated[str | None, typer.Option(help="A model with its default settings: cmt.")] = None,
    config: Config = None,
    data: TrainData = None,
    out: Annotated[Path | None, typer.Option(help="By default runs/cmt-<stage>-<dataset>-<time>.")] = None,
    device: TrainDevice = None,
    seed: int | None = None,
    resume: Resume = False,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Pretrain CMT without labels, before `train`: hidden words and sounds are guessed from both sides."""
    from pipeline.pretrain import PretrainSettings
    from pipeline.pretrain import pretrain as run

    _, model_values = model_config(model, config, None)  # the file's section `train` is about training
    train_values: dict[str, Any] = flags_given(data=data, out=out, device=device, seed=seed)
    own: dict[str, Any] = {"stage": stage}
    for key, value in parse_assignments(settings or []).items():
        in_train, in_own = key in TrainSettings.model_fields, key in PretrainSettings.model_fields
        (train_values if in_train else own if in_own else model_values)[key] = value
    checked = TrainSettings.checked(train_values, "flags"), PretrainSettings.checked(own, "flags")
    print_result(run(*checked, model_values, Reporter(), resume=resume), as_json)

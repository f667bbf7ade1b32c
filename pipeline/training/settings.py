"""Settings of training, all but the network itself, whose settings are `models`' own."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.settings import (
    DEFAULT_DATA,
    LABELS_HELP,
    Device,
    LocalPath,
    Settings,
    SplitProtocol,
    first_and_further,
    flag,
)


class DamageSettings(Settings):
    """Damage to the training input, drawn anew in each epoch, and to valid; see data_tools/damage.py."""

    protocol: Literal["random", "modalities", "bernoulli"] = Field(
        "random", description="steps go at random; some modalities are absent; noise on all elements"
    )
    rate: Annotated[float, Field(ge=0, le=1)] | tuple[float, float] | None = Field(
        None, description="random: the share that goes, or [low, high] for one of each utterance's own; bernoulli: 0.5"
    )
    seed: int = Field(0, ge=0)
    valid: bool = Field(
        True, description="valid is damaged too, in the same way in every epoch: the best epoch is best on such input"
    )

    @model_validator(mode="after")
    def _rate_fits_the_protocol(self) -> Self:
        if isinstance(self.rate, tuple) and not 0 <= self.rate[0] <= self.rate[1] <= 1:
            raise ValueError(f"rate is {list(self.rate)}: give [low, high] with 0 <= low <= high <= 1")
        if self.protocol == "random" and self.rate is None:
            raise ValueError("protocol random needs a rate, for example rate: [0.1, 1.0]")
        if self.protocol == "modalities" and self.rate is not None:
            raise ValueError("protocol modalities has no rate: each subset of them is present as often; leave it out")
        if self.protocol == "bernoulli" and isinstance(self.rate, tuple):
            raise ValueError("protocol bernoulli takes one rate, the probability of noise")
        return self


class PlateauSettings(Settings):
    """Smaller steps where the loss on valid stands still, as torch's ReduceLROnPlateau."""

    factor: float = Field(0.1, gt=0, lt=1, description="of all learning rates, each time")
    patience: int = Field(20, ge=0, description="epochs without a lower loss on valid that are waited")


class TrainSettings(Settings):
    """Settings of training, stage 3. A file in configs/models has them under `train`."""

    data: LocalPath = flag(
        DEFAULT_DATA, repeats=True, help="The data folder that `pipeline reorganize` made; several for one run on all."
    )
    more_data: tuple[LocalPath, ...] = Field((), description="further data folders, as further --data give them")
    labels: str | None = flag(None, help=LABELS_HELP)
    learn_emotions: tuple[str, ...] | None = Field(
        None, description="of the label map, those to learn; None: those that every data folder has"
    )
    out: LocalPath | None = flag(None, help="The run folder, by default runs/<model>-<dataset>-<time>.")
    features: str | None = Field(
        None,
        description="extracted features for a model that reads them: a name, or t=NAME,a=NAME,v=NAME for one of each "
        "modality; None: `default`, or what was imported",
    )
    init: LocalPath | None = Field(
        None, description="a run folder of `pretrain` or `train`, whose weights a new run starts from"
    )
    split: SplitProtocol | None = Field(
        None,
        description="another split of the data folder for this run: session:K, speaker:ID, random, random:utterance, "
        "lists:FOLDER; None: the folder's own",
    )
    train_fraction: float = Field(
        1.0, gt=0, le=1, description="about this share of train is learned from; a smaller one is part of a larger one"
    )
    standardise: bool = Field(True, description="features less the mean of train, over its deviation")
    epochs: int = Field(40, ge=1)
    patience: int = Field(5, ge=1, description="epochs without a better validation score before stopping")
    batch_size: int = Field(8, ge=1, description="utterances of a batch, all processes together")
    max_batch_steps: int = Field(
        1024,
        ge=1,
        description="faces and chunks computed at once, of extracted features 64 times as many steps; a larger batch "
        "comes in parts whose gradients add up",
    )
    batching: Literal["length", "random"] = Field(
        "length", description="length: utterances of similar length meet in a batch; random: any"
    )
    accumulate: int = Field(1, ge=1, description="batches summed before a step")
    learning_rate: float = Field(5e-5, gt=0)
    text_learning_rate_scale: float = Field(0.1, ge=0, description="of learning_rate; 0 freezes the text encoder")
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    plateau: PlateauSettings | None = Field(
        None, description="smaller steps where the loss on valid stands still: {factor: 0.1, patience: 20}; None: none"
    )
    task: Literal["auto", "multi-label", "single-label", "sentiment"] = Field(
        "auto",
        description="auto: what the data set's own config states (single-label: iemocap-4, iemocap-5, meld, ravdess, "
        "crema-d, mer2023 to mer2025), "
        "else multi-label where it has emotions, else sentiment",
    )
    loss: Literal["auto", "bce", "bce_plain", "cross_entropy", "balanced_cross_entropy", "l1", "mse"] = Field(
        "auto",
        description="auto: bce for multi-label, cross_entropy for single-label, l1 for sentiment; bce_plain weighs "
        "positives and negatives alike",
    )
    thresholds: Literal["tuned", "fixed"] = Field(
        "tuned", description="of multi-label: by F1 of each emotion on valid; fixed: 0.5 for every emotion"
    )
    monitor: str = Field(
        "auto",
        description="loss or a metric of the task, by its name in metrics.json; auto: f1 for multi-label, "
        "unweighted_accuracy for single-label, mae for sentiment",
    )
    sentiment_range: Literal["auto", 1, 3] = Field(
        "auto", description="the end of the corpus' scale, which says what metrics there are; auto: from its labels"
    )
    loss_weights: dict[str, float] = Field({}, description="weight of each further loss a model returns, by name")
    damage: DamageSettings | None = Field(None, description="damage to the training input; None: none")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = flag(
        "auto",
        help="auto, 32-true, bf16-mixed or 16-mixed; auto: bf16-mixed where the processor or GPU multiplies bfloat16 "
        "itself, else 32-true.",
    )
    device: Device = flag("auto", help="auto, cpu or cuda.")
    devices: int = flag(1, ge=1, help="Processes of each machine that share every batch (DDP).")
    nodes: int = flag(1, ge=1, help="Machines that train together; they mount the same folders.")
    compile: bool = flag(False, help="Use torch.compile, which needs a C++ compiler.")
    keep_on_device: Literal["auto"] | bool = Field(
        "auto",
        description="all utterances in the device's memory; auto: where they fit and no loader_workers are asked",
    )
    loader_workers: int = Field(0, ge=0, description="processes that read")
    seed: int = flag(0, help="Of weights, batches, dropout and damage.")

    _several = model_validator(mode="before")(first_and_further)

    @model_validator(mode="after")
    def _folders_and_emotions_fit(self) -> Self:
        if len({folder.resolve() for folder in self.folders}) < len(self.folders):
            raise ValueError(f"data names a folder twice: {', '.join(map(str, self.folders))}")
        if self.learn_emotions is not None and self.labels is None:
            raise ValueError("learn_emotions are those of a label map: name one with --labels")
        if self.split is not None and self.more_data:
            raise ValueError(f"split is {self.split.portable}: another split is for one data folder; leave it out")
        return self

    @property
    def folders(self) -> tuple[Path, ...]:
        """All data folders."""
        return (self.data, *self.more_data)

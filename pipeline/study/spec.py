"""A paper's table or figure as one YAML of configs/studies: rows, columns, protocol, and what was published."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from data_tools.folds import FoldsBy
from pipeline.settings import ConfigError, Settings, configs_dir, did_you_mean, read_yaml

FOLDER = "studies"


class Column(Settings):
    """A column of the table, one of these.

    metric: by its name in metrics.json; emotion: of one class alone. protocol: of the scores, by default the task's.
    count: parameters or multiply-adds of the model. layer: weight of a layer of CMT's audio, from 1.
    condition: of damage, the relative drop of the metric in percent there. scale: what ours is multiplied by.
    """

    label: str
    metric: str | None = None
    protocol: str | None = None
    emotion: str | None = None
    count: (
        Literal["parameters", "fusion_parameters", "fusion_multiply_adds", "tower_multiply_adds", "multiply_adds"]
        | None
    ) = None
    layer: int | None = Field(None, ge=1)
    condition: str | None = None
    scale: float = 1.0

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(source is not None for source in (self.metric, self.count, self.layer)) != 1:
            raise ValueError(f"column {self.label!r} needs exactly one of metric, count and layer")
        return self


class Row(Settings):
    """A row of the table. config: what is trained; None for a system that is not built here.

    set: settings laid over the config. starts_from: a run of `pretrain` that it needs. published: a figure a column.
    """

    label: str
    config: str | None = None
    set: dict[str, Any] = Field({})
    starts_from: Literal["pretrained", "adapted"] | None = None
    published: tuple[float | None, ...] = ()


class Study(Settings):
    """One table or figure.

    kind: scores of trainings; missing: each row trained and tested at each missing rate, AUILC; damage: whole trainings
    scored on damaged input; counts: nothing is trained; sites: what MESM keeps, as pictures.
    corpora: data sets whose figures were published. needs: further conditions, in words. set: settings of all rows.
    rates: of `missing`; None for the data set's own. damage: protocol of `damage`. took: on the stand-in, in words.
    """

    paper: str
    shows: str
    title: str
    kind: Literal["scores", "missing", "damage", "counts", "sites"] = "scores"
    corpora: tuple[str, ...] = ()
    needs: str = ""
    note: str = ""
    seeds: int = Field(1, ge=1)
    folds: FoldsBy | None = None
    set: dict[str, Any] = Field({})
    damage: Literal["modalities", "bernoulli"] | None = None
    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = Field(min_length=1)
    took: str = "not measured"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        labels = [row.label for row in self.rows]
        if len(set(labels)) < len(labels):
            raise ValueError("two rows have one label")
        if wrong := [row.label for row in self.rows if row.published and len(row.published) != len(self.columns)]:
            raise ValueError(f"row {wrong[0]!r} has another number of published figures than there are columns")
        if (self.kind == "damage") is not (self.damage is not None):
            raise ValueError("damage names a protocol in a study of kind damage, and in no other")
        return self


def study_names() -> list[str]:
    """Names of the studies, sorted."""
    return sorted(path.stem for path in (configs_dir() / FOLDER).glob("*.yaml"))


def load_study(name: str) -> Study:
    """The study called `name`. Raises ConfigError where there is none, or its file is of another form."""
    known = study_names()
    if name not in known:
        raise ConfigError(
            f"no study {name!r}{did_you_mean(name, known)}; `pipeline reproduce --list` lists them: {', '.join(known)}"
        )
    return Study.checked(read_yaml(configs_dir() / FOLDER / f"{name}.yaml"), f"configs/studies/{name}.yaml")

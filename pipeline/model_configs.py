"""Configs of models, configs/models/*.yaml: settings of the network and of training, with columns by corpus.

A config has these sections, of which `model`, with a `name`, is in it or in its base:

- `base`: another config, whose settings this one's are laid over.
- `model`, `train`: settings.
- `corpora`: data set -> the config of its column in the paper's table, or settings that are laid over this one's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.run_data import dataset_name
from pipeline.settings import DEFAULT_DATA, ConfigError, ModelSpec, did_you_mean, load_config

_SECTIONS = ("base", "model", "train", "corpora")
# Files that lead to each other; more is a circle.
_DEEPEST = 8

Sections = tuple[dict[str, Any], dict[str, Any]]


@dataclass(frozen=True)
class ModelConfig:
    """A config as it is used. name: as it was asked for. model: settings with the `name` of the model.

    train: settings of training. note: which column was taken for which corpus; empty where there is no choice.
    """

    name: str
    model: dict[str, Any]
    train: dict[str, Any]
    note: str = ""

    @property
    def label(self) -> str:
        """Row of a table and folder of runs: the name, of a YAML file its own without folder and ending."""
        return Path(self.name).stem if self.name.lower().endswith((".yaml", ".yml")) else self.name


def load_model_config(name: str, corpus: str | None = None) -> ModelConfig:
    """The config called `name`, or the YAML file of that path, with what it is based on.

    corpus: name of a data set, whose column is taken where the config has one; `iemocap-4` and `mosi_mmsa` are
    iemocap and mosi where the whole name has none. None: the config as it stands.

    Raises:
        ConfigError: no such config, or one of another form.
    """
    taken: list[str] = []
    model, train = _sections(name, corpus, taken)
    if "name" not in model:
        raise ConfigError(f"config {name!r}: expected mappings `model`, with a name, and `train`")
    note = f"{name} on {corpus}: the column {', '.join(taken)}" if taken else ""
    return ModelConfig(name, model, train, note)


def _sections(name: str, corpus: str | None, taken: list[str], depth: int = 0) -> Sections:
    if depth == _DEEPEST:
        raise ConfigError(f"config {name!r} has too many bases: `base` and `corpora` lead in a circle")
    file = load_config("models", name)
    if unknown := set(file) - set(_SECTIONS):
        raise ConfigError(
            f"config {name!r} has unknown sections {sorted(map(str, unknown))}; known: {', '.join(_SECTIONS)}"
        )
    sections = {key: file.get(key) or {} for key in ("model", "train", "corpora")}
    if wrong := [key for key, values in sections.items() if not isinstance(values, dict)]:
        raise ConfigError(f"config {name!r}: {wrong[0]} is {sections[wrong[0]]!r:.60}, expected mappings")
    column = _column(sections["corpora"], corpus)
    if isinstance(column, str):
        taken.append(column)
        return _sections(column, None, taken, depth + 1)
    model, train = ({}, {}) if "base" not in file else _sections(str(file["base"]), corpus, taken, depth + 1)
    model, train = model | sections["model"], train | sections["train"]
    if column is not None:
        if not isinstance(column, dict) or set(column) - {"model", "train"}:
            raise ConfigError(f"config {name!r}: corpora.{corpus} is neither a config's name nor model and train")
        taken.append(f"of {name}")
        model, train = model | (column.get("model") or {}), train | (column.get("train") or {})
    return model, train


def _column(corpora: Mapping[str, Any], corpus: str | None) -> Any:
    if corpus is None:
        return None
    family = corpus.replace("_", "-").partition("-")[0]
    return corpora.get(corpus, corpora.get(family))


def read_model(
    model: str | None, config: str | None, values: Mapping[str, Any], train_fields: Iterable[str]
) -> tuple[dict[str, Any], ModelSpec]:
    """(training settings, model) of a config with `values` laid over both.

    model: the config's column for the corpus in `values["data"]` is taken, where it has one; none for several corpora.
    config: as it stands.
    values: what flags and `--set` give; a key of `train_fields` belongs to training, any other to the model.

    Raises:
        ConfigError: neither or both of model and config, a file of another form, or a key that belongs to neither.
        ModelError: as `ModelSpec.checked`. DataError: dataset.json is damaged.
    """
    if (model is None) == (config is None):
        raise ConfigError("give either --model NAME or --config NAME, for example --model mesm")
    train_keys = set(train_fields)
    corpus = _corpus_of(values) if model and "data" in train_keys else None
    found = load_model_config(config or model or "", corpus)
    train_values, model_values = dict(found.train), dict(found.model)
    model_keys = fields_of_model(str(model_values["name"]))
    for key, value in values.items():
        if key not in train_keys and key not in model_keys:
            raise ConfigError(
                f"{key} is a setting neither of training nor of {model_values['name']}"
                f"{did_you_mean(key, train_keys | model_keys)}\n  training: {', '.join(sorted(train_keys))}\n"
                f"  {model_values['name']}: {', '.join(sorted(model_keys))}"
            )
        (train_values if key in train_keys else model_values)[key] = value
    return train_values, ModelSpec.from_dict(model_values, found.note)


def _corpus_of(values: Mapping[str, Any]) -> str | None:
    """Name of the corpus of the data folders in `values`; None where there are several corpora."""
    data = values.get("data") or DEFAULT_DATA
    folders = [*(data if isinstance(data, list | tuple) else [data]), *values.get("more_data", ())]
    names = {dataset_name(Path(folder)) for folder in folders}
    return names.pop() if len(names) == 1 else None


def fields_of_model(name: str) -> set[str]:
    """Settings of the model called `name`. Raises ModelError where there is none."""
    import models

    return set(type(models.config_of(name, {})).model_fields)

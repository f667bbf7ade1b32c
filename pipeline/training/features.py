"""Extracted features of a run: their name and scale, and the sizes that its model gets from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.manifest import has_media, read_manifest
from data_tools.sequences.mixed import sets_of
from data_tools.sequences.scale import FeatureScale
from data_tools.sequences.store import IMPORTED
from models.base import ModelSettings
from pipeline.settings import ConfigError, ModelSpec
from pipeline.training.settings import TrainSettings

_SIZE_SETTINGS = {"t": "text_dim", "a": "audio_dim", "v": "vision_dim"}


@dataclass(frozen=True)
class FeatureUse:
    """The features that a run learned from; a part of its data.json.

    name: of the features in the data folder. sizes, settings: as features.json has them. scale: what they are
    standardised with, see `FeatureScale.lists`; None for features as they are stored.
    """

    name: str
    sizes: dict[str, int]
    settings: dict[str, Any]
    scale: dict[str, dict[str, list[float]]] | None

    def __post_init__(self) -> None:
        """Raise ValueError for what no run has: data.json is read as this too."""
        sets_of(self.name)
        if any(letter not in "tav" or len(letter) != 1 or size < 1 for letter, size in self.sizes.items()):
            raise ValueError(f"sizes is {self.sizes!r:.60}")
        for part in () if self.scale is None else ("mean", "deviation"):
            scales = (self.scale or {}).get(part)
            if scales is None or any(len(values) != self.sizes.get(letter) for letter, values in scales.items()):
                raise ValueError(f"the {part} of scale has other letters or lengths than sizes, {self.sizes!r:.60}")
        if self.scale is not None and self.scale["mean"].keys() != self.scale["deviation"].keys():
            raise ValueError("the mean and the deviation of scale have other letters")

    @classmethod
    def from_dataset(cls, dataset: UtteranceDataset) -> "FeatureUse | None":
        """The use that `dataset` makes of features; None where it has faces and chunks instead."""
        if dataset.features is None:
            return None
        facts, scale = dataset.features, dataset.scale
        return cls(facts.name, facts.sizes, facts.settings, None if scale is None else scale.lists())

    def apply(self, dataset: UtteranceDataset) -> None:
        """Give `dataset`, whose features have this name, the scale of the run.

        Raises:
            DataError: its features were made in another way.
        """
        facts = dataset.features
        if facts is None or (facts.settings, facts.sizes) != (self.settings, self.sizes):
            raise DataError(
                f"the features {self.name!r} of {dataset.data_dir} were made with {facts and facts.settings}, those of "
                f"the run with {self.settings}; run `pipeline extract` with the settings of the run"
            )
        dataset.scale = None if self.scale is None else FeatureScale.from_lists(self.scale)


def wanted_features(settings: TrainSettings, model: ModelSpec) -> str | None:
    """The name of the features that training reads; None for a model that reads faces, chunks and tokens itself.

    Raises:
        ConfigError: features are named for such a model.
        DataError: no manifest.
    """
    config = model.config
    if reads_features(config):
        return settings.features or default_features(settings.data)
    if settings.features is not None:
        other = ", or add --set frontend=features" if hasattr(config, "frontend") else ""
        raise ConfigError(
            f"features is {settings.features!r}, but {model.name} reads faces, sound and words itself; "
            f"leave features out{other}"
        )
    return None


def reads_features(config: ModelSettings) -> bool:
    """Return True if a model of these settings reads extracted features."""
    return getattr(config, "frontend", None) == "features"


def read_for(config: ModelSettings, dataset: UtteranceDataset) -> None:
    """Set what `dataset` gives to a model of these settings: which extracted features, and whether the sound itself."""
    dataset.waveforms = config.waveform_encoder is not None
    if reads_features(config) and config.reads_tokens:
        dataset.letters = config.feature_letters


def has_cls(recipe: Mapping[str, Any]) -> bool:
    """Return True if the first step of extracted text is an encoder's [CLS], which has read the whole text.

    recipe: `FeatureFacts.settings`. Of imported features nothing is known.
    """
    recipe = recipe.get("sets", {}).get("t", recipe)
    return not (recipe.get("imported") or recipe.get("word_vectors") or recipe.get("align") == "words")


def default_features(data: Path) -> str:
    """`default`, or `imported` where there is nothing else to read."""
    return "default" if has_media(read_manifest(data)) else IMPORTED


def with_sizes(model: ModelSpec, dataset: UtteranceDataset) -> ModelSpec:
    """`model` with the sizes of the features of `dataset` in its settings; the same where it has none.

    Raises:
        ConfigError: a size is given and another one, or the features lack a modality of the model.
    """
    if dataset.features is None:
        return model
    name, sizes = dataset.features.name, dataset.features.sizes
    modalities, letters = model.config.modalities, model.config.feature_letters
    if lacking := [letter for letter in letters if letter not in sizes]:
        raise ConfigError(
            f"modalities is {modalities!r}, but the features {name!r} have only {''.join(sizes)!r}; "
            f"add --modalities {''.join(letter for letter in modalities if letter not in lacking) or 'LETTERS'}"
        )
    found: dict[str, Any] = {}
    for letter in letters:
        setting, size = _SIZE_SETTINGS[letter], sizes[letter]
        if model.given.get(setting, size) != size:
            raise ConfigError(
                f"{setting} is {model.given[setting]}, but the features {name!r} of {dataset.data_dir} have {size} "
                f"values a step; leave {setting} out, it follows from the data"
            )
        found[setting] = size
    if "text_summary" in type(model.config).model_fields and "t" in letters and not has_cls(dataset.features.settings):
        found["text_summary"] = model.given.get("text_summary", "mean")
    return model.with_settings(**found)

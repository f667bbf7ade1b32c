"""Feature sequences for models of two phases: extracted once from clips and store, then only read.

Modality letters are those of the models: t text, a audio, v video. How features come about is in audio.py, vision.py
and words.py; token states need a network and are made by `pipeline extract`.
"""

from data_tools.features.scale import FeatureScale
from data_tools.features.steps import Steps, untimed
from data_tools.features.store import (
    FEATURES_FILE,
    FEATURES_FOLDER,
    IMPORTED,
    DialogueFeatures,
    FeatureFacts,
    features_folder,
    features_path,
    read_facts,
    store_digest,
    write_facts,
)
from data_tools.features.store import write_dialogue as write_features

__all__ = [
    "FEATURES_FILE",
    "FEATURES_FOLDER",
    "IMPORTED",
    "DialogueFeatures",
    "FeatureFacts",
    "FeatureScale",
    "Steps",
    "features_folder",
    "features_path",
    "read_facts",
    "store_digest",
    "untimed",
    "write_facts",
    "write_features",
]

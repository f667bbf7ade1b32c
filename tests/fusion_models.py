"""The fusion models at the smallest sizes that each has, so that tests of all of them take seconds."""

import models
from models.fusion import FusionModel

FUSION = [name for name, (_, kind) in models.REGISTRY.items() if issubclass(kind, FusionModel)]
SMALL = {
    "mult": {"size": 10, "layers": 2},
    "emt": {"size": 8, "heads": 2, "layers": 2},
    "lmr-cbt": {"size": 8, "heads": 2, "layers": 2, "head_size": 16},
    "ucrn": {"size": 12, "layers": 2, "dropout": 0.0},
    "emt-dlfr": {"size": 8, "heads": 2, "layers": 2},
    "tfr-net": {"size": 6, "heads": 2, "layers": 1, "gate_layers": 1, "head_size": 8},
    "cmt": {"width": 8, "heads": 2, "feed_forward": 16},
    "lf-lstm": {"size": 6},
    "lf-trans": {"size": 8, "heads": 2, "layers": 2},
    "emoembs": {"size": 6, "audio_size": 5, "vision_size": 4},
    "tfn": {"size": 8, "audio_size": 16, "vision_size": 16, "fused_size": 16, "dropout": 0.0},
    "lmf": {"size": 6, "audio_size": 16, "vision_size": 16, "fused_size": 8, "rank": 2},
}
# The modalities of a model that has not all of them.
LETTERS = {"cmt": "ta"}
# Enough utterances that no ReLU is off in all of them; some lack a modality.
MANY = ((3, 5, 4), (1, 2, 0), (4, 0, 6), *((5, 6, 7),) * 29)

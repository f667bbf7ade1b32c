"""FE2E, the fully end-to-end model of Dai et al. 2021 (section 4.2): everything dense.

Towers of two VGG blocks behind the stem and three stages (the paper's VGG-11, without its pretrained weights), a CLS
transformer with positions over each sequence, a pretrained text encoder, and a learned weighted sum of the scores.
"""

from models.end_to_end import EndToEndConfig, EndToEndModel
from models.layers.text import TextEncoder
from models.layers.vgg import DenseStage


class FE2EConfig(EndToEndConfig):
    """Settings of FE2E."""


class FE2E(EndToEndModel):
    """`model(batch) -> Output`; see models/end_to_end.py for the parts."""

    def __init__(self, config: FE2EConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text, DenseStage)

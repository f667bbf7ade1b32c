"""Base of the papers' fusion models: sequences of three modalities in, scores out, one network in between.

Each of them is one file: settings, `fuse`, and the equations. Where the sequences come from is a setting: features
that were extracted before, this project's towers, trained along from the raw media, or a mix: a text encoder that is
trained along beside extracted audio and vision, as EMT, EMT-DLFR and TFR-Net were published.
"""

from abc import abstractmethod
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from data_tools.batch import Batch
from models.base import Model, ModelSettings
from models.errors import ModelError
from models.layers.frontends import EncoderFrontend, FeatureFrontend, TowerFrontend
from models.layers.padded import Padded
from models.layers.speech import SpeechEncoder
from models.layers.text import TextEncoder
from models.output import Output


class FusionConfig(ModelSettings):
    """Settings of every fusion model. The sizes of a step are those of what `pipeline extract` makes by default."""

    frontend: Literal["features", "towers"] = Field("features", description="extracted features, or faces, mel, tokens")
    text_frontend: Literal["features", "encoder"] = Field(
        "features",
        description="for frontend features: text as extracted features too, or the words through text_encoder, which "
        "is trained along",
    )
    text_dim: int = Field(384, ge=1, description="features of a step of text, for frontend features")
    audio_dim: int = Field(33, ge=1, description="features of a step of audio, for frontend features")
    vision_dim: int = Field(142, ge=1, description="features of a step of vision, for frontend features")
    tower_width: int = Field(
        64, ge=4, multiple_of=4, description="first channels of the towers, and features of a step"
    )

    @property
    def reads_tokens(self) -> bool:
        """True unless the text is extracted too."""
        return "t" in self.modalities and not self.text_is_extracted

    @property
    def text_is_extracted(self) -> bool:
        """True where text, if there is any, comes as extracted features."""
        return self.frontend == "features" and self.text_frontend == "features"

    @property
    def feature_letters(self) -> str:
        """All modalities for frontend features, but for text that an encoder reads."""
        if self.frontend != "features":
            return ""
        return "".join(letter for letter in self.modalities if letter != "t" or self.text_is_extracted)


class FusionModel(Model):
    """`model(batch) -> Output` = `fuse(frontend(batch))`.

    `frontend` makes sequences; `sizes` are their features of a step by modality letter, in the order t, a, v, for
    the modalities that the settings name. `fusion` is the network that brings them together: what
    `pipeline flops` counts as such. A subclass makes it, and whatever it has before and after.

    text: the encoder; None exactly where the settings read no tokens.
    speech: the speech encoder; None exactly where the settings have no waveform encoder.
    """

    config: FusionConfig
    fusion: nn.Module
    # True where `fuse` leaves an absent modality out of its sum or product, so that nothing has to stand in for it.
    leaves_out_absent = False

    def __init__(self, config: FusionConfig, text: TextEncoder | None, speech: SpeechEncoder | None = None) -> None:
        super().__init__()
        if (text is None) is config.reads_tokens:
            raise ModelError(
                f"frontend is {config.frontend!r} and modalities {config.modalities!r}: "
                f"a text encoder is {'not ' * (text is None)}given"
            )
        if (speech is None) is not (config.waveform_encoder is None):
            raise ModelError(
                f"frontend is {config.frontend!r} and modalities {config.modalities!r}: "
                f"a speech encoder is {'not ' * (speech is None)}given"
            )
        self.config = config
        self.text = text
        self.speech = speech
        dims = {"t": config.text_dim, "a": config.audio_dim, "v": config.vision_dim}
        named = {letter: dims[letter] for letter in "tav" if letter in config.modalities}
        self.frontend = self.make_frontend(named)
        self.sizes = {letter: self.frontend.sizes[letter] for letter in named}
        # Learnt where modalities are absent in training; zero, which every checkpoint without them means, until then.
        learnt = config.modality_dropout > 0 and len(named) > 1 and not self.leaves_out_absent
        self.stand_ins = nn.ParameterDict(
            {letter: nn.Parameter(torch.zeros(size)) for letter, size in self.sizes.items()} if learnt else {}
        )

    def speech_encoder(self) -> SpeechEncoder | None:
        """Return the encoder of the waveform, or None."""
        return self.speech

    def make_frontend(self, dims: dict[str, int]) -> FeatureFrontend | TowerFrontend | EncoderFrontend:
        """Build the frontend of the settings. dims: features of a step of extracted features, by letter."""
        if self.config.frontend == "features":
            return FeatureFrontend(dims, self.text)
        return TowerFrontend(self.config.modalities, self.text, self.config.tower_width)

    def forward(self, batch: Batch, keep_maps: bool = False) -> Output:  # noqa: ARG002
        """keep_maps: fusion models choose no sites; nothing is kept.

        An utterance without any step of a modality has one vector there, its learnt stand-in or zero: a defined
        answer, and the same one in every batch.
        """
        return self.fuse(self.sequences(batch), batch)

    def sequences(self, batch: Batch) -> dict[str, Padded]:
        """Sequences of a batch from the frontend, by modality letter; at least one real step in each."""
        return {
            letter: never_empty(sequence, self.stand_ins.get(letter))
            for letter, sequence in self.frontend(batch).items()
        }

    def present(self, batch: Batch) -> dict[str, Tensor]:
        """(B,) bool by modality letter: the utterances that have anything of it."""
        return {letter: batch.present(letter) for letter in self.sizes}

    @abstractmethod
    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:
        """sequences: by modality letter; every utterance has at least one real step in each."""


def never_empty(sequence: Padded, stand_in: Tensor | None = None) -> Padded:
    """The sequence with one real step in an utterance that has none: `stand_in` (D,), or zeros."""
    empty = ~sequence.present.any(1, keepdim=True)
    first = torch.zeros_like(sequence.present)
    first[:, 0] = True
    first = first & empty
    values = sequence.values
    if stand_in is not None:
        values = torch.where(first.unsqueeze(2), stand_in.to(values.dtype), values)
    return Padded(values, sequence.present | first)

"""Base classes of all models: checked read-only settings, and `model(batch) -> Output`."""

from abc import ABC, abstractmethod
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from data_tools.batch import Batch
from models.layers.speech import SpeechEncoder
from models.layers.text import TextEncoder
from models.output import Output

MODALITIES = "tav"


class ModelSettings(BaseModel):
    """Settings that every model has. t is text, a is audio, v is vision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outputs: int = Field(6, ge=1, description="scores of one utterance: emotions, or 1 for sentiment")
    modalities: str = Field(MODALITIES, description="letters of 'tav'; what isn't named isn't built")
    text_encoder: str = Field("minilm", description="minilm, tiny (untrained), a Hugging Face name or a local folder")
    modality_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="chance of each modality to be left out of an utterance in training, never of all of them",
    )
    max_tokens: int = Field(100, ge=3, description="longer texts are cut; shorter ones cost only their length")

    @property
    def reads_tokens(self) -> bool:
        """True if the model has a text encoder of its own."""
        return "t" in self.modalities

    @property
    def feature_letters(self) -> str:
        """Letters of the modalities that the model reads as extracted features; none in a model of raw media."""
        return ""

    @property
    def waveform_encoder(self) -> str | None:
        """Name of the speech encoder, in a model that reads the waveform itself; None in most models."""
        return None

    @model_validator(mode="after")
    def _modalities_are_a_subset(self) -> Self:
        named = set(self.modalities)
        if not named or named - set(MODALITIES) or len(named) < len(self.modalities):
            raise ValueError(f"modalities is {self.modalities!r}: give letters of 'tav', each at most once")
        return self


class Model(nn.Module, ABC):
    """Base of every network of the registry; built as `ModelClass(config, text)`.

    text: the encoder; None exactly where `config.reads_tokens` is false.
    """

    config: ModelSettings
    text: TextEncoder | None
    # False where the model leaves absent modalities out of its scores itself: its input then stays whole in training.
    drops_input = True

    @abstractmethod
    def forward(self, batch: Batch, keep_maps: bool = False) -> Output:
        """keep_maps: fill `kept` of the answer with the sites that were computed, where the model chooses sites."""

    def speech_encoder(self) -> SpeechEncoder | None:
        """Return the encoder of the waveform; None exactly where `config.waveform_encoder` is None."""
        return None

    def text_parameters(self) -> list[nn.Parameter]:
        """The parameters of the pretrained text encoder, which learns at a rate of its own; empty without text."""
        return [] if self.text is None else list(self.text.parameters())

    def parameters_without_gradient(self) -> list[str]:
        """Names of parameters that no loss can move, by design; empty for most models.

        Without the biases of a pretrained encoder's keys, which add one number to all scores of a softmax.
        """
        return []

"""EmoEmbs, the modality-transferable emotion embeddings of Dai et al. 2020: an emotion is a vector, not an output.

Every emotion e has a textual embedding E_e. A learnt linear map takes it to the space of audio and another one to
that of vision: A_e = W_a E_e + b_a, V_e = W_v E_e + b_v. In each modality a bidirectional LSTM reads the
sequence to one vector r, the sum of the last states of its two directions; the modality's score for e is the
similarity r . E_e (r . A_e, r . V_e), and the scores of the modalities are added with learnt weights.

The paper has GloVe vectors of the emotions' names as E and keeps them fixed. Here, where the model reads tokens
(`frontend: towers`) and `emotions` gives the names in the order of the outputs, E_e is the mean of the text encoder's
embeddings of the name's tokens as they were before training, and fixed too. Without names, or on extracted features,
where there is no encoder to ask, E is learnt along: the similarity stays, but what words know about each other is
not used. Similarity is the dot product, as in the released code; the sizes are those of its commands.
"""

from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from data_tools.batch import Batch
from models.errors import ModelError
from models.fusion import FusionConfig, FusionModel
from models.layers.late import WeightedSum
from models.layers.padded import Padded
from models.layers.recurrent import bidirectional, final_states
from models.layers.text import TextEncoder
from models.output import Output


class EmoEmbsConfig(FusionConfig):
    """Settings of EmoEmbs."""

    emotions: tuple[str, ...] = Field(
        (), description="names of the outputs in their order, to be embedded by the text encoder; () learns embeddings"
    )
    size: int = Field(300, ge=1, description="features of a learnt emotion embedding; one of a name has the encoder's")
    audio_size: int = Field(200, ge=1, description="features of an emotion in the space of audio")
    vision_size: int = Field(100, ge=1, description="features of an emotion in the space of vision")
    layers: int = Field(2, ge=1, description="of each LSTM")
    dropout: float = Field(0.15, ge=0, lt=1, description="between layers of an LSTM")

    @model_validator(mode="after")
    def _names_need_an_encoder(self) -> "EmoEmbsConfig":
        if self.emotions and not self.reads_tokens:
            raise ValueError(
                f"emotions is {self.emotions}, but with frontend {self.frontend!r} and modalities "
                f"{self.modalities!r} no text encoder embeds them: leave emotions out, or take t with frontend "
                "'towers' or text_frontend 'encoder'"
            )
        return self


class EmoEmbs(FusionModel):
    """`model(batch) -> Output`; see the head of this file."""

    leaves_out_absent = True

    def __init__(self, config: EmoEmbsConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text)
        named = _of_names(config.emotions, config.outputs, text) if config.emotions and text is not None else None
        width = config.size if named is None else named.shape[1]
        spaces = {"t": width, "a": config.audio_size, "v": config.vision_size}
        self.encoders = nn.ModuleDict(
            {
                letter: bidirectional(dim, spaces[letter], config.layers, config.dropout)
                for letter, dim in self.sizes.items()
            }
        )
        emotions = nn.Parameter(torch.randn(config.outputs, width)) if named is None else named
        self.fusion = Similarity(emotions, {letter: spaces[letter] for letter in self.sizes})

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:
        """Sequences -> scores (B, outputs)."""
        states = {letter: final_states(self.encoders[letter], sequence) for letter, sequence in sequences.items()}
        vectors = {letter: both.sum(0) for letter, both in states.items()}
        return Output(self.fusion(vectors, self.present(batch)))


class Similarity(nn.Module):
    """Scores by the similarity of a modality's vector to every emotion in the space of that modality.

    emotions: (E, D), the textual embeddings: a parameter if they are learnt, else a tensor that stays as it is.
    spaces: features of each modality's space, by letter; text's are D.
    """

    emotions: Tensor

    def __init__(self, emotions: Tensor, spaces: dict[str, int]) -> None:
        super().__init__()
        if isinstance(emotions, nn.Parameter):
            self.register_parameter("emotions", emotions)
        else:
            self.register_buffer("emotions", emotions)
        width = emotions.shape[1]
        self.maps = nn.ModuleDict({letter: nn.Linear(width, size) for letter, size in spaces.items() if letter != "t"})
        self.weights = WeightedSum(spaces)

    def forward(self, vectors: dict[str, Tensor], present: dict[str, Tensor] | None = None) -> Tensor:
        """vectors: (B, size of the space) by letter. present: as in WeightedSum. Returns (B, E) float32."""
        similar = {letter: vector @ self.emotions_in(letter).T for letter, vector in vectors.items()}
        scores: Tensor = self.weights(similar, present)
        return scores

    def emotions_in(self, letter: str) -> Tensor:
        """(E, size): the emotions in the space of a modality."""
        return self.emotions if letter == "t" else self.maps[letter](self.emotions)


def _of_names(names: tuple[str, ...], outputs: int, text: TextEncoder) -> Tensor:
    """(outputs, features): the mean of the embeddings of a name's tokens."""
    if len(names) != outputs:
        raise ModelError(
            f"emotions has {len(names)} names ({', '.join(names)}) for {outputs} outputs: give one for each"
        )
    # What surrounds every text, such as [CLS], is no part of a name.
    with torch.device("cpu"):  # also while only the sizes of a model are looked at
        return _mean_embeddings(names, text)


def _mean_embeddings(names: tuple[str, ...], text: TextEncoder) -> Tensor:
    tokens, mask = text.tokenizer(["", *names])
    own = mask & ~torch.isin(tokens, tokens[0][mask[0]])
    for name, found in zip(names, own[1:], strict=True):
        if not found.any():
            raise ModelError(f"emotions has {name!r}, which has no token of its own: give every emotion a name")
    encoder: Any = text.encoder
    table = encoder.get_input_embeddings().weight.detach()
    return torch.stack([table[row[real]].mean(0) for row, real in zip(tokens[1:], own[1:], strict=True)])

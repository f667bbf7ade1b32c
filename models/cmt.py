"""CMT, the cross-modal transformer over pretrained encoders (section 3): speech and text, deeply fused.

HuBERT reads the audio and RoBERTa the text; their last states are e_a and e_w. Each side then has `layers` layers of
self-attention (eq. 1, 2), attention to the other side's encoder states, not to its layers' (eq. 3, 4), and a
feed-forward network (eq. 5), each followed by a layer norm: torch's own decoder layer. The mean over the steps of audio
and the first token's state, side by side (eq. 6), give the scores by one linear layer. `orthogonality` of the losses
is eq. 7, to be weighed by 10 (eq. 8). With d features and 4 d in the feed-forward network a layer of one side has
16 d^2 + 19 d parameters: two attentions of 4 d^2 + 4 d, a network of 8 d^2 + 5 d, three norms of 2 d. At d 1024 these
are the paper's 64M (base) and 128M (large), its M being 2^20.

Where the paper is silent: GELU, as in both encoders; dropout 0.1; no linear layer where an encoder has `width` features
already, as the paper's two have, else one. `encoders` bring positions in their states; sequences of the other frontends
get sinusoidal ones. In eq. 7 the text stands with a bar, as the mean over its tokens does; so it is not [CLS] there.

The paper has no vision: modality v is refused. With text or audio alone there is nothing to attend to; a layer is then
self-attention and feed-forward network, and `orthogonality` is 0.
"""

from typing import Annotated, Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from data_tools.batch import Batch
from models.fusion import FusionConfig, FusionModel
from models.layers.frontends import EncoderFrontend, FeatureFrontend, TowerFrontend
from models.layers.padded import Padded
from models.layers.sequence import sinusoids
from models.layers.speech import SpeechEncoder
from models.layers.text import TextEncoder
from models.output import Output

# The paper's two sizes: layers of a side, attention heads.
SIZES = {"base": (2, 4), "large": (4, 8)}


class CMTConfig(FusionConfig):
    """Settings of CMT; `layers` and `heads` follow from `size` where they are not given."""

    frontend: Literal["features", "towers", "encoders"] = Field(  # type: ignore[assignment]
        "features", description="features; towers (mel, tokens); encoders: speech and text encoder"
    )
    modalities: str = Field("ta", description="letters of 'ta'; the model has no vision")
    speech_encoder: str = Field("tiny", description="tiny (untrained), a HuBERT's Hugging Face name or a local folder")
    size: Literal["base", "large"] = Field("base", description="base: 2 layers, 4 heads; large: 4 layers, 8 heads")
    width: int = Field(1024, ge=2, multiple_of=2, description="features of a step in the fusion")
    layers: int | None = Field(
        None, ge=0, description="layers of a side; None: as `size` says; 0: shallow fusion, the encoders' states alone"
    )
    heads: int | None = Field(None, ge=1, description="attention heads; divide width; None: as `size` says")
    feed_forward: int | None = Field(None, ge=1, description="features inside a layer's network; None: 4 times width")
    audio_layer: Annotated[int, Field(ge=1)] | Literal["last", "pooled"] = Field(
        "last",
        description="layer whose states are the audio (section 4.3.2): last, its number, or a learnt mean of all",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="of attention, networks and what they add")

    @property
    def waveform_encoder(self) -> str | None:
        """The speech encoder, where it is asked for and there is audio."""
        return self.speech_encoder if self.frontend == "encoders" and "a" in self.modalities else None

    @property
    def depth(self) -> int:
        """Layers of a side."""
        return SIZES[self.size][0] if self.layers is None else self.layers

    @property
    def attention_heads(self) -> int:
        """Attention heads of a layer."""
        return self.heads or SIZES[self.size][1]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if "v" in self.modalities:
            raise ValueError(f"modalities is {self.modalities!r}: CMT is defined for text and sound; give ta, t or a")
        layer = self.audio_layer
        if isinstance(layer, int) and layer > self.depth:
            raise ValueError(f"audio_layer is {layer}, but a side has {self.depth} layers: give 1 to {self.depth}")
        if layer == "pooled" and not self.depth:
            raise ValueError("audio_layer is pooled, but a side has no layers: give more layers, or leave it out")
        if self.width % self.attention_heads:
            raise ValueError(f"width {self.width} is not a multiple of heads, {self.attention_heads}")
        return self


class CMT(FusionModel):
    """`model(batch) -> Output`; see the head of this file.

    speech: the speech encoder; None exactly where the settings have no waveform encoder.
    """

    config: CMTConfig
    fusion: "CMTFusion"

    def __init__(self, config: CMTConfig, text: TextEncoder | None, speech: SpeechEncoder | None = None) -> None:
        super().__init__(config, text, speech)
        self.project = nn.ModuleDict(
            {
                letter: nn.Identity() if size == config.width else nn.Linear(size, config.width)
                for letter, size in self.sizes.items()
            }
        )
        self.fusion = CMTFusion(list(self.sizes), config)
        self.head = nn.Linear(config.width * len(self.sizes), config.outputs)

    def make_frontend(self, dims: dict[str, int]) -> FeatureFrontend | TowerFrontend | EncoderFrontend:
        """As in every fusion model, or the two encoders."""
        if self.config.frontend == "encoders":
            return EncoderFrontend(self.text, self.speech)
        return super().make_frontend(dims)

    def text_parameters(self) -> list[nn.Parameter]:
        """The parameters of both pretrained encoders, which learn at a rate of their own."""
        return super().text_parameters() + ([] if self.speech is None else list(self.speech.parameters()))

    def parameters_without_gradient(self) -> list[str]:
        """Audio's layers above `audio_layer`, which are computed for nothing but stay for another choice."""
        used = self.config.audio_layer
        if not isinstance(used, int):
            return []
        above = tuple(f"fusion.sides.a.{number}." for number in range(used, self.config.depth))
        return [name for name, _ in self.named_parameters() if name.startswith(above)]

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:  # noqa: ARG002
        """Sequences -> scores (B, outputs) and the loss of eq. 7."""
        embedded = {letter: self.embedded(letter, sequence) for letter, sequence in sequences.items()}
        states = self.fusion(embedded, embedded)
        whole = [states["t"].values[:, 0]] if "t" in states else []
        means = [sequence.mean() for sequence in states.values()]
        if "a" in states:
            whole.insert(0, states["a"].mean())
        apart = F.cosine_similarity(*means).abs().mean() if len(means) == 2 else means[0].new_zeros(())
        return Output(self.head(torch.cat(whole, dim=1)).float(), losses={"orthogonality": apart})

    def embedded(self, letter: str, sequence: Padded) -> Padded:
        """Input of a modality's first layer: `width` features a step, with positions."""
        values = self.project[letter](sequence.values)
        if self.config.frontend != "encoders":
            values = values + sinusoids(values.shape[1], values.shape[2], values)
        return Padded(values, sequence.present)


class CMTFusion(nn.Module):
    """Eq. 1-5 on both sides. letters: the modalities, "t" and "a" or one of them."""

    def __init__(self, letters: list[str], config: CMTConfig) -> None:
        super().__init__()
        inside = config.feed_forward or 4 * config.width
        kind = nn.TransformerDecoderLayer if len(letters) == 2 else nn.TransformerEncoderLayer

        def layer() -> nn.Module:
            return kind(config.width, config.attention_heads, inside, config.dropout, "gelu", batch_first=True)

        self.sides = nn.ModuleDict({letter: nn.ModuleList(layer() for _ in range(config.depth)) for letter in letters})
        self.audio_layer = config.audio_layer
        # Equal weights at the start.
        pooled = config.audio_layer == "pooled" and "a" in letters
        self.layer_weights = nn.Parameter(torch.zeros(config.depth)) if pooled else None

    def forward(self, sequences: dict[str, Padded], sources: dict[str, Padded]) -> dict[str, Padded]:
        """States of `sequences`, each of which asks the other modality's of `sources` in every layer; by letter.

        The two are the same but in pretraining, where what asks is masked and what is asked is not.
        """
        return {letter: self._side(letter, sequence, sources) for letter, sequence in sequences.items()}

    def _side(self, letter: str, sequence: Padded, sources: dict[str, Padded]) -> Padded:
        states, absent = sequence.values, ~sequence.present
        others = [source for name, source in sources.items() if name != letter]
        seen = [states]
        for layer in cast(nn.ModuleList, self.sides[letter]):
            if others:
                states = layer(
                    states,
                    others[0].values,
                    tgt_key_padding_mask=absent,
                    memory_key_padding_mask=~others[0].present,
                )
            else:
                states = layer(states, src_key_padding_mask=absent)
            seen.append(states)
        return Padded(self._chosen(seen) if letter == "a" else states, sequence.present)

    def _chosen(self, states: list[Tensor]) -> Tensor:
        """Of the states (B, L, D) of the input and of each layer, those that are the audio."""
        if self.layer_weights is not None:
            weights = torch.softmax(self.layer_weights, dim=0)
            return torch.stack([weight * each for weight, each in zip(weights, states[1:], strict=True)]).sum(0)
        return states[self.audio_layer] if isinstance(self.audio_layer, int) else states[-1]

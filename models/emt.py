"""EMT, the efficient multimodal transformer of Sun et al. 2023 (section 3): each modality exchanges with a summary.

Audio and vision go through an LSTM, text through a linear layer (in the paper BERT has read it before, and is trained
along: `text_frontend: encoder`), all to `size` features.

In each of `layers` fusion layers, mutual promotion units (eq. 4 and 5) let sequences enrich each other:

- `oagl`, one to all, global to local (eq. 8): every sequence exchanges with the global context, one vector a modality.
  The cost is linear in the number of modalities.
- `oall`, one to all, local to local (eq. 7): every sequence exchanges with all sequences laid end to end.
- `ooll`, one to one, local to local (eq. 6): every pair of sequences, as in MulT.

What one sequence was promoted to by several others is pooled by attention (eq. 9). `share` says which weights are
equal: of an MPU's two directions (mpu), of the modalities, of the layers. All sizes of the paper's Table 9 come out.

Where the paper is silent: attention has no bias for query, key and value, the feed-forward network is a gated one
(GEGLU), and the global contexts are pooled as one vector of all modalities, because these give Table 9 to the last
parameter. For `oall` and `ooll`, which have no global context at the end, each modality's mean over its real steps
takes its place, and pooling works step by step.
"""

from itertools import combinations
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from data_tools.batch import Batch
from models.fusion import FusionConfig, FusionModel
from models.layers.mutual import AttentionPooling, LinearPooling, MeanPooling, MutualPromotion
from models.layers.padded import Padded
from models.layers.sequence import sinusoids
from models.layers.text import TextEncoder
from models.output import Output

Strategy = Literal["oagl", "oall", "ooll"]
Share = Literal["none", "mpu", "modality", "layer", "mpu+modality", "mpu+layer", "modality+layer", "all"]


class EMTConfig(FusionConfig):
    """Settings of EMT; the defaults are those for CMU-MOSI (Table 3)."""

    size: int = Field(128, ge=4, multiple_of=4, description="features of a step in the fusion, d in the paper")
    heads: int = Field(4, ge=1, description="attention heads; divide size")
    layers: int = Field(3, ge=1, le=1000, description="fusion layers, L in the paper")
    text_summary: Literal["first", "last", "mean"] = Field(
        "first",
        description="vector that stands for the text: the first step, an encoder's [CLS]; the last; the mean, for "
        "word vectors and one step a word, whose first step is the first word alone",
    )
    fusion: Strategy = Field("oagl", description="who exchanges with whom: oagl, oall or ooll")
    share: Share = Field("all", description="equal weights across mpu, modality, layer; joined by +, all or none")
    pooling: Literal["attention", "mean", "mlp"] = Field(
        "attention", description="how what a sequence was promoted to by several becomes one (section 5.2.3)"
    )
    serial: bool = Field(
        False, description="oagl, oall: the summary asks sequences that it has promoted before (section 5.2.2)"
    )
    attention_dropout: float = Field(0.3, ge=0, lt=1, description="of attention weights")
    feed_forward_dropout: float = Field(0.1, ge=0, lt=1, description="of feed-forward networks")

    @model_validator(mode="after")
    def _serial_needs_a_summary(self) -> Self:
        if self.serial and self.fusion == "ooll":
            raise ValueError("serial is for fusion oagl and oall: in ooll both sequences are alike")
        return self


class EMT(FusionModel):
    """`model(batch) -> Output`; see the head of this file."""

    config: EMTConfig
    fusion: "EMTFusion"

    def __init__(self, config: EMTConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text)
        size = config.size
        self.encoders = nn.ModuleDict(
            {letter: nn.LSTM(dim, size, batch_first=True) for letter, dim in self.sizes.items() if letter != "t"}
        )
        widths = {letter: dim if letter == "t" else size for letter, dim in self.sizes.items()}
        self.project_steps = nn.ModuleDict({letter: nn.Linear(width, size) for letter, width in widths.items()})
        self.project_whole = nn.ModuleDict({letter: nn.Linear(width, size) for letter, width in widths.items()})
        self.fusion = EMTFusion(list(self.sizes), config)
        summary = 2 * size * len(self.sizes)
        self.head = nn.Sequential(nn.Linear(summary, size), nn.ReLU(), nn.Linear(size, config.outputs))

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:  # noqa: ARG002
        """Sequences -> scores (B, outputs)."""
        _, own, fused = self.promoted(sequences)
        return Output(self.scores(own, fused))

    def scores(self, own: Tensor, fused: Tensor) -> Tensor:
        """The prediction module (section 3.4): h of all modalities and g, (B, M * size) both -> (B, outputs)."""
        scores: Tensor = self.head(torch.cat([fused, own], dim=1)).float()
        return scores

    def parameters_without_gradient(self) -> list[str]:
        """Parameters that no score depends on: half of the last layer's units, and part of the pooling."""
        return self._never_read() + self._without_a_choice()

    def _never_read(self) -> list[str]:
        """Of the last layer's units the half that promotes the sequences.

        None for `ooll` and `serial`, which read the sequences, nor where other layers or directions share its weights.
        """
        config = self.config
        shared = config.share == "all" or "mpu" in config.share or ("layer" in config.share and config.layers > 1)
        if config.fusion == "ooll" or config.serial or shared:
            return []
        prefix = f"fusion.units.{len(self.fusion.units) - 1}."
        return [name for name, _ in self.named_parameters() if name.startswith(prefix) and ".directions.0." in name]

    def _without_a_choice(self) -> list[str]:
        """Pooling's last bias, one number added to all scores of a softmax; where it has one vector to pool, all of it.

        That is with one modality, and with two for `ooll`, where each is promoted by the other alone.
        """
        if self.config.pooling != "attention":
            return []
        one_vector = len(self.sizes) == (2 if self.config.fusion == "ooll" else 1)
        pooling = [name for name, _ in self.named_parameters() if name.startswith("fusion.pooling.")]
        return [name for name in pooling if one_vector or name.endswith(".score.2.bias")]

    def promoted(self, sequences: dict[str, Padded]) -> tuple[dict[str, Padded], Tensor, Tensor]:
        """Sequences -> (promoted sequences of `size` features, h of all modalities, g), h and g (B, M * size)."""
        steps, whole = {}, {}
        for letter, sequence in sequences.items():
            states, summary = self._encoded(letter, sequence)
            steps[letter] = Padded(self.project_steps[letter](states), sequence.present)
            whole[letter] = self.project_whole[letter](summary)
        after, fused = self.fusion(steps, whole)
        return after, torch.cat(list(whole.values()), dim=1), fused

    def _encoded(self, letter: str, sequence: Padded) -> tuple[Tensor, Tensor]:
        """States of the steps, and the vector that stands for the utterance (eq. 1 and below)."""
        if letter == "t":
            return sequence.values, self._text_summary(sequence)
        # What comes after an utterance's last step changes nothing before it.
        states, _ = self.encoders[letter](sequence.values)
        return states, sequence.last(states)

    def _text_summary(self, sequence: Padded) -> Tensor:
        if self.config.text_summary == "first":
            return sequence.values[:, 0]
        return sequence.last(sequence.values) if self.config.text_summary == "last" else sequence.mean()


class EMTFusion(nn.Module):
    """Sequences of `size` features, promoted by each other `layers` times. letters: the modalities in their order."""

    def __init__(self, letters: list[str], config: EMTConfig) -> None:
        super().__init__()
        self.letters, self.layers, self.strategy = letters, config.layers, config.fusion
        shared = {"mpu", "modality", "layer"} if config.share == "all" else set(config.share.split("+"))
        self.share_modality, self.share_layer = "modality" in shared, "layer" in shared
        self.exchanges = self._exchanges()
        pooled = config.size * (len(letters) if config.fusion == "oagl" else 1)
        distinct_layers = 1 if self.share_layer else config.layers
        distinct = 1 if self.share_modality else len(self.exchanges)
        self.units = nn.ModuleList(
            nn.ModuleList(
                MutualPromotion(
                    config.size,
                    config.heads,
                    config.attention_dropout,
                    config.feed_forward_dropout,
                    "mpu" in shared,
                    config.serial,
                )
                for _ in range(distinct)
            )
            for _ in range(distinct_layers)
        )
        self.pooling = nn.ModuleList(self._new_pooling(config.pooling, pooled) for _ in range(distinct_layers))

    def _exchanges(self) -> list[tuple[str, str]]:
        """Pairs of sequences that the units of a layer join; `*` is the global context or the common message."""
        if self.strategy == "ooll":
            return list(combinations(self.letters, 2)) or [(self.letters[0], self.letters[0])]
        return [(letter, "*") for letter in self.letters]

    def _new_pooling(self, kind: str, size: int) -> nn.Module:
        if kind == "attention":
            return AttentionPooling(size)
        # In `ooll` a sequence is promoted by every other one; a single one by itself, in both directions.
        alone = len(self.letters) == 1
        count = len(self.letters) if self.strategy != "ooll" else 2 if alone else len(self.letters) - 1
        return MeanPooling() if kind == "mean" else LinearPooling(size, count)

    def forward(self, steps: dict[str, Padded], whole: dict[str, Tensor]) -> tuple[dict[str, Padded], Tensor]:
        """steps: sequences by letter. whole: (B, D) by letter. Returns sequences by letter and (B, M * D)."""
        local = {letter: _with_positions(sequence) for letter, sequence in steps.items()}
        if self.strategy == "ooll":
            for layer in range(self.layers):
                local = self._one_to_one(local, layer)
            return local, torch.cat([local[letter].mean() for letter in self.letters], dim=1)
        if self.strategy == "oagl":
            context = torch.stack([whole[letter] for letter in self.letters], dim=1)
            every = torch.ones(context.shape[:2], dtype=torch.bool, device=context.device)
            shared = Padded(context, every)
        else:
            shared = Padded(
                torch.cat([local[letter].values for letter in self.letters], dim=1),
                torch.cat([local[letter].present for letter in self.letters], dim=1),
            )
        for layer in range(self.layers):
            local, shared = self._one_to_all(local, shared, layer)
        if self.strategy == "oagl":
            return local, shared.values.flatten(1)
        lengths = [local[letter].values.shape[1] for letter in self.letters]
        parts = zip(shared.values.split(lengths, dim=1), shared.present.split(lengths, dim=1), strict=True)
        return local, torch.cat([Padded(*part).mean() for part in parts], dim=1)

    def _one_to_all(self, local: dict[str, Padded], shared: Padded, layer: int) -> tuple[dict[str, Padded], Padded]:
        after, promoted = {}, []
        for number, letter in enumerate(self.letters):
            values, context = self._unit(layer, number)(local[letter], shared)
            after[letter] = Padded(values, local[letter].present)
            promoted.append(context)
        # The global contexts are weighed as wholes (Table 9's number of parameters); a message step by step.
        choices = torch.stack([c.flatten(1) if self.strategy == "oagl" else c for c in promoted], dim=-2)
        pooled = self._pooling(layer)(choices).view_as(shared.values)
        return after, Padded(pooled, shared.present)

    def _one_to_one(self, local: dict[str, Padded], layer: int) -> dict[str, Padded]:
        promoted: dict[str, list[Tensor]] = {letter: [] for letter in self.letters}
        for number, (one, other) in enumerate(self.exchanges):
            values = self._unit(layer, number)(local[one], local[other])
            for letter, value in zip((one, other), values, strict=True):
                promoted[letter].append(value)
        pool = self._pooling(layer)
        return {
            letter: Padded(pool(torch.stack(values, dim=-2)), local[letter].present)
            for letter, values in promoted.items()
        }

    def _unit(self, layer: int, number: int) -> nn.Module:
        units = self.units[0 if self.share_layer else layer]
        assert isinstance(units, nn.ModuleList)
        return units[0 if self.share_modality else number]

    def _pooling(self, layer: int) -> nn.Module:
        return self.pooling[0 if self.share_layer else layer]


def _with_positions(sequence: Padded) -> Padded:
    _, length, size = sequence.values.shape
    return Padded(sequence.values + sinusoids(length, size, sequence.values), sequence.present)

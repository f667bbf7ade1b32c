"""TFR-Net (Yuan et al. 2021), the baseline for incomplete data of the EMT paper (Sun et al. 2023, section 2).

MulT, with a transformer within each modality beside its crossmodal ones, and with a loss that restores the input:

1. A temporal convolution brings each modality to `size` features.
2. Feature extraction: each sequence goes through a transformer of its own and, at the same time, through one
   crossmodal transformer for each other modality; the outputs stand side by side.
3. Reconstruction, in training with a complete view (see data_tools/damage.py): two linear layers guess the input at
   the missing steps; smooth L1, loss `reconstruction`. The target of text is the encoder's output.
4. Fusion: in each modality a CNN gate picks what matters. A bidirectional GRU reads the sequence, a convolution of its
   states gives each step a weight in (0, 1), the weighted states and the sequence itself go through a layer, and the
   largest value of each feature over the steps stands for the utterance. Two layers score all modalities.

The paper itself was not at hand: this follows what is said of it and the settings that its authors published for
CMU-MOSI (30 features, 6 heads, 3 layers, kernels 1, 5 and 3, gates of 36, 20 and 48 features with 3 GRU layers).
Chosen otherwise, with the reason: before it reconstructs, the released code runs three more layers over the time axis,
which need sequences of one fixed length (and are 14.2 of the 14.8 million parameters that Table 8 has beside BERT);
sequences here have any length, and each step is guessed from what the transformers made of it. Its weights for
reconstructing text, audio and vision differ by corpus; here they are equal, and `loss_weights: {reconstruction: ...}`
weighs their sum. Dropout is one number. No batch norm before the scores: an utterance does not depend on its batch
mates. As in MulT no step is hidden from another one.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from data_tools.batch import Batch
from models.fusion import FusionConfig, FusionModel
from models.layers.crossmodal import CrossmodalTransformer
from models.layers.frontends import FeatureFrontend, TowerFrontend
from models.layers.padded import Padded
from models.layers.reconstruction import Decoders
from models.layers.recurrent import all_states
from models.layers.text import TextEncoder
from models.output import Output


class TFRNetConfig(FusionConfig):
    """Settings of TFR-Net; the defaults are those published for CMU-MOSI."""

    size: int = Field(30, ge=2, multiple_of=2, description="features of a step in every transformer")
    heads: int = Field(6, ge=1, description="attention heads; divide size")
    layers: int = Field(3, ge=1, description="of each transformer")
    dropout: float = Field(0.2, ge=0, lt=1, description="of embeddings, attention, feed-forward networks and vectors")
    text_kernel: int = Field(1, ge=1, description="steps that the convolution of text sees; odd")
    audio_kernel: int = Field(5, ge=1, description="the same for audio")
    vision_kernel: int = Field(3, ge=1, description="the same for vision")
    text_gate: int = Field(36, ge=1, description="features of the gate of text")
    audio_gate: int = Field(20, ge=1, description="features of the gate of audio")
    vision_gate: int = Field(48, ge=1, description="features of the gate of vision")
    gate_layers: int = Field(3, ge=1, description="layers of each gate's GRU")
    head_size: int = Field(128, ge=1, description="features between the two layers that score")

    def by_letter(self, what: str) -> dict[str, int]:
        """The settings text_<what>, audio_<what> and vision_<what>, by modality letter."""
        return {letter: getattr(self, f"{name}_{what}") for letter, name in _NAMES.items()}


_NAMES = {"t": "text", "a": "audio", "v": "vision"}


class TFRNet(FusionModel):
    """`model(batch) -> Output`; see the head of this file."""

    config: TFRNetConfig
    frontend: FeatureFrontend | TowerFrontend

    def __init__(self, config: TFRNetConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text)
        kernels = config.by_letter("kernel")
        self.dropout = config.dropout
        self.project = nn.ModuleDict(
            {
                letter: nn.Conv1d(dim, config.size, kernels[letter], padding="same", bias=False)
                for letter, dim in self.sizes.items()
            }
        )
        self.fusion = TFRFusion(list(self.sizes), config)
        self.restoration = Decoders(dict.fromkeys(self.sizes, self.fusion.wide), self.sizes)
        self.head = nn.Sequential(
            nn.Linear(self.fusion.out_size, config.head_size),
            nn.LeakyReLU(),
            nn.Linear(config.head_size, config.outputs),
        )

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:
        """Sequences -> scores (B, outputs), and the loss of reconstruction where the complete view is known."""
        projected = {letter: self._projected(letter, sequence) for letter, sequence in sequences.items()}
        enriched, summary = self.fusion(projected)
        scores = self.head(summary).float()
        if batch.complete is None:
            return Output(scores, losses={"reconstruction": scores.new_zeros(())})
        complete, missing = self.sequences(batch.complete), self.frontend.missing(batch)
        return Output(scores, losses={"reconstruction": self.restoration(enriched, complete, missing)})

    def _projected(self, letter: str, sequence: Padded) -> Padded:
        # Beyond an utterance's end there are zeros, as beyond the padding's.
        values = F.dropout(sequence.values, self.dropout, self.training and letter == "t")
        return Padded(self.project[letter](values.transpose(1, 2)).transpose(1, 2), sequence.present)


class TFRFusion(nn.Module):
    """Intra- and intermodal transformers in parallel, and a CNN gate for each modality.

    wide: features of an enriched step. out_size: features of all modalities together.
    """

    def __init__(self, letters: list[str], config: TFRNetConfig) -> None:
        super().__init__()
        self.pairs = [(target, source) for target in letters for source in letters]
        sizes = (config.size, config.layers, config.heads, config.dropout)
        self.transformers = nn.ModuleDict(
            {f"{target}_asks_{source}": CrossmodalTransformer(*sizes) for target, source in self.pairs}
        )
        self.wide = config.size * len(letters)
        gates = config.by_letter("gate")
        self.gates = nn.ModuleDict(
            {letter: CNNGate(self.wide, gates[letter], config.gate_layers, config.dropout) for letter in letters}
        )
        self.out_size = sum(gates[letter] for letter in letters)

    def forward(self, sequences: dict[str, Padded]) -> tuple[dict[str, Tensor], Tensor]:
        """(B, L, size) by letter -> enriched steps (B, L, wide) by letter, and (B, out_size)."""
        seen: dict[str, list[Tensor]] = {letter: [] for letter in sequences}
        for target, source in self.pairs:
            other = None if source == target else sequences[source]
            seen[target].append(self.transformers[f"{target}_asks_{source}"](sequences[target], other))
        enriched = {letter: torch.cat(states, dim=2) for letter, states in seen.items()}
        vectors = [gate(Padded(enriched[letter], sequences[letter].present)) for letter, gate in self.gates.items()]
        return enriched, torch.cat(vectors, dim=1)


class CNNGate(nn.Module):
    """A sequence becomes one vector: gated states of a bidirectional GRU beside the steps, and the largest of each."""

    def __init__(self, size_in: int, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(size_in, size, layers, batch_first=True, bidirectional=True)
        self.gate = nn.Conv1d(2 * size, 1, kernel_size=3, padding="same")
        self.join = nn.Linear(size_in + 2 * size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, sequence: Padded) -> Tensor:
        """(B, L, size_in), at least one real step each -> (B, size)."""
        states = all_states(self.gru, sequence)
        weight = torch.sigmoid(self.gate(states.transpose(1, 2)).transpose(1, 2))
        joined = torch.tanh(self.join(torch.cat([sequence.values, torch.tanh(states) * weight], dim=2)))
        # A padded step must not win.
        real = joined.masked_fill(~sequence.present.unsqueeze(2), -torch.inf)
        largest: Tensor = self.dropout(real.amax(1))
        return largest

"""LMR-CBT of Fu et al. 2021: audio and vision, each summed up by a transformer, are fused into every word.

Each modality is brought to `size` features a step (eq. 1 and 2): audio and vision by a convolution and batch norm,
text by a two-layer BiLSTM and layer norm. The cross-modal blocks: local transformers turn audio and vision into one
vector each (eq. 3 and 4); in every step of the text these change the features by a residual block (eq. 5 and 11); a
global transformer reads the result (eq. 6). The three vectors go through a two-layer head (eq. 7). For Table 2's
ablation, `direction` says which modality is the target, and `text_steps` puts a convolution in the BiLSTM's place.

What the paper leaves open, and what was chosen, where there is a choice by its released code:

- F_{V,A} of eq. 11 are two vectors. `cross: sequential`, as released: the block is applied for the first source and
  then, with weights of its own, for the second one, in the order of `direction`. The second block sees nothing of the
  first source but its softmax, all of whose values are small: what the first one says hardly reaches the fusion.
  `cross: joint` is one block for both, softmax(tanh(L x + L f_1 + L f_2)). The residual of eq. 5 is added once.
- A transformer's last real step stands for its sequence (the text says only that F is one vector).
- Convolutions keep the length: they see zeros beyond both ends. Batch norm is over real steps only.
- A convolution of text has the kernel 3 and batch norm, as those of audio and vision.
- A target that is not named in `modalities` leaves the sources' own vectors to the head; a target alone has no block.

Parameters with 300 text, 74 audio and 35 vision features (CMU-MOSI also with 5 and 20, as MulT released it), Table 1's
sizes and kernels, and three widths for the head's hidden layer, which the paper doesn't give:

                            paper    3 x size            6 x size            size
    CMU-MOSEI               0.41 M   391,921             406,561 (-0.8 %)    382,161
    CMU-MOSEI, convolution  0.38 M   366,481             381,121 (+0.3 %)    356,721
    CMU-MOSI, 74 and 35     0.35 M   195,631             203,911 (-42 %)     190,111
    CMU-MOSI, 5 and 20      0.35 M   192,211             200,491 (-43 %)     186,691
    IEMOCAP, 4 outputs      0.34 M   398,204             413,204 (+22 %)     388,204

So 6 x size is the default: it gives both of Table 2's figures to the last published digit (the released head has two
layers of 3 x size and an output layer, 406,441 in all). The other two figures contradict Table 1: IEMOCAP has
CMU-MOSEI's size and layers there and the larger kernel, so it cannot be smaller. With size 40 and 4 layers in both
they come near, CMU-MOSI 341,481 (-2.4 %) and IEMOCAP 354,044 (+4.1 %), which round to the paper's figures for each
other: 0.34 M and 0.35 M.
"""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from data_tools.batch import Batch
from models.fusion import FusionConfig, FusionModel
from models.layers.padded import Padded
from models.layers.recurrent import all_states, bidirectional
from models.layers.sequence import sinusoids
from models.layers.text import TextEncoder
from models.output import Output

Direction = Literal["va_to_l", "vl_to_a", "la_to_v"]
# The sources in their order, and the target, as this project's letters; the paper's language is t here.
ROLES: dict[Direction, tuple[str, str]] = {"va_to_l": ("va", "t"), "vl_to_a": ("vt", "a"), "la_to_v": ("ta", "v")}


class LMRCBTConfig(FusionConfig):
    """Settings of LMR-CBT; the defaults are those for CMU-MOSEI (Table 1)."""

    size: int = Field(40, ge=2, multiple_of=2, description="features of a step after preprocessing, d in the paper")
    heads: int = Field(8, ge=1, description="attention heads of each layer; divide size")
    layers: int = Field(5, ge=1, description="of each transformer, D in the paper")
    audio_kernel: int = Field(3, ge=1, description="steps that the convolution of audio joins; odd")
    vision_kernel: int = Field(3, ge=1, description="steps that the convolution of vision joins; odd")
    text_steps: Literal["bilstm", "conv"] = Field("bilstm", description="how text is preprocessed")
    direction: Direction = Field("va_to_l", description="sources and target of the fusion; l is text")
    cross: Literal["sequential", "joint"] = Field(
        "sequential", description="two sources change the target one after the other, as released, or in one block"
    )
    head_size: int = Field(240, ge=1, description="width of the head's hidden layer")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the BiLSTM, the transformers and the head")

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.size % self.heads:
            raise ValueError(f"heads is {self.heads} and size {self.size}: give a number of heads that divides size")
        for kernel in (self.audio_kernel, self.vision_kernel):
            if kernel % 2 == 0:
                raise ValueError(f"a kernel is {kernel}: give an odd one, which has a step in its middle")
        return self


class LMRCBT(FusionModel):
    """`model(batch) -> Output`; see the head of this file."""

    def __init__(self, config: LMRCBTConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text)
        kernels = {"t": 3, "a": config.audio_kernel, "v": config.vision_kernel}
        self.steps = nn.ModuleDict(
            {
                letter: LSTMSteps(dim, config.size, config.dropout)
                if letter == "t" and config.text_steps == "bilstm"
                else ConvolvedSteps(dim, config.size, kernels[letter])
                for letter, dim in self.sizes.items()
            }
        )
        self.fusion = CBTransformer("".join(self.sizes), config)
        self.head = nn.Sequential(
            nn.Linear(config.size * len(self.sizes), config.head_size),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.head_size, config.outputs),
        )

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:  # noqa: ARG002
        """Sequences -> scores (B, outputs)."""
        same_size = {letter: self.steps[letter](sequence) for letter, sequence in sequences.items()}
        return Output(self.head(self.fusion(same_size)).float())


class ConvolvedSteps(nn.Module):
    """A convolution over steps that keeps their number, and batch norm (eq. 1)."""

    def __init__(self, size_in: int, size: int, kernel: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(size_in, size, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm1d(size)

    def forward(self, sequence: Padded) -> Padded:
        """(B, L, size_in) -> (B, L, size), zero where nothing is."""
        convolved = self.convolution(sequence.values.transpose(1, 2)).transpose(1, 2)
        steps = convolved[sequence.present]
        values = torch.zeros_like(convolved)
        # One single step has no variance to be normed by: it is normed as in evaluation.
        normed = self.norm(steps) if len(steps) > 1 else self._as_in_evaluation(steps)
        values[sequence.present] = normed.to(values.dtype)
        return Padded(values, sequence.present)

    def _as_in_evaluation(self, steps: Tensor) -> Tensor:
        norm = self.norm
        return nn.functional.batch_norm(
            steps, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )


class LSTMSteps(nn.Module):
    """A two-layer bidirectional LSTM, half of `size` in each direction, and layer norm (eq. 2)."""

    def __init__(self, size_in: int, size: int, dropout: float) -> None:
        super().__init__()
        self.lstm = bidirectional(size_in, size // 2, 2, dropout)
        self.norm = nn.LayerNorm(size)

    def forward(self, sequence: Padded) -> Padded:
        """(B, L, size_in) -> (B, L, size), zero where nothing is. Every utterance has a real step."""
        normed = self.norm(all_states(self.lstm, sequence))
        return Padded(normed * sequence.present.unsqueeze(2), sequence.present)


class CBTransformer(nn.Module):
    """The transformer with cross-modal blocks: sequences of `size` features -> one vector an utterance."""

    def __init__(self, letters: str, config: LMRCBTConfig) -> None:
        super().__init__()
        sources, target = ROLES[config.direction]
        sources = "".join(letter for letter in sources if letter in letters)
        self.target = target if target in letters else ""
        self.transformers = nn.ModuleDict(
            {
                letter: SummaryTransformer(config.size, config.layers, config.heads, config.dropout)
                for letter in self.target + sources
            }
        )
        self.sources = sources
        blocks: dict[str, nn.Module] = {}
        if self.target and config.cross == "joint" and sources:
            blocks = {"joint": JointBlock(config.size, sources)}
        elif self.target:
            blocks = {letter: CrossModalBlock(config.size) for letter in sources}
        self.blocks = nn.ModuleDict(blocks)

    def forward(self, sequences: dict[str, Padded]) -> Tensor:
        """(B, size times the modalities): F of the target first, then of the sources (above eq. 7)."""
        local = {letter: self.transformers[letter](sequences[letter]) for letter in self.sources}
        if not self.target:
            return torch.cat(list(local.values()), dim=1)
        fused = self._fused(sequences[self.target], local)
        return torch.cat([self.transformers[self.target](fused), *local.values()], dim=1)

    def _fused(self, target: Padded, local: dict[str, Tensor]) -> Padded:
        if not local:
            return target
        if "joint" in self.blocks:
            return Padded(target.values + self.blocks["joint"](target.values, local), target.present)
        changed = target.values
        for letter, summary in local.items():
            changed = self.blocks[letter](changed, summary)
        return Padded(target.values + changed, target.present)


class CrossModalBlock(nn.Module):
    """Eq. 11: what one modality makes of each step of another; softmax is over a step's features."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.of_steps = nn.Linear(size, size)
        # One bias is enough for a sum.
        self.of_source = nn.Linear(size, size, bias=False)

    def forward(self, steps: Tensor, source: Tensor) -> Tensor:
        """steps: (B, L, size). source: (B, size). Returns (B, L, size), positive, sums to 1 over the features."""
        return torch.softmax(torch.tanh(self.of_steps(steps) + self.of_source(source).unsqueeze(1)), dim=2)


class JointBlock(nn.Module):
    """Eq. 11 for several modalities at once: softmax(tanh(L x + the sum of L f)) over a step's features."""

    def __init__(self, size: int, sources: str) -> None:
        super().__init__()
        self.of_steps = nn.Linear(size, size)
        self.of_sources = nn.ModuleDict({letter: nn.Linear(size, size, bias=False) for letter in sources})

    def forward(self, steps: Tensor, sources: dict[str, Tensor]) -> Tensor:
        """steps: (B, L, size). sources: (B, size) by letter. Returns as CrossModalBlock."""
        said = torch.stack([self.of_sources[letter](source) for letter, source in sources.items()]).sum(0)
        return torch.softmax(torch.tanh(self.of_steps(steps) + said.unsqueeze(1)), dim=2)


class SummaryTransformer(nn.Module):
    """Sinusoidal positions, post-norm layers (eq. 8 to 10), layer norm, and the state of the last real step."""

    def __init__(self, size: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        made = [nn.TransformerEncoderLayer(size, heads, 4 * size, dropout, batch_first=True) for _ in range(layers)]
        self.encoder = nn.TransformerEncoder(made[0], layers, nn.LayerNorm(size), enable_nested_tensor=False)
        # It fills itself with copies of one layer, which would all start from the same weights.
        self.encoder.layers = nn.ModuleList(made)

    def forward(self, sequence: Padded) -> Tensor:
        """(B, L, size) -> (B, size)."""
        _, length, size = sequence.values.shape
        placed = sequence.values + sinusoids(length, size, sequence.values)
        return sequence.last(self.encoder(placed, src_key_padding_mask=~sequence.present))

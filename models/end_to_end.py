"""Base of FE2E and MESM: text encoder, two towers, two sequence encoders, and the weighted sum of their scores."""

from collections.abc import Callable, Iterator, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from data_tools.batch import Batch
from models.base import Model, ModelSettings
from models.errors import ModelError
from models.layers.frontends import IMAGES
from models.layers.late import WeightedSum, each_subset
from models.layers.sequence import SequenceEncoder
from models.layers.sparse.sparse_map import Count
from models.layers.text import TextEncoder
from models.layers.tower import Tower, TowerResult
from models.output import Output

HEADS = 4

# Makes one stage from channels in and channels out.
StageMaker = Callable[[int, int], nn.Module]


class EndToEndConfig(ModelSettings):
    """Sizes of FE2E and MESM; the defaults are the papers' (Table 6)."""

    width: int = Field(64, ge=4, multiple_of=4, description="first channels; stages have 2, 4 and 8 times as many")
    layers: int = Field(4, ge=1, description="transformer layers over faces and over chunks")
    feed_forward: int | None = Field(
        None, ge=1, description="width of each layer's network; None: 4 times its features; released: 2048"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="in those transformers")


class EndToEndModel(Model):
    """Raw faces, mel chunks and tokens -> scores; which stages the towers have is what makes the model.

    Parts are named by modality: `text`, `mel`, `face`. A modality that the settings don't name has no part. One that an
    utterance lacks (no words, no sound, no face) is left out of the sum of its scores. With `modality_dropout` the sums
    over all subsets of the modalities are trained beside the whole one, so that each learns to answer without the
    others: the loss `subset`, which costs nothing, as every part has its scores already. Parts that share nothing but
    the sum need no more: nothing is taken out of their input, and each learns from every utterance.

    text: the encoder; None exactly where the settings have no `t`.
    """

    drops_input = False

    def __init__(self, config: EndToEndConfig, text: TextEncoder | None, make_stage: StageMaker) -> None:
        super().__init__()
        if (text is None) is ("t" in config.modalities):
            raise ModelError(
                f"modalities is {config.modalities!r}, but a text encoder is {'not ' * (text is None)}given"
            )
        self.config = config
        width = config.width
        self.text = text
        self.towers = nn.ModuleDict()
        for letter, (name, size, mean, deviation) in IMAGES.items():
            if letter in config.modalities:
                stages = [make_stage(width * 2**i, width * 2 ** (i + 1)) for i in range(3)]
                self.towers[name] = Tower(size, width, stages, mean, deviation)
        self.sequences = nn.ModuleDict(
            {
                name: SequenceEncoder(width, config.layers, HEADS, config.dropout, config.feed_forward)
                for name in self.towers
            }
        )
        heads = {name: nn.Linear(width, config.outputs) for name in self.towers}
        if text is not None:
            heads["text"] = nn.Linear(text.size, config.outputs)
        self.heads = nn.ModuleDict(heads)
        # Sorted, as an optimizer's saved state has them.
        self.fusion = WeightedSum(sorted(heads))

    def forward(self, batch: Batch, keep_maps: bool = False) -> Output:
        """keep_maps: fill `kept` with the sites that each sparse stage computed, e.g. `face.1` (F, 24, 24) bool."""
        scores: dict[str, Tensor] = {}
        present: dict[str, Tensor] = {}
        computed: dict[str, Count] = {}
        kept: dict[str, Tensor] = {}
        towers: dict[str, TowerResult] = {}
        state = None
        if self.text is not None:
            state, computed["text.macs"] = self.text(batch.tokens, batch.token_mask)
            scores["text"] = self.heads["text"](state)
            present["text"] = batch.present("t")
        queries = self.queries(state, batch)
        for name, images, counts, longest in self._images(batch):
            query = None if queries is None else queries.repeat_interleave(counts, dim=0, output_size=len(images))
            found: TowerResult = self.towers[name](images, query)
            towers[name] = found
            summary, sequence_macs = self.sequences[name](found.features, counts, longest)
            scores[name], present[name] = self.heads[name](summary), counts > 0
            by_part = {**found.macs, "sequence": sequence_macs}
            computed[f"{name}.macs"] = sum(by_part.values())
            computed |= {f"{name}.macs.{part}": macs for part, macs in by_part.items()}
            for i, stage in enumerate(found.stages, start=1):
                computed[f"{name}.active.{i}"] = stage.active
                computed[f"{name}.share.{i}"] = stage.active / max(stage.sites, 1)
                if keep_maps and stage.kept is not None:
                    kept[f"{name}.{i}"] = stage.kept
        logits = self.fusion(scores, present)
        losses, also_scored = self.losses(towers), {}
        if self.config.modality_dropout > 0 and len(scores) > 1:
            losses["subset"] = logits.new_zeros(())
            if self.training:
                also_scored["subset"] = [self.fusion(scores, some) for some in each_subset(present)]
        tensors = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in computed.items()}
        return Output(logits, losses=losses, computed=tensors, kept=kept, also_scored=also_scored)

    def losses(self, towers: Mapping[str, TowerResult]) -> dict[str, Tensor]:  # noqa: ARG002
        """Further losses by name, from what the towers made; none where the stages are dense."""
        return {}

    def queries(self, state: Tensor | None, batch: Batch) -> Tensor | None:  # noqa: ARG002
        """Query of the towers' stages for each utterance, (B, Q); None for dense stages, which need none.

        state: (B, size) of the text, None without text.
        """
        return None

    def _images(self, batch: Batch) -> Iterator[tuple[str, Tensor, Tensor, int | None]]:
        """(tower, images, images of each utterance, the most of one) of each modality that the model has."""
        packed = {"mel": (batch.chunks, batch.chunk_counts), "face": (batch.faces, batch.face_counts)}
        longest = {"mel": batch.longest.get("chunks"), "face": batch.longest.get("faces")}
        for name in self.towers:
            yield name, *packed[name], longest[name]

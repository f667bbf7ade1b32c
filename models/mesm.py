"""MESM, the multimodal end-to-end sparse model of Dai et al. 2021 (section 4.3).

FE2E whose stages are cross-modal sparse blocks: attention with the text as query over the sites of each map, top-p,
and a submanifold VGG block on what was kept. With `top_p` 1 and the same weights it is FE2E, gradients
included.

Where this differs from the code that the authors released: the attention learns (`attention_gradient:
straight_through`; `none` is their constant mask, and configs/models/mesm-as-published.yaml all of it that is sound),
features and coordinates stay in one order, p = 1 works, the transformer has positions, and sparse batch norm has the
momentum of the dense one.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from data_tools.batch import Batch
from models.end_to_end import EndToEndConfig, EndToEndModel
from models.layers.sparse.attention import AttentionGradient
from models.layers.sparse.backends import BackendName
from models.layers.text import TextEncoder
from models.layers.tower import TowerResult
from models.layers.vgg import SparseStage


def _known_backend(name: Any) -> Any:
    """Return `auto` for `gather`, a backend of earlier versions: their settings and models still load."""
    return "auto" if name == "gather" else name


class MESMConfig(EndToEndConfig):
    """Settings of MESM."""

    top_p: float = Field(0.5, gt=0, le=1, description="share of the attention kept, in (0, 1]; 1 keeps every site")
    attention_gradient: AttentionGradient = Field(
        "straight_through",
        description="none: as published, a constant mask whose attention never learns; soft: kept sites weighted by "
        "their attention; budget: straight_through, with a p of each image that is learnt",
    )
    budget: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the sites that attention_gradient=budget keeps on the average; None: top_p",
    )
    backend: Annotated[BackendName, BeforeValidator(_known_backend)] = Field(
        "auto", description="backend of the sparse convolutions"
    )

    @model_validator(mode="after")
    def _budget_is_used(self) -> Self:
        if self.budget is not None and (self.attention_gradient != "budget" or self.top_p == 1):
            raise ValueError(
                f"budget is {self.budget}, but attention_gradient is {self.attention_gradient!r} and top_p is "
                f"{self.top_p}: only attention_gradient=budget with a top_p below 1 has one; leave it out"
            )
        return self


class MESM(EndToEndModel):
    """`model(batch) -> Output`; see models/end_to_end.py for the parts.

    The query is the CLS state of the text. Without text (`modalities: va`) it is one learnt constant, the same
    question to every utterance: the selection then depends on the image alone. In an utterance without words it is the
    state of the empty text, or with `modality_dropout` that constant too, which then asks half of the utterances in
    training: the towers learn to answer both.
    """

    def __init__(self, config: MESMConfig, text: TextEncoder | None) -> None:
        query_size = config.width if text is None else text.size

        def make_stage(in_channels: int, out_channels: int) -> nn.Module:
            rest = query_size, config.top_p, config.attention_gradient, config.backend
            return SparseStage(in_channels, out_channels, *rest)

        super().__init__(config, text, make_stage)
        has_constant = text is None or (config.modality_dropout > 0 and bool(self.towers))
        self.constant_query = nn.Parameter(torch.randn(query_size)) if has_constant else None
        self.attention_learns = config.attention_gradient != "none" and config.top_p < 1
        # What the mean kept share is drawn to; None where p is a setting.
        self.budget = None
        if config.attention_gradient == "budget" and config.top_p < 1:
            self.budget = config.top_p if config.budget is None else config.budget

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile all but stages on compact rows, whose shapes depend on the data: torch.compile cannot trace them."""
        # Not as a decorator: that would import the compiler wherever the model is imported.
        for module in self.modules():
            if isinstance(module, SparseStage):
                module.on_rows = torch.compiler.disable(module.on_rows)  # type: ignore[method-assign]
        super().compile(*args, **kwargs)

    def queries(self, state: Tensor | None, batch: Batch) -> Tensor:
        """(B, Q): the text state of each utterance, or the learnt constant."""
        if state is None:
            assert self.constant_query is not None
            return self.constant_query.expand(len(batch), -1)
        if self.constant_query is None:
            return state
        asks = batch.present("t")
        if self.training:
            asks = asks & (torch.rand(len(batch), device=state.device) < 0.5)
        return torch.where(asks.unsqueeze(1), state, self.constant_query.to(state.dtype))

    def losses(self, towers: Mapping[str, TowerResult]) -> dict[str, Tensor]:
        """`budget` where p is learnt: how far the share of kept sites is from it, squared, the mean over all stages.

        The share is of the sites that were active before a selection, its mean over the images of the batch: p can be
        larger for one image and smaller for another. A tower without images adds nothing.
        """
        if self.budget is None or not towers:
            return {}
        stages = [stage for tower in towers.values() for stage in tower.stages]
        total = next(self.parameters()).new_zeros(())
        for stage in stages:
            if stage.kept_share is not None and len(stage.kept_share):
                total = total + (stage.kept_share.mean() - self.budget) ** 2 / len(stages)
        return {"budget": total}

    def parameters_without_gradient(self) -> list[str]:
        """Every parameter of the attention where its mask is a constant, else none.

        That is with `attention_gradient: none`, as in the published code, and with `top_p` 1, which selects nothing.
        """
        if self.attention_learns:
            return []
        of_towers = [name for name, _ in self.towers.named_parameters(prefix="towers") if ".attention." in name]
        return of_towers + ["constant_query"] * (self.constant_query is not None)
